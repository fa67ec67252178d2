from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import next_command, options, quantization_options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.exported import ExportedFile


@click.command(epilog=terms.explained("SQNR", "agreement", "KL", "per-channel", "QDQ"))
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
    type=click.Choice(["none", "float16", "dynamic", "int8", "int8-float-io", "int16x8"]),
    default="none",
    show_default=True,
    help="How weights and activations are stored: see above.",
)
@click.option(
    "--calibration",
    metavar="DATA",
    help="Images for the ranges of int8 and int16x8 activations. Of an .npz file x_train; the file "
    "is then verified on x_test, if there is one.",
)
@options.calibration_samples(500)
@click.option(
    "--calibration-method",
    type=click.Choice(["auto", "minmax", "entropy", "percentile", "mse"]),
    default="auto",
    show_default=True,
    help="How int8 activations get their ranges; auto: minmax or mse, as is better. Entropy and "
    "percentile are for .onnx files.",
)
@click.option(
    "--allow-random",
    is_flag=True,
    help="Calibrate on random numbers where there are no images; the file says so.",
)
@click.option(
    "--verification",
    metavar="DATA",
    help="Images to verify on; by default x_test of the calibration's .npz, else some of the "
    "calibration's.",
)
@click.option(
    "--no-verify",
    is_flag=True,
    help="Do not compare the outputs, nor try what makes int8 better; the file says so.",
)
@click.option(
    "--allow-flex",
    "--select-tf",
    "allow_flex",
    is_flag=True,
    help="Let TFLite keep TensorFlow's own operations, for runtimes with the Flex delegate.",
)
@click.option(
    "--keep-io/--no-keep-io",
    default=True,
    show_default=True,
    help="Whether a float16 .onnx file takes and gives float32.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="TXT",
    help="The names of the classes, one per line, to keep in the file.",
)
@click.option(
    "--like",
    type=options.MODEL,
    metavar="ONNX",
    help="The .onnx file that MODEL was imported from: write its graph with MODEL's weights.",
)
@click.option(
    "--c-array",
    type=click.Path(path_type=Path),
    metavar="HEADER",
    help="Also write the .tflite file as a C array, with its operators, arena size and scales.",
)
@click.option(
    "--compile",
    "compile_for",
    metavar="NPU",
    help="Also compile the verified int8 .tflite file by Vela: ethos-u55-128, …",
)
@quantization_options.choices
@options.dequantize
@options.overwrite
@options.input_size
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(next_command.after_export)
def export(
    model: Path,
    output: Path | None,
    file_format: Any,
    no_verify: bool,
    calibration: str | None,
    verification: str | None,
    labels: Path | None,
    like: Path | None,
    min_sqnr: float | None,
    dequantize: bool,
    overwrite: bool,
    trust: bool,
    custom_objects: str | None,
    input_size: tuple[str, ...],
    scale: str | None,
    mean: str | None,
    std: str | None,
    channels_first: bool,
    **how: Any,
) -> ExportedFile:
    """Convert MODEL to a .tflite or .onnx file, and verify it.

    The new file's outputs are compared with those of MODEL before it takes its place.

    \b
      dsconvert export model.keras
      dsconvert export model.keras --quantize int8 --calibration images.npz
      dsconvert export model.onnx --quantize float16 -o half.onnx

    \b
    .tflite  none, float16, dynamic, int8, int8-float-io (float32 ends), int16x8
    .onnx    none, float16, dynamic, int8 (float32 in and out)

    A file that does not pass is kept as NAME.rejected.tflite or .onnx, with its report
    NAME.rejected.json; the exit code is 1. An .onnx file becomes a smaller .onnx file without
    TensorFlow.
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.workflows.export import default_output
    from dsconvert.workflows.export import export as run
    from dsconvert.workflows.export_options import ExportOptions

    chosen = ExportOptions(
        format=file_format, labels=labels or (), verify=not no_verify, min_sqnr_db=min_sqnr, **how
    )
    of_model = dequantize and like is None  # else it is of the file that MODEL was imported from
    given = options.opened_with(model, trust, custom_objects, of_model, input_size=input_size)
    return run(
        given,
        output or default_output(given, chosen, like=like is not None),
        chosen,
        calibration=calibration,
        verification=verification,
        like=None if like is None else options.opened_with(like, trust, None, dequantize),
        preprocessing=options.as_preprocessing(scale, mean, std, channels_first),
        overwrite=overwrite,
        progress=terminal.progress,
    )
