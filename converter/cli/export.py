from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from . import figures, onnx_models, options, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsconvert.converter.core.fidelity import OutputFidelity
    from dsconvert.converter.core.predictor import Array
    from dsconvert.deploy import Artifact
    from rich.console import Console


def show(console: Console, result: Artifact) -> None:
    """The file, its fidelity and what to know of it."""
    quantized = "float32" if result.quantization == "none" else result.quantization
    console.print(f"{result.path}: {result.format} {quantized}, {figures.kib(result.size_bytes)}")
    console.print(f"SHA-256 {result.sha256}")
    for output in result.fidelity:
        show_fidelity(console, output, result.samples, result.verified_on)
    for note in result.notes:
        console.print(f"note: {note}")


def show_fidelity(console: Console, output: OutputFidelity, samples: int, what: str) -> None:
    """How close one output is, on what."""
    parts = [f"relative error {output.relative_error:.2g}"] if output.relative_error else []
    if output.sqnr_db is not None:
        parts.append(f"SQNR {output.sqnr_db:.1f} dB")
    if output.top1_agreement is not None:
        parts.append(f"top-1 agreement {figures.percent(output.top1_agreement)}")
    told = ", ".join(parts) or "equal"
    console.print(f"{output.name}: {told} on {samples} samples ({what})")


@click.command()
@click.argument("model", type=options.MODEL)
@options.output(".tflite", "a .tflite or .onnx file")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["tflite", "onnx"]),
    help="By default what -o ends in, else tflite.",
)
@click.option(
    "--quantize",
    type=click.Choice(["none", "float16", "dynamic", "int8"]),
    default="none",
    show_default=True,
)
@click.option(
    "--calibration", metavar="DATA", help="Images: the representative dataset, and to verify with."
)
@click.option(
    "--like",
    type=options.MODEL,
    metavar="ONNX",
    help="The .onnx file that MODEL was imported from: write its graph with MODEL's weights.",
)
@click.option("--samples", type=click.IntRange(1), default=500, show_default=True)
@options.overwrite
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(show)
def export(
    model: Path,
    output: Path | None,
    file_format: Any,
    quantize: Any,
    calibration: str | None,
    like: Path | None,
    samples: int,
    overwrite: bool,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    **prepare: Any,
) -> Artifact:
    """Convert MODEL, Keras or ONNX, and verify the file before it takes its place.

    A Keras model becomes TFLite or ONNX, an ONNX model TFLite.
    """
    from dsconvert.deploy import export as run

    prepared = options.as_preprocessing(**prepare)
    ending = f".{file_format or ('onnx' if like else 'tflite')}"
    if (ending if output is None else output.suffix) == ".onnx":
        _refuse_onnx(model)
    output = options.place(model, output, ending, overwrite, allowed=(".tflite", ".onnx"))
    if like is not None:
        _check_like(model, output, like, quantize)
    source = onnx_models.open_as_keras(model, trust, custom_objects, seed)
    data = options.calibration_for(source, calibration, samples, seed, prepared)
    inputs = None if data is None else data.inputs
    if like is not None:
        return _export_like(source, output, like, inputs, seed, overwrite)
    imported = source.imported
    artifact = run(
        source.model,
        output,
        format=file_format,
        quantize=quantize,
        calibration=inputs,
        overwrite=overwrite,
        source_sha256=source.sha256,
        input_names=() if imported is None else imported.input_names,
        output_names=() if imported is None else imported.output_names,
        seed=seed,
        progress=terminal.progress,
    )
    notes = () if imported is None else onnx_models.layout_notes(imported)
    return msgspec.structs.replace(artifact, notes=(*notes, *artifact.notes))


def _refuse_onnx(model: Path) -> None:
    """Refuse to make an ONNX file of an ONNX file."""
    from dsconvert.converter.core.errors import InputError

    if options.kind_of(model) == "onnx":
        raise InputError(
            f"{model} is an ONNX file already.",
            "Use it as it is: evaluate and profile run it, rewrite changes it. For TFLite: "
            f"-o {model.with_suffix('.tflite').name}",
        )


def _check_like(model: Path, output: Path, like: Path, quantize: str) -> None:
    """Refuse before any work what --like cannot do."""
    from dsconvert.converter.core.errors import InputError

    if output.suffix != ".onnx":
        raise InputError(
            f"--like writes the graph of an .onnx file, and the output is {output}.",
            f"Try: -o {output.with_suffix('.onnx')}",
        )
    if quantize != "none":
        raise InputError(
            f"--like keeps the graph of {like}, so --quantize {quantize} cannot be done.",
            "Leave --quantize out.",
        )
    if options.kind_of(like) != "onnx":
        raise InputError(
            f"--like {like} is no .onnx file.", "Give the file that MODEL was imported from."
        )
    if output.exists() and like.exists() and output.samefile(like):
        raise InputError(f"{output} is the file of --like itself.", "Name another file with -o.")


def _export_like(
    source: options.Opened,
    output: Path,
    like: Path,
    data: Sequence[Array] | None,
    seed: int,
    overwrite: bool,
) -> Artifact:
    """The graph of an .onnx file with the weights of the Keras model that was imported from it."""
    original = onnx_models.draw(options.open_model(like, False, None), seed)
    return onnx_models.write_onnx(
        original,
        source.model,
        output,
        data=data,
        seed=seed,
        overwrite=overwrite,
        source_sha256=source.sha256,
        notes=(f"graph, names and layout are those of {like}",),
    )
