"""Data to calibrate, fine-tune and evaluate with, from wherever the user has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from dsconvert.base.arguments import as_path
from dsconvert.base.errors import InputError
from dsconvert.base.image_layout import Layout, arrange, arranged, channels_last, choose, then
from dsconvert.base.predictor import Array, Shape

from .functions import is_function, read_function
from .images import read_folder
from .preprocess import Preprocessing
from .records import is_records, read_records
from .sources import Raw, Request, Split, read_archive, read_array
from .stored import Stored, of_array

_UNCHANGED = Preprocessing()
_TOO_LARGE_FOR_INT64 = 2**63


@dataclass(frozen=True)
class Data:
    """Samples as a model is fed them.

    Attributes:
        inputs: One float32 array per model input, (n, ...), preprocessed. What is too large for
            memory is `Stored`: an index or a slice of its first axis gives an array.
        labels: (n,) integer classes, or regression targets (n, ...), or None.
        names: The names of the inputs where they are known.
        preprocessing: What was done to the stored values.
        source: Where they come from.

    Example:
        >>> import dsconvert as ds
        >>> data = ds.load_data("digits.npz", split="train")
        >>> data.inputs[0].shape, data.labels.shape
        ((300, 8, 8, 1), (300,))
    """

    inputs: tuple[Any, ...]
    labels: Array | None = None
    names: tuple[str, ...] = ()
    preprocessing: Preprocessing = _UNCHANGED
    source: str = "memory"

    def __len__(self) -> int:
        return len(self.inputs[0])

    def __repr__(self) -> str:
        """Shapes and types, not the pixels."""
        names = self.names if len(self.inputs) > 1 else ("",) * len(self.inputs)
        told = [
            f"{f'{name} ' if name else ''}{array.dtype} {array.shape}"
            for name, array in zip(names or ("",) * len(self.inputs), self.inputs, strict=False)
        ]
        if self.labels is not None:
            told.append(f"labels {self.labels.dtype} {self.labels.shape}")
        return f"{len(self)} samples of {self.source}: {'; '.join(told)}"

    @property
    def on_disk(self) -> bool:
        """Tell whether some inputs are read when they are asked for."""
        return any(isinstance(array, Stored) for array in self.inputs)

    def loaded(self) -> Data:
        """Return the same samples with all inputs in memory."""
        return replace(self, inputs=tuple(array[:] for array in self.inputs))

    def take(self, index: NDArray[np.intp] | slice) -> Data:
        """Return the samples of these indices; what is on disk stays there."""
        return replace(
            self,
            inputs=tuple(
                array.select(index) if isinstance(array, Stored) else array[index]
                for array in self.inputs
            ),
            labels=None if self.labels is None else self.labels[index],
        )

    def laid_out(self, input_shapes: Sequence[Shape]) -> Data:
        """The same samples with the channel axis where a model of these input shapes takes it.

        What fits already, or does not fit either way, stays as it is.
        """
        if len(input_shapes) != len(self.inputs):
            return self
        moves = tuple(
            choose(array.shape, shape, channels_first=False)
            for array, shape in zip(self.inputs, input_shapes, strict=True)
        )
        if set(moves) <= {"as stored"}:
            return self
        nothing: Layout = "as stored"
        before = self.preprocessing.layout or (nothing,) * len(moves)
        layout = tuple(then(first, second) for first, second in zip(before, moves, strict=True))
        return replace(
            self,
            inputs=tuple(_moved(x, move) for x, move in zip(self.inputs, moves, strict=True)),
            preprocessing=_recorded(self.preprocessing, layout),
        )


def load_data(
    source: str | Path,
    *,
    split: Split,
    preprocessing: Preprocessing | None = None,
    image_size: tuple[int, int] | None = None,
    samples: int | None = None,
    seed: int = 0,
    labels: bool = False,
    input_names: Sequence[str] = (),
    input_shapes: Sequence[Shape] = (),
    memory: int | None = None,
) -> Data:
    """Load samples and preprocess them.

    Args:
        source: One of

            - an .npz file with arrays x (or x_train and x_test) and optionally y (y_train,
              y_test); a model with several inputs takes arrays named after them;
            - an .npy file with the inputs of a model that has one;
            - a folder of images, one sub-folder per class or none, optionally below train/ and
              test/;
            - records: .tfrecord files or .tar shards, a folder of them, a pattern such as
              "shards-{000..007}.tar", or "tfds:name";
            - "module:function", which returns arrays x or (x, y), or a tf.data.Dataset, generator
              or other iterable of x or (x, y), batched or not; several inputs are a dictionary.

        split: "train" to calibrate and fine-tune with, "test" to evaluate with.
        preprocessing: Applied to every input.
        image_size: (height, width) to which image files are resized; by default the model's.
        samples: How many to draw at random; of an iterable the first. None takes all.
        seed: Seeds the draw.
        labels: Whether labels are required; where they are not, those that can be read are loaded.
        input_names: The names of the model's inputs.
        input_shapes: Their shapes with the batch axis first: they say where the channel axis goes,
            give a missing one and the size of images, and tell samples of an iterable from batches.
        memory: Bytes that the inputs may take as float32. Larger ones stay as they are stored, in
            memory or on disk, until they are asked for. None loads all.

    Raises:
        InputError: If the source cannot be used, with what it holds.
    """
    preprocessing = preprocessing or _UNCHANGED
    if samples is not None and samples < 1:
        raise InputError(
            f"{samples} samples were asked for; at least 1 is needed.", code="not-a-sample-count"
        )
    request = Request(
        split=split,
        samples=samples,
        seed=seed,
        names=tuple(input_names),
        shapes=tuple(
            channels_last(shape, channels_first=preprocessing.channels_first)
            for shape in input_shapes
        ),
        memory=memory,
        needs_labels=labels,
    )
    raw = _read(source, request, image_size)
    check_counts(raw.inputs, raw.labels, str(source))
    if labels and raw.labels is None:
        raise InputError(
            f"{source} has no labels for its {split} data.",
            "Name them y or y_train/y_test in an .npz file, put images into one folder per class, "
            "or return (x, y).",
            code="needs-labels",
        )
    shapes = tuple(input_shapes) or (None,) * len(raw.inputs)
    layout = tuple(
        choose(array.shape, shape, channels_first=preprocessing.channels_first)
        for array, shape in zip(raw.inputs, shapes, strict=False)
    )
    index = slice(None) if raw.drawn else request.draw(len(raw.inputs[0]))
    return Data(
        inputs=tuple(
            _prepared(array, index, preprocessing, where, request)
            for array, where in zip(raw.inputs, layout, strict=False)
        ),
        labels=_drawn_labels(raw, index, request),
        names=request.names,
        preprocessing=_recorded(preprocessing, layout),
        source=str(source),
    )


def _prepared(
    array: Array | Stored,
    index: Any,
    preprocessing: Preprocessing,
    layout: Layout,
    request: Request,
) -> Array | Stored:
    """Return the samples drawn: in memory, or unread where they are too large for it."""
    if not request.stays(array.shape):
        return preprocessing.apply(array[index], layout)
    stored = array if isinstance(array, Stored) else of_array(array, f"{array.dtype}{array.shape}")
    stored = stored.select(index)
    if request.memory is not None and _bytes(stored) <= request.memory:  # as stored it fits
        stored = of_array(stored[:], f"{stored.identity}{stored.numbers}")

    def prepare(values: Array) -> Array:
        return preprocessing.apply(values, layout)

    sample = arranged(stored.shape, layout)[1:]
    prepare(stored[:1])  # a wrong number of channels is told now
    return stored.then(prepare, [size or 0 for size in sample], np.dtype(np.float32))


def _bytes(stored: Stored) -> int:
    return math.prod(stored.shape) * stored.dtype.itemsize


def _drawn_labels(raw: Raw, index: Any, request: Request) -> Array | None:
    """Return the labels of the samples; those in records too large for memory only if wanted."""
    labels = raw.labels
    if labels is None:
        return None
    unread = isinstance(labels, Stored) and request.stays(raw.inputs[0].shape)
    if unread and not request.needs_labels:
        return None
    return request.labels(lambda: plain_labels(labels[index]))


def _moved(array: Array | Stored, layout: Layout) -> Array | Stored:
    if not isinstance(array, Stored):
        return arrange(array, layout)
    sample = arranged(array.shape, layout)[1:]
    return array.then(lambda values: arrange(values, layout), [size or 0 for size in sample])


def holdout(data: Data, size: int | float, *, seed: int = 0) -> tuple[Data, Data]:
    """Split at random into the rest and ``size`` samples that are held out.

    Args:
        data: At least two samples.
        size: Number of samples, or a share below 1 (of which at least one sample comes).
        seed: Seeds the draw.

    Raises:
        InputError: If either part would be empty.
    """
    count = len(data)
    number = max(1, round(size * count)) if isinstance(size, float) and size < 1 else int(size)
    if size <= 0 or number >= count:
        raise InputError(
            f"cannot hold {size} of {count} samples out: both parts need at least one.",
            "Give more samples, or hold fewer out.",
            code="too-few-samples",
        )
    order = np.random.default_rng(seed).permutation(count)
    return data.take(np.sort(order[number:])), data.take(np.sort(order[:number]))


def check_source(source: str | Path) -> None:
    """Refuse a source that is not there, or of no known form, without reading it.

    Raises:
        InputError: With the forms that are known.
    """
    path = as_path(source, "the data")
    if is_records(str(source)) or path.is_dir() or is_function(str(source)):
        return
    if path.suffix in (".npz", ".npy"):
        if not path.is_file():
            told = "is not a regular file" if path.exists() else "does not exist"
            raise InputError(
                f"{path} {told}.",
                "Paths are relative to the current folder, those of a recipe too.",
                code="data-not-found",
            )
        return
    raise InputError(
        f"{source} is no data source: "
        + ("its format is not known." if path.exists() else "it does not exist."),
        "Give an .npz or .npy file, a folder of images, .tfrecord or .tar files, or "
        "module:function.",
        code="not-a-data-source",
    )


def _read(source: str | Path, request: Request, image_size: tuple[int, int] | None) -> Raw:
    check_source(source)
    path = as_path(source, "the data")
    if is_records(str(source)):
        return read_records(str(source), request, image_size)
    if path.is_dir():
        return read_folder(path, request, image_size)
    if path.suffix in (".npz", ".npy"):
        return read_archive(path, request) if path.suffix == ".npz" else read_array(path, request)
    return read_function(str(source), request)


def check_counts(
    inputs: Sequence[Array | Stored], labels: Array | Stored | None, source: str
) -> None:
    """Refuse inputs and labels of different numbers of samples, or of none.

    Raises:
        InputError: With the numbers.
    """
    counts = [len(array) for array in inputs]
    if labels is not None:
        counts.append(len(labels))
    if 0 in counts[:1]:
        raise InputError(f"{source} holds no samples.", code="no-samples")
    if len(set(counts)) > 1:
        raise InputError(
            f"the inputs and labels of {source} differ in number: {counts}.", code="counts-differ"
        )


def _recorded(preprocessing: Preprocessing, layout: tuple[Layout, ...]) -> Preprocessing:
    """Return the preprocessing with what was done to the channel axes, if anything was."""
    moved = layout if set(layout) - {"as stored"} else ()
    return msgspec.structs.replace(preprocessing, layout=moved)


def plain_labels(labels: Array) -> Array:
    """Classes as (n,) int64 whether stored as such, as (n, 1), as whole floats or one-hot.

    Numbers that int64 does not hold stay as they are; targets of another kind become float32.

    >>> plain_labels(np.eye(3)[[2, 0]])
    array([2, 0])
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    one_hot = (
        labels.ndim == 2
        and np.isin(labels, (0, 1)).all()
        and (np.sum(labels, axis=1, dtype=np.int64) == 1).all()
    )
    if one_hot:
        return np.asarray(labels.argmax(axis=1), np.int64)
    if labels.ndim == 1 and (labels.dtype.kind in "ib" or _are_whole(labels)):
        return np.asarray(labels, np.int64)
    if labels.ndim == 1 and labels.dtype.kind == "u":
        return labels
    return np.asarray(labels, np.float32)


def _are_whole(labels: Array) -> bool:
    """Tell whether numbers are whole ones that int64 holds: infinity is its own floor."""
    if labels.dtype.kind == "f":
        labels = labels.astype(np.float64)  # half precision has no room for the bound
    return bool(np.all((labels == np.floor(labels)) & (abs(labels) < _TOO_LARGE_FOR_INT64)))
