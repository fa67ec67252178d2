from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import figures, options, terminal

if TYPE_CHECKING:
    from dsconvert.deploy import Artifact
    from rich.console import Console


def show(console: Console, result: Artifact) -> None:
    """The file, its fidelity and what to know of it."""
    quantized = "float32" if result.quantization == "none" else result.quantization
    console.print(f"{result.path}: {result.format} {quantized}, {figures.kib(result.size_bytes)}")
    console.print(f"SHA-256 {result.sha256}")
    for output in result.fidelity:
        parts = [f"relative error {output.relative_error:.2g}"] if output.relative_error else []
        if output.sqnr_db is not None:
            parts.append(f"SQNR {output.sqnr_db:.1f} dB")
        if output.top1_agreement is not None:
            parts.append(f"top-1 agreement {figures.percent(output.top1_agreement)}")
        told = ", ".join(parts) or "equal"
        console.print(f"{output.name}: {told} on {result.samples} samples ({result.verified_on})")
    for note in result.notes:
        console.print(f"note: {note}")


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
    samples: int,
    overwrite: bool,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    **prepare: Any,
) -> Artifact:
    """Convert the Keras MODEL to TFLite or ONNX, and verify the file before it takes its place."""
    from dsconvert.deploy import export as run

    prepared = options.as_preprocessing(**prepare)
    ending = f".{file_format or 'tflite'}"
    output = options.place(model, output, ending, overwrite, allowed=(".tflite", ".onnx"))
    loaded = options.open_model(model, trust, custom_objects)
    data = options.calibration_for(loaded, calibration, samples, seed, prepared)
    return run(
        loaded.model,
        output,
        format=file_format,
        quantize=quantize,
        calibration=None if data is None else data.inputs,
        overwrite=overwrite,
        source_sha256=loaded.sha256,
        seed=seed,
        progress=terminal.progress,
    )
