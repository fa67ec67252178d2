"""What commands that train or export do with an ONNX file: into Keras, and back again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsconvert.base.errors import InputError
from dsconvert.base.messages import note
from dsconvert.base.progress import Progress, silent
from dsconvert.base.quiet import import_quietly

from .model_files import ModelFile, open_model
from .predictors import runnable

if TYPE_CHECKING:
    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.base.predictor import Array
    from dsconvert.deploy.exporting.records import Artifact
    from dsconvert.formats.quantization import VerifiedOn
    from dsconvert.models.onnx_import import Imported

    from .model_files import Model, ModelSource

SAMPLES = 32
"""How many samples a file is compared on."""


@dataclass(frozen=True)
class ConvertedModel(ModelFile):
    """A Keras model, and the import that it is from if the file is an ONNX model.

    The names of its inputs are those of the file, their shapes those of the Keras model.

    Attributes:
        imported: The import; None for a Keras file.
        notes: What its user should know.
    """

    imported: Imported | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def unconverted(cls, opened: ModelFile) -> ConvertedModel:
        """Return an opened model as it is."""
        return cls(**vars(opened))

    @property
    def converted(self) -> Imported:
        """The import."""
        if self.imported is None:
            raise TypeError(f"{self.told} is no ONNX model")
        return self.imported


def open_as_keras(
    source: ModelSource,
    seed: int,
    progress: Progress = silent,
    *,
    wanted: str = "model",
    inputs: Callable[[ModelFile], Sequence[Array]] | None = None,
) -> ConvertedModel:
    """Open a Keras model, or convert an ONNX model to Keras.

    Args:
        source: The model.
        seed: Of the random inputs that a conversion is compared on.
        progress: Told of the comparison.
        wanted: What messages call the argument.
        inputs: Loads some real inputs of an ONNX model: where it cannot be drawn for free heights
            and widths, theirs are taken.

    Raises:
        InputError: If it is neither, or has operators that cannot be drawn.
        GateFailed: If the drawn model does not answer as the ONNX model does.
    """
    opened = open_model(source, wanted=wanted)
    if opened.kind == "onnx":
        try:
            return convert(opened, seed, progress=progress)
        except InputError:
            free = any(None in shape[1:] for shape in opened.input_shapes)
            if inputs is None or not free:
                raise
            return convert(opened, seed, inputs(opened), progress=progress)
    return ConvertedModel.unconverted(opened)


def convert(
    opened: ModelFile,
    seed: int,
    inputs: Sequence[Array] | None = None,
    *,
    tell: bool = True,
    progress: Progress = silent,
) -> ConvertedModel:
    """Draw an opened ONNX model in Keras.

    Args:
        opened: The ONNX file.
        seed: Of the random inputs that both are compared on.
        inputs: Real inputs to compare on as well, as the ONNX model takes them.
        tell: Whether to tell the user the import's notes.
        progress: Told of the comparison.
    """
    from dsconvert.formats.onnx.messages import copied
    from dsconvert.formats.onnx.open import embed_weights
    from dsconvert.models.onnx_import import import_onnx

    import_quietly("tensorflow")
    source = opened.path
    if opened.changed or source is None:  # its weights may still be in a file beside the original
        source = copied(opened.model)
        embed_weights(source, opened.folder)
    imported = import_onnx(source, inputs=inputs, seed=seed, progress=progress, called=opened.name)
    shapes = tuple(tuple(tensor.shape) for tensor in imported.model.inputs)
    notes = imported.notes
    batch = opened.input_shapes[0][:1] if opened.input_shapes else ()
    if batch not in ((), (None,), shapes[0][:1]):
        freed = f"the batch is free in Keras; in the ONNX file it is fixed to {batch[0]}"
        notes = (freed, *notes)
    for remark in notes if tell else ():
        note(f"{opened.name}: {remark}")
    return ConvertedModel(
        kind="keras",
        model=imported.model,
        path=opened.path,
        folder=opened.folder,
        input_names=imported.input_names,
        input_shapes=shapes,
        sha256=opened.sha256,
        repairs=opened.repairs,
        loading=opened.loading,
        changed=opened.changed,
        dequantized=opened.dequantized,
        imported=imported,
        notes=notes,
    )


def onnx_arrays(arrays: Sequence[Array], axes: Sequence[Sequence[int]]) -> tuple[Array, ...]:
    """Keras arrays with their axes in the order of the ONNX model.

    Args:
        arrays: One per input or output, as Keras has them.
        axes: For each the ONNX axis that each Keras axis holds.
    """
    import numpy as np

    return tuple(
        np.ascontiguousarray(array.transpose(np.argsort(order)))
        for array, order in zip(arrays, axes, strict=True)
    )


def keras_arrays(arrays: Sequence[Array], axes: Sequence[Sequence[int]]) -> tuple[Array, ...]:
    """Take the way back of `onnx_arrays`."""
    import numpy as np

    pairs = zip(arrays, axes, strict=True)
    return tuple(np.ascontiguousarray(array.transpose(order)) for array, order in pairs)


def layout_notes(imported: Imported) -> tuple[str, ...]:
    """Name inputs and outputs of an imported model that are other than in the ONNX file."""
    notes = []
    for kind, names, axes in (
        ("input", imported.input_names, imported.input_axes),
        ("output", imported.output_names, imported.output_axes),
    ):
        notes += [
            f"{kind} {name!r} is (n, H, W, C) here, and (n, C, H, W) in the ONNX file"
            if tuple(order) == (0, 2, 3, 1)
            else f"{kind} {name!r} has the axes {list(order)} of the ONNX file, in this order"
            for name, order in zip(names, axes, strict=True)
            if list(order) != sorted(order)
        ]
    return tuple(notes)


def random_arrays(drawn: ConvertedModel, seed: int) -> tuple[Array, ...]:
    """Make random inputs for an ONNX model, as it takes them."""
    import msgspec

    from dsconvert.deploy.runtimes.samples import FREE_SIZE, random_count, random_inputs

    with _original(drawn) as runtime:
        infos = [
            msgspec.structs.replace(info, shape=(None, *info.shape[1:])) if info.shape else info
            for info in runtime.inputs
        ]
    return random_inputs(infos, random_count(infos, FREE_SIZE), seed, FREE_SIZE)


def _original(drawn: ConvertedModel) -> AbstractContextManager[Any]:
    """ONNX Runtime with the model that was converted."""
    given = None if drawn.changed else drawn.path
    return runnable(given or drawn.converted.source)


def compare_import(drawn: ConvertedModel, inputs: Sequence[Array]) -> tuple[OutputFidelity, ...]:
    """Return the Keras model's outputs against those of the ONNX file in ONNX Runtime.

    Args:
        drawn: The import.
        inputs: One array per input, (n, ...), as the ONNX file takes them.

    Raises:
        InputError: If the file cannot run on them, or has an input or output without a batch axis.
    """
    from dsconvert.base.fidelity import compare_outputs

    with _original(drawn) as runtime:
        references = runtime.predict(inputs)
        kinds = runtime.output_kinds
        outputs = _answers(drawn, drawn.model, inputs, runtime.batch if runtime.has_batch else None)
    # Of a number for each sample, as of a loss, Keras makes a row of one.
    pairs = zip(outputs, references, strict=True)
    alike = [one.reshape(like.shape) if like.shape == (one.size,) else one for one, like in pairs]
    return compare_outputs(drawn.converted.output_names, references, alike, kinds)


def _answers(
    drawn: ConvertedModel, model: Model, inputs: Sequence[Array], batch: int | None
) -> tuple[Array, ...]:
    """Return the outputs of a Keras model of an import's layers, as ONNX Runtime gives them.

    Args:
        drawn: The import.
        model: The Keras model.
        inputs: One array per input, (n, ...), as the ONNX file takes them.
        batch: The batch that is fixed in the file; None for a free one.
    """
    from dsconvert.models.evaluation.keras_predictor import KerasPredictor

    imported = drawn.converted
    predictor = KerasPredictor(model, output_axes=imported.output_axes, batch=batch)
    return predictor.predict(keras_arrays(inputs, imported.input_axes))


def write_onnx(
    drawn: ConvertedModel,
    model: Model,
    output: Path,
    *,
    data: Sequence[Array] | None,
    seed: int,
    overwrite: bool,
    source_sha256: str,
    notes: tuple[str, ...] = (),
) -> Artifact:
    """Write the weights of a Keras model into the ONNX graph that it was drawn from.

    The file is run in ONNX Runtime and compared with the Keras model before it takes its place.

    Args:
        drawn: The import.
        model: The Keras model with the weights, of the same layers as the import.
        output: The .onnx file to write.
        data: Inputs to compare on, as the Keras model takes them; random ones if None.
        seed: Of random inputs.
        overwrite: Whether the output may be replaced.
        source_sha256: The hash of the file that the weights are from.
        notes: What the user of the file should know.

    Raises:
        InputError: If the model's layers are others.
        GateFailed: If the file's outputs are not the model's.
    """
    from dsconvert.deploy.exporting.onnx_place import place_onnx

    imported = drawn.converted
    check_layers(model, drawn)
    verified_on: VerifiedOn = "random inputs" if data is None else "verification data"
    if data is None:
        inputs = random_arrays(drawn, seed)
    else:
        inputs = onnx_arrays([array[:SAMPLES] for array in data], imported.input_axes)
    with _original(drawn) as runtime:
        references = _answers(drawn, model, inputs, runtime.batch if runtime.has_batch else None)
    return place_onnx(
        imported.write_back(model),
        output,
        names=imported.output_names,
        inputs=inputs,
        references=references,
        verified_on=verified_on,
        external=_has_external_data(drawn.path),
        overwrite=overwrite,
        source_sha256=source_sha256,
        notes=notes,
    )


def check_layers(model: Model, drawn: ConvertedModel) -> None:
    """Refuse a Keras model whose layers with weights are not those of an import.

    Raises:
        InputError: With the first layer that differs.
    """
    from dsconvert.base.errors import InputError

    expected, got = _weight_shapes(drawn.model), _weight_shapes(model)
    differ = [name for name in {**expected, **got} if expected.get(name) != got.get(name)]
    if not differ:
        return
    name = differ[0]
    told = [
        f"weights {shapes[name]}" if name in shapes else "no such layer"
        for shapes in (expected, got)
    ]
    raise InputError(
        f"the Keras model's layers are not those of {drawn.told}: {len(differ)} differ, the first "
        f"is {name!r}: {told[0]} in {drawn.name}, {told[1]} in the Keras model.",
        "Give the .onnx file that the Keras model was imported from. A model that was rewritten in "
        "Keras has other layers: rewrite the .onnx file instead, and fine-tune that.",
        code="other-layers",
    )


def _weight_shapes(model: Model) -> dict[str, list[tuple[int, ...]]]:
    """Return the shapes of each layer's weights, by its name."""
    return {
        layer.name: [tuple(weight.shape) for weight in layer.weights]
        for layer in model.layers
        if layer.weights
    }


def _has_external_data(path: Path | None) -> bool:
    from dsconvert.formats.onnx.open import load
    from dsconvert.formats.onnx.tensors import has_external_data

    return path is not None and has_external_data(load(path))
