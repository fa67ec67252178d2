"""Convert an ONNX model to Keras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.progress import as_progress

from .data_for import check_sources, data_for
from .model_files import kind_of_source, open_model, path_of
from .onnx_round_trip import SAMPLES, ConvertedModel, compare_import, convert, random_arrays
from .outputs import place
from .results.imported import ImportedModel, ImportedTensor, ImportResult
from .saved_models import save_keras
from .stored_preprocessing import known, settled, stored_preprocessing

if TYPE_CHECKING:
    import onnx

    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.base.predictor import Array, Shape
    from dsconvert.base.progress import Progress
    from dsconvert.models.data.preprocess import Preprocessing

    from .data_for import DataSource
    from .model_files import ModelFile, ModelPath


def import_onnx(
    model: str | Path | ModelPath | ModelFile | onnx.ModelProto,
    output: str | Path | None = None,
    *,
    data: DataSource | None = None,
    preprocessing: Preprocessing | None = None,
    overwrite: bool = False,
    seed: int = 0,
    progress: Progress | bool = False,
) -> ImportedModel:
    """Convert an ONNX model to Keras: stock layers, images as (n, H, W, C), the same outputs.

    The result loads in plain Keras, trains and converts to TFLite; ``write_back()`` gives the ONNX
    graph with the weights that it has then.

    Args:
        model: A path, an `onnx.ModelProto`, or what `load` returns.
        output: The .keras or .h5 file to write.
        data: Real inputs to compare on, in the layout of the ONNX model or of images as stored;
            random ones by default.
        preprocessing: What is done to data that are loaded from a file.
        overwrite: Whether the output may exist.
        seed: Of random inputs.
        progress: True for a bar on stderr.

    Returns:
        The `keras.Model`, the names and axes of its inputs and outputs, and how close they are.

    Raises:
        InputError: If the model has operators that have no counterpart; all are named.
        GateFailed: If an output differs from ONNX Runtime's.
        MissingExtra: If keras, onnx or onnxruntime is not installed.

    Example:
        >>> import dsconvert as ds
        >>> imported = ds.import_onnx("model.onnx")
        >>> imported.model.inputs[0].shape
        (None, 8, 8, 1)
        >>> type(imported.write_back()).__name__
        'ModelProto'
    """
    from dsconvert.base.errors import InputError
    from dsconvert.models.data.preprocess import Preprocessing

    path = path_of(model)
    if (path is None or path.exists()) and kind_of_source(model) == "keras":
        raise InputError(
            f"{path or 'the model'} is no .onnx file.",
            "A Keras model needs no import: give it to the other commands as it is.",
            code="not-onnx",
        )
    if output is not None:
        output = place(model, output, overwrite=overwrite, allowed=(".keras", ".h5"))
    check_sources(data)
    opened, told = open_model(model), as_progress(progress)
    preprocessing = settled(preprocessing, [opened], data)
    prepared, inputs = preprocessing or Preprocessing(), None
    done = preprocessing or stored_preprocessing(opened)
    if data is not None:
        images = data_for(
            opened, data, split="test", samples=SAMPLES, seed=seed, preprocessing=preprocessing
        )
        inputs, prepared, done = images.inputs, images.preprocessing, known(images)
    drawn = convert(opened, seed, inputs, tell=False, progress=told)
    fidelity, samples, notes = _compared(drawn, inputs, seed)
    size, digest = None, ""
    if output is not None:
        size, digest = save_keras(drawn.model, output, overwrite=overwrite, preprocessing=done)
    imported = drawn.converted
    batch = opened.input_shapes[0][0] if opened.input_shapes and opened.input_shapes[0] else None
    outputs = [tuple(tensor.shape) for tensor in drawn.model.outputs]
    record = ImportResult(
        model=opened.told,
        source_sha256=opened.sha256,
        output=str(output or ""),
        sha256=digest,
        size_bytes=size,
        inputs=_tensors(imported.input_names, drawn.input_shapes, imported.input_axes, batch),
        outputs=_tensors(imported.output_names, outputs, imported.output_axes, batch),
        fidelity=fidelity,
        verified_on="random inputs" if inputs is None else "verification data",
        samples=samples,
        preprocessing=prepared,
        notes=(*drawn.notes, *notes),
    )
    return ImportedModel(model=drawn.model, source=imported, record=record)


def _compared(
    drawn: ConvertedModel, inputs: Sequence[Array] | None, seed: int
) -> tuple[tuple[OutputFidelity, ...], int, tuple[str, ...]]:
    """Return the figures, on how many samples, and what is to be said of them."""
    from dsconvert.base.errors import InputError
    from dsconvert.deploy.runtimes.samples import samples_of

    if inputs is not None:
        return compare_import(drawn, inputs), samples_of(inputs), ()
    try:
        inputs = random_arrays(drawn, seed)
        return compare_import(drawn, inputs), samples_of(inputs), ()
    except (InputError, ValueError) as error:  # of sizes that happen not to go together
        text = "the import was compared with ONNX Runtime, but there are no figures"
        return (), 0, (f"{text}: {getattr(error, 'message', error)}",)


def _tensors(
    names: Sequence[str], shapes: Sequence[Shape], axes: Sequence[Sequence[int]], batch: int | None
) -> tuple[ImportedTensor, ...]:
    return tuple(
        ImportedTensor(
            name=name,
            shape=shape,
            onnx_shape=_onnx_shape(shape, order, batch),
            axes=tuple(order),
        )
        for name, shape, order in zip(names, shapes, axes, strict=True)
    )


def _onnx_shape(shape: Shape, axes: Sequence[int], batch: int | None) -> Shape:
    """Return a Keras shape as it is in the ONNX file, whose batch may be fixed."""
    sizes = [shape[axes.index(axis)] for axis in range(len(shape))]
    return (batch if sizes[0] is None else sizes[0], *sizes[1:]) if sizes else ()
