from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.workflows import data_for, model_files, onnx_round_trip
from dsconvert.workflows.results import ImportedTensor, ImportResult

from . import formatting, options, terminal
from .export import show_fidelity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.base.predictor import Array, Shape


def show(console: Console, result: ImportResult) -> None:
    """Inputs and outputs with their layouts, the check, the file."""
    for kind, tensors in (("input", result.inputs), ("output", result.outputs)):
        for tensor in tensors:
            there, here = _told(tensor.onnx_shape), _told(tensor.shape)
            same = list(tensor.axes) == sorted(tensor.axes)
            console.print(f"{kind} {tensor.name}: {here}" + ("" if same else f", in ONNX {there}"))
    for output in result.fidelity:
        show_fidelity(console, output, result.samples, result.verified_on)
    for note in result.notes:
        console.print(f"note: {note}")
    console.print(f"{result.output}: {formatting.kib(result.size_bytes)}, SHA-256 {result.sha256}")


def _told(shape: Shape) -> str:
    sizes = ["any" if size is None else str(size) for size in shape]
    if shape and shape[0] is None:
        sizes[0] = "n"
    return f"({', '.join(sizes)})"


@click.command("import")
@click.argument("model", type=options.MODEL)
@options.output(".keras", "a .keras or .h5 file")
@click.option("--data", metavar="DATA", help="Real inputs to compare on; random ones otherwise.")
@options.overwrite
@options.preprocessing
@options.common
@terminal.speaks(show)
def import_(
    model: Path,
    output: Path | None,
    data: str | None,
    overwrite: bool,
    seed: int,
    **prepare: Any,
) -> ImportResult:
    """Draw the ONNX MODEL in Keras: stock layers, images as (n, H, W, C), the same outputs.

    The file loads in plain Keras. `export --like MODEL` takes its weights back to ONNX.
    """
    from dsconvert.base.errors import InputError

    prepared = options.as_preprocessing(**prepare)
    if model.exists() and model_files.kind_of(model) == "keras":
        raise InputError(
            f"{model} is no .onnx file.",
            "A Keras model needs no import: give it to the other commands as it is.",
        )
    output = options.place(model, output, ".keras", overwrite, allowed=(".keras", ".h5"))
    opened = model_files.open_model(model, False, None)
    inputs = None
    if data is not None:
        images = data_for.data_for(
            opened,
            data,
            split="test",
            samples=onnx_round_trip.SAMPLES,
            seed=seed,
            preprocessing=prepared,
        )
        inputs, prepared = images.inputs, images.preprocessing
    drawn = onnx_round_trip.convert(opened, seed, inputs, tell=False, progress=terminal.progress)
    fidelity, samples, notes = _compared(drawn, inputs, seed)
    size, digest = model_files.save_keras(drawn.model, output, overwrite, False, None)
    imported = drawn.imported
    assert imported is not None
    batch = opened.input_shapes[0][0] if opened.input_shapes and opened.input_shapes[0] else None
    outputs = [tuple(tensor.shape) for tensor in drawn.model.outputs]
    return ImportResult(
        model=str(model),
        source_sha256=opened.sha256,
        output=str(output),
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


def _compared(
    drawn: onnx_round_trip.ConvertedModel, inputs: Sequence[Array] | None, seed: int
) -> tuple[tuple[OutputFidelity, ...], int, tuple[str, ...]]:
    """The figures, on how many samples, and what is to be said of them."""
    from dsconvert.base.errors import InputError

    if inputs is not None:
        return onnx_round_trip.compare_import(drawn, inputs), len(inputs[0]), ()
    try:
        inputs = onnx_round_trip.random_arrays(drawn.path, seed)
        return onnx_round_trip.compare_import(drawn, inputs), len(inputs[0]), ()
    except InputError as error:  # of sizes that happen not to go together, or without a batch axis
        text = "the import was compared with ONNX Runtime, but there are no figures"
        return (), 0, (f"{text}: {error.message}",)


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
    """A Keras shape as it is in the ONNX file, whose batch may be fixed."""
    sizes = [shape[axes.index(axis)] for axis in range(len(shape))]
    return (batch if sizes[0] is None else sizes[0], *sizes[1:]) if sizes else ()
