"""Load data in the form that an opened model takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .model_files import ModelFile, open_model

if TYPE_CHECKING:
    from dsconvert.base.predictor import Array, Shape
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.data.preprocess import Preprocessing

    from .model_files import ModelSource

    Arrays: TypeAlias = Array | Sequence[Array] | Mapping[str, Array]
    """Samples of a model's one input, or of each, (n, ...), in their order or by their names."""
    DataSource: TypeAlias = str | Path | Data | Arrays
    """A file, a folder or "module:function"; or samples that are loaded already."""


def load_data(
    source: str | Path,
    *,
    split: Literal["train", "test"],
    model: ModelSource | None = None,
    preprocessing: Preprocessing | None = None,
    image_size: tuple[int, int] | None = None,
    samples: int | None = None,
    labels: bool = False,
    seed: int = 0,
) -> Data:
    """Load samples and preprocess them.

    Args:
        source: An .npz file with the arrays x and y, or x_train, y_train, x_test and y_test; an
            .npy file; a folder of images, one folder per class or none; .tfrecord files or .tar
            shards (a file, a folder, a pattern such as "shards-{000..007}.tar", or "tfds:name");
            or "module:function", which returns x or (x, y), or a tf.data.Dataset.
        split: "train" to calibrate and fine-tune with, "test" to evaluate with.
        model: The model that the samples are for: it says where the channel axis goes, and the
            size of images.
        preprocessing: What is done to the stored values.
        image_size: (height, width) that image files are resized to; by default the model's.
        samples: How many to draw at random; None takes all.
        labels: Whether labels are required; where they are not, those that can be read are loaded.
        seed: Seeds the draw.

    Returns:
        The samples: `inputs`, one float32 array (n, ...) per input, and `labels`, (n,) or None.

    Raises:
        InputError: If the source cannot be used, with what it holds.

    Example:
        >>> import dsconvert as ds
        >>> ds.load_data("digits.npz", split="test", model="model.keras")
        100 samples of digits.npz: float32 (100, 8, 8, 1); labels int64 (100,)
    """
    from dsconvert.models.data.datasets import load_data as load

    opened = None if model is None else open_model(model)
    return load(
        source,
        split=split,
        preprocessing=preprocessing,
        image_size=image_size,
        samples=samples,
        seed=seed,
        labels=labels,
        input_names=opened.input_names if opened else (),
        input_shapes=opened.input_shapes if opened else (),
    )


def check_sources(*sources: DataSource | None) -> None:
    """Refuse data that are not there, before a framework is imported or a model is opened.

    Raises:
        InputError: If a file or folder does not exist, or its form is not known.
    """
    named = [source for source in sources if isinstance(source, str | Path)]
    if not named:  # what reads images takes its time to import
        return
    from dsconvert.models.data.datasets import check_source

    for source in named:
        check_source(source)


def as_data(
    source: DataSource,
    *,
    split: Literal["train", "test"],
    input_names: Sequence[str],
    input_shapes: Sequence[Shape],
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
    seed: int = 0,
    labels: bool = False,
    memory: int | None = None,
) -> Data:
    """Take samples as they are given, or load them, in the layout of a model.

    Args:
        source: Samples, or where they are; those that are loaded already are all used.
        split: Which part of a file.
        input_names: The names of the model's inputs.
        input_shapes: Their shapes with the batch axis first.
        preprocessing: What is done to stored values.
        samples: How many to draw of a file.
        seed: Of that draw.
        labels: Whether labels are required.
        memory: Bytes of float32 above which samples of a file stay as they are stored.

    Raises:
        InputError: If they cannot be used.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.models.data import datasets
    from dsconvert.models.data.checks import check_number

    if isinstance(source, str | Path):
        return datasets.load_data(
            source,
            split=split,
            preprocessing=preprocessing,
            samples=samples,
            seed=seed,
            labels=labels,
            input_names=input_names,
            input_shapes=input_shapes,
            memory=memory,
        )
    if preprocessing is not None and not preprocessing.does_nothing:
        raise InputError(
            "preprocessing is for data that are loaded from a file; these are in memory.",
            "Apply it first: preprocessing.apply(images), or load_data(..., preprocessing=...).",
            code="preprocessing-ignored",
        )
    data = _in_memory(source, input_names)
    check_number(input_shapes, data)
    datasets.check_counts(data.inputs, data.labels, data.source)
    data = data.laid_out(input_shapes)
    if labels and data.labels is None:
        raise InputError(
            f"the data of {data.source} have no labels.",
            "Give load_data(...) of a source with labels.",
            code="needs-labels",
        )
    return data


def _in_memory(source: Data | Arrays, names: Sequence[str]) -> Data:
    """Return samples in memory, as they are given or in float32.

    Raises:
        InputError: If they are no arrays of numbers, or lack an input's.
    """
    import numpy as np

    from dsconvert.base.errors import InputError
    from dsconvert.models.data.array_names import arrays_by_name
    from dsconvert.models.data.datasets import Data, plain_labels
    from dsconvert.models.data.sources import numeric

    if isinstance(source, Data):
        for array in source.inputs:
            if isinstance(array, np.ndarray):
                numeric(array, f"an input of {source.source}")
        if source.labels is None:
            return source
        labels = plain_labels(numeric(source.labels, f"the labels of {source.source}"))
        return replace(source, labels=labels)
    if isinstance(source, Mapping):
        source = arrays_by_name(source, names or tuple(source))
    elif hasattr(source, "__array__"):  # of NumPy, or a tensor
        source = [np.asanyarray(source)]
    elif not isinstance(source, Iterable) or isinstance(source, bytes):
        raise InputError(
            f"the data are a {type(source).__name__}; arrays of numbers are required.",
            "Give an array (n, ...), one for each input, or where they are stored.",
            code="not-a-data-source",
        )
    try:
        with np.errstate(over="ignore"):  # infinity is refused later, with its samples
            arrays = [np.asarray(numeric(array, "an input"), np.float32) for array in source]
    except ValueError as error:  # lists of several lengths
        raise InputError(f"the data are no arrays: {error}.", code="not-numbers") from error
    return Data(tuple(arrays), names=tuple(names))


def data_for(opened: ModelFile, source: DataSource, *, warn: bool = True, **wishes: Any) -> Data:
    """Load data in the form a model takes, and say what was moved and what looks wrong.

    For an ONNX model this imports no framework.

    Args:
        opened: The model.
        source: The samples, or where they are.
        warn: Whether to say what looks wrong.
        **wishes: See `as_data`.
    """
    from dsconvert.base.messages import note
    from dsconvert.models.data.checks import check_against, layout_notes
    from dsconvert.models.evaluation.plausibility import suspicions

    data = as_data(
        source, input_names=opened.input_names, input_shapes=opened.input_shapes, **wishes
    )
    check_against(opened.input_shapes, data)
    if data.on_disk:
        size = sum(math.prod(array.shape) for array in data.inputs) * 4 / 2**30
        note(f"{data.source}: {size:.1f} GiB as float32; batches are read while training runs")
    for text in layout_notes(data):
        note(text)
    for suspicion in suspicions(data, opened.model, opened.folder) if warn else ():
        note(suspicion)
    return data


def data_memory() -> int:
    """Return how many bytes training data may take: a third of what is free."""
    import psutil

    return int(psutil.virtual_memory().available / 3)


def calibration_for(
    opened: ModelFile,
    source: DataSource | None,
    samples: int,
    seed: int,
    preprocessing: Preprocessing | None,
) -> Data | None:
    """Load calibration images, if a source was given."""
    if source is None:
        return None
    return data_for(
        opened, source, split="train", samples=samples, seed=seed, preprocessing=preprocessing
    )
