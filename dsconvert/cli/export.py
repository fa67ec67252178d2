from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dsconvert.base.messages import note
from dsconvert.workflows import data_for, model_files, onnx_round_trip

from . import formatting, options, quantization_options, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.base.predictor import Array
    from dsconvert.deploy.exporting.records import Artifact
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.data.preprocess import Preprocessing

_VERIFIED = 100
"""Images that a file is verified on where there are others than the calibration's."""


def show(console: Console, result: Artifact) -> None:
    """The file, its fidelity and what to know of it."""
    quantized = "float32" if result.quantization == "none" else result.quantization
    console.print(
        f"{result.path}: {result.format} {quantized}, {formatting.kib(result.size_bytes)}"
    )
    console.print(f"SHA-256 {result.sha256}")
    if result.calibration is not None:
        ranges = result.calibration
        console.print(f"calibrated on {ranges.samples} samples of {ranges.source}")
    for output in result.fidelity:
        show_fidelity(console, output, result.samples, result.verified_on)
    quantization_options.show_layers(console, result.layers)
    for remark in result.notes:
        console.print(f"note: {remark}")


def show_fidelity(console: Console, output: OutputFidelity, samples: int, what: str) -> None:
    """How close one output is, on what."""
    parts = [f"relative error {output.relative_error:.2g}"] if output.relative_error else []
    if output.sqnr_db is not None:
        parts.append(f"SQNR {output.sqnr_db:.1f} dB")
    if output.top1_agreement is not None:
        parts.append(f"top-1 agreement {formatting.percent(output.top1_agreement)}")
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
    type=click.Choice(["none", "float16", "dynamic", "int8", "int8-float-io", "int16x8"]),
    default="none",
    show_default=True,
)
@click.option(
    "--calibration",
    metavar="DATA",
    help="Images for the ranges of int8 and int16x8 activations. Of an .npz file x_train; the file "
    "is then verified on x_test, if there is one.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="How many images to calibrate on.",
)
@click.option(
    "--calibration-method",
    type=click.Choice(["auto", "minmax", "entropy", "percentile"]),
    default="auto",
    show_default=True,
    help="How int8 .onnx files get their ranges; auto: minmax or percentile, as is better.",
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
@click.option("--no-verify", is_flag=True, help="Do not compare the outputs; the file says so.")
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
@quantization_options.choices
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
    calibration_method: Any,
    allow_random: bool,
    verification: str | None,
    no_verify: bool,
    allow_flex: bool,
    keep_io: bool,
    labels: Path | None,
    like: Path | None,
    overwrite: bool,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    scale: str | None,
    mean: str | None,
    std: str | None,
    channels_first: bool,
    **refine: Any,
) -> Artifact:
    r"""Convert MODEL, Keras or ONNX, and verify the file before it takes its place.

    \b
    .tflite  none, float16, dynamic, int8, int8-float-io (float32 in and out), int16x8
    .onnx    none, float16, dynamic, int8 (float32 in and out)

    A file that does not pass is kept as NAME.rejected.tflite or .onnx, with its report
    NAME.rejected.json; the exit code is 1. An .onnx file becomes a smaller .onnx file without
    TensorFlow.
    """
    from dsconvert.deploy.exporting.export import export as run

    prepared = options.as_preprocessing(scale, mean, std, channels_first)
    measurable = calibration is not None and not no_verify
    quantization_options.check(quantize, measurable, **refine)
    names = () if labels is None else _read_labels(labels)
    ending = f".{file_format or ('onnx' if like else 'tflite')}"
    native = (ending if output is None else output.suffix) == ".onnx"
    native = native and model_files.kind_of(model) == "onnx"
    if native:
        _refuse_onnx(model, quantize, output)
    output = options.place(model, output, ending, overwrite, allowed=(".tflite", ".onnx"))
    if like is not None:
        _check_like(model, output, like, quantize)
        _check_like_options(
            {
                "--no-verify": no_verify,
                "--labels": labels is not None,
                "--verification": verification is not None,
            }
        )
    source = (
        onnx_round_trip.ConvertedModel(**vars(model_files.open_model(model, trust, custom_objects)))
        if native
        else onnx_round_trip.open_as_keras(
            model, trust, custom_objects, seed, progress=terminal.progress
        )
    )
    data, found = _calibration(source, calibration, samples, seed, prepared)
    inputs = None if data is None else data.inputs
    if like is not None:
        return _export_like(source, output, like, inputs, seed, overwrite)
    compared = _verification(source, calibration, verification, seed, prepared)
    imported = source.imported
    layout = () if imported is None else onnx_round_trip.layout_notes(imported)
    return run(
        source.path if native else source.model,
        output,
        format=file_format,
        quantize=quantize,
        calibration=inputs,
        verification=None if compared is None else compared.inputs,
        overwrite=overwrite,
        source_sha256=source.sha256,
        input_names=() if imported is None else imported.input_names,
        output_names=() if imported is None else imported.output_names,
        calibration_source="" if calibration is None else Path(calibration).name,
        calibration_method=calibration_method,
        allow_random=allow_random,
        allow_flex=allow_flex,
        keep_io=keep_io,
        labels=names,
        refinement=quantization_options.as_refinement(
            source, seed=seed, prepared=prepared, **refine
        )
        if measurable
        else None,
        preprocessing=_told(prepared, data),
        notes=(*layout, *found),
        gate=not no_verify,
        seed=seed,
        progress=terminal.progress,
    )


def _calibration(
    source: model_files.ModelFile,
    calibration: str | None,
    samples: int,
    seed: int,
    prepared: Preprocessing,
) -> tuple[Data | None, list[str]]:
    """The calibration images, if there are any, and what looks wrong with them, which is told."""
    from dsconvert.models.evaluation.plausibility import suspicions

    if calibration is None:
        return None, []
    data = data_for.data_for(
        source,
        calibration,
        split="train",
        warn=False,
        samples=samples,
        seed=seed,
        preprocessing=prepared,
    )
    found = suspicions(data, source.model, source.folder)
    for text in found:
        note(text)
    return data, found


def _verification(
    source: model_files.ModelFile,
    calibration: str | None,
    verification: str | None,
    seed: int,
    prepared: Preprocessing,
) -> Data | None:
    """The images to verify on, other than those of the calibration; None if there are none."""
    from dsconvert.models.data.checks import check_against
    from dsconvert.models.data.datasets import load_data

    if verification is None and not _has_both(calibration):
        return None
    data = load_data(
        verification or str(calibration),
        split="test",
        samples=_VERIFIED,
        seed=seed,
        preprocessing=prepared,
        input_names=source.input_names,
        input_shapes=source.input_shapes,
    )
    check_against(source.input_shapes, data)
    return data


def _has_both(calibration: str | None) -> bool:
    """Whether a data source is an .npz file with x_train and x_test."""
    if calibration is None or not calibration.endswith(".npz"):
        return False
    with zipfile.ZipFile(calibration) as archive:
        return {"x_train.npy", "x_test.npy"} <= set(archive.namelist())


def _told(prepared: Preprocessing, data: Data | None) -> dict[str, Any] | None:
    """What was done to stored images, as the file keeps it; None if nobody said."""
    from dsconvert.models.data.preprocess import Preprocessing

    if data is None and prepared == Preprocessing():
        return None
    told: dict[str, Any] = msgspec.to_builtins(prepared if data is None else data.preprocessing)
    return told


def _read_labels(path: Path) -> tuple[str, ...]:
    """The names of the classes, one per line.

    Raises:
        InputError: If the file cannot be read as text, or holds no names.
    """
    from dsconvert.base.errors import InputError

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the labels {path} cannot be read: {error}.", "Give a text file, one name per line."
        ) from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names or "" in names:
        where = f"line {names.index('') + 1} is empty" if names else "it holds no names"
        raise InputError(f"the labels {path}: {where}.", "Give one name per line.")
    return tuple(names)


def _refuse_onnx(model: Path, quantize: str, output: Path | None) -> None:
    """Refuse to make the same ONNX file of an ONNX file, or one in its place."""
    from dsconvert.base.errors import InputError

    if quantize == "none":
        raise InputError(
            f"{model} is an ONNX file already.",
            "Use it as it is: evaluate and profile run it, rewrite changes it, --quantize makes it "
            f"smaller. For TFLite: -o {model.with_suffix('.tflite').name}",
        )
    if output is None:
        raise InputError(
            f"{model} is an ONNX file already: name the smaller one.",
            f"Try: -o {model.stem}-{quantize}.onnx",
        )


def _check_like(model: Path, output: Path, like: Path, quantize: str) -> None:
    """Refuse before any work what --like cannot do."""
    from dsconvert.base.errors import InputError

    if output.suffix != ".onnx":
        raise InputError(
            f"--like writes the graph of an .onnx file, and the output is {output}.",
            f"Try: -o {output.with_suffix('.onnx')}",
        )
    if quantize != "none":
        raise InputError(
            f"--like writes the graph of {like} in float32, and --quantize is {quantize}.",
            f"Take two steps: export without --quantize, then "
            f"dsconvert export {output} --quantize {quantize} -o {output.stem}-{quantize}.onnx",
        )
    if model_files.kind_of(like) != "onnx":
        raise InputError(
            f"--like {like} is no .onnx file.", "Give the file that MODEL was imported from."
        )
    if output.exists() and like.exists() and output.samefile(like):
        raise InputError(f"{output} is the file of --like itself.", "Name another file with -o.")


def _check_like_options(given: dict[str, bool]) -> None:
    """Refuse the options that --like does not have."""
    from dsconvert.base.errors import InputError

    for option, is_given in given.items():
        if is_given:
            raise InputError(f"--like does not go with {option}.", f"Leave {option} out.")


def _export_like(
    source: model_files.ModelFile,
    output: Path,
    like: Path,
    data: Sequence[Array] | None,
    seed: int,
    overwrite: bool,
) -> Artifact:
    """The graph of an .onnx file with the weights of the Keras model that was imported from it."""
    original = onnx_round_trip.convert(
        model_files.open_model(like, False, None), seed, progress=terminal.progress
    )
    return onnx_round_trip.write_onnx(
        original,
        source.model,
        output,
        data=data,
        seed=seed,
        overwrite=overwrite,
        source_sha256=source.sha256,
        notes=(f"graph, names and layout are those of {like}",),
    )
