"""Convert a model to a file that devices run, and verify it before it takes its place."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsconvert.base.arguments import as_path, of_kind
from dsconvert.base.messages import note
from dsconvert.base.progress import as_progress

from . import onnx_round_trip
from .class_folders import names_for
from .data_for import as_data, check_sources, data_for
from .dequantized import FLOAT_FORM
from .export_options import ExportOptions, as_improvement, check, class_names
from .finite_weights import check_weights
from .firmware import firmware_places, write_firmware
from .model_files import ModelFile, ModelPath, kind_of_source, open_model, path_of
from .onnx_round_trip import ConvertedModel
from .outputs import place
from .predictors import is_changed, runtime_of
from .stored_preprocessing import known, settled

if TYPE_CHECKING:
    import onnx

    from dsconvert.base.predictor import Array
    from dsconvert.base.progress import Progress
    from dsconvert.deploy.exporting.records import Artifact
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.data.preprocess import Preprocessing

    from .data_for import DataSource
    from .model_files import Model, ModelSource
    from .results.exported import ExportedFile

_SELECTING = frozenset({"NonMaxSuppression", "TopK"})
_VERIFIED = 100
"""Images that a file is verified on where there are others than the calibration's."""


def export(
    model: ModelSource,
    output: str | Path,
    options: ExportOptions | None = None,
    *,
    calibration: DataSource | None = None,
    verification: DataSource | None = None,
    like: str | Path | ModelPath | None = None,
    preprocessing: Preprocessing | None = None,
    overwrite: bool = False,
    progress: Progress | bool = False,
) -> ExportedFile:
    """Convert a model to .tflite or .onnx, compare the file's outputs, and put it in its place.

    A file that does not pass is kept as NAME.rejected.tflite or .onnx, with its report
    NAME.rejected.json. An .onnx file becomes a smaller .onnx file without TensorFlow.

    Args:
        model: A path, a `keras.Model`, an `onnx.ModelProto`, or what `load` returns.
        output: The .tflite or .onnx file.
        options: How weights and activations are stored.
        calibration: Images for the ranges of int8 activations: a file, a folder, arrays
            (n, ...) or `Data`.
        verification: Images to compare the outputs on; by default x_test of the calibration's
            .npz file, else some of the calibration's, else random inputs.
        like: The .onnx file that a Keras model was imported from: write that graph with the
            model's weights.
        preprocessing: What is done to images that are loaded from a file.
        overwrite: Whether the output may exist.
        progress: True for a bar on stderr.

    Returns:
        The file with its size, its hash and how close each output is.

    Raises:
        InputError: If the model cannot be converted so, or the data do not fit it.
        GateFailed: If the file's outputs are not the model's.
        MissingExtra: If a package that the format needs is not installed.

    Example:
        >>> import dsconvert as ds
        >>> int8 = ds.ExportOptions(quantize="int8")
        >>> exported = ds.export("model.keras", "int8.tflite", int8, calibration="digits.npz")
        >>> exported.quantization, exported.fidelity[0].sqnr_db > 15
        ('int8', True)
    """
    from dsconvert.deploy.exporting.export import export as run

    from .results.exported import ExportedFile
    from .results.shown import shown

    options = of_kind(options, ExportOptions, "options") or ExportOptions()
    path = as_path(output, "output")
    told = as_progress(progress)
    measurable = calibration is not None and options.verify
    file_format = options.format or path.suffix.lower().removeprefix(".")
    check(options, measurable=measurable, file_format=file_format)
    names = class_names(options.labels)
    native = path.suffix == ".onnx" and kind_of_source(model) == "onnx"
    if native:
        refuse_the_same(model, options.quantize)
    path = place(model, path, overwrite=overwrite, allowed=(".tflite", ".onnx"))
    places = firmware_places(path, options, overwrite=overwrite)
    if like is not None:
        _check_like(path, like, options, verification)
    check_sources(calibration, verification, options.test_data)
    images = verification if calibration is None else calibration

    def some(opened: ModelFile) -> Sequence[Array]:
        assert images is not None
        data = data_for(
            opened,
            images,
            warn=False,
            split="test" if calibration is None else "train",
            samples=onnx_round_trip.SAMPLES,
            seed=options.seed,
            preprocessing=settled(preprocessing, [model], calibration, verification),
        )
        return data.inputs

    source = (
        ConvertedModel.unconverted(open_model(model))
        if native
        else onnx_round_trip.open_as_keras(
            model, options.seed, told, inputs=None if images is None else some
        )
    )
    if native and not _is_folder(model):
        refuse_the_same(source, options.quantize)  # nothing in it may have been quantized
    check_weights(source)
    preprocessing = settled(preprocessing, [model], calibration, verification)
    data, found = _calibration(source, calibration, options, preprocessing)
    inputs = None if data is None else data.inputs
    if like is not None:
        written = _export_like(source, path, like, inputs, options.seed, overwrite, told)
        return shown(ExportedFile, written)
    compared = _verification(source, calibration, verification, options.seed, preprocessing)
    imported = source.imported
    layout = () if imported is None else onnx_round_trip.layout_notes(imported)
    if source.dequantized:
        found = [*found, f"made from {FLOAT_FORM}"]
    choosing = _selections(source.model if native else getattr(imported, "source", None), options)
    with _native_file(source, native) as given:
        artifact = run(
            given,
            path,
            format=options.format,
            quantize=options.quantize,
            calibration=inputs,
            verification=None if compared is None else compared.inputs,
            overwrite=overwrite,
            source_sha256=source.sha256,
            input_names=() if imported is None else imported.input_names,
            output_names=() if imported is None else imported.output_names,
            calibration_source="" if data is None else Path(data.source).name,
            calibration_method=options.calibration_method,
            allow_random=options.allow_random,
            allow_flex=options.allow_flex,
            keep_io=options.keep_io,
            labels=names or names_for(source, calibration),
            improvement=(
                as_improvement(options, source, preprocessing, told) if measurable else None
            ),
            preprocessing=_done(preprocessing, data or compared),
            notes=(*layout, *found, *choosing),
            gate=options.verify,
            beside=partial(write_firmware, places=places, options=options),
            seed=options.seed,
            progress=told,
        )
    return shown(ExportedFile, artifact)


def _selections(graph: onnx.ModelProto | None, options: ExportOptions) -> tuple[str, ...]:
    """Tell that a quantized ONNX model selects by scores that may change places."""
    if graph is None or options.quantize == "none":
        return ()
    kinds = sorted({node.op_type for node in graph.graph.node} & _SELECTING)
    if not kinds:
        return ()
    return (
        f"{' and '.join(kinds)} select by scores: of two that are nearly equal {options.quantize} "
        "may select the other one, and what is gathered there is another box",
    )


def default_output(given: ModelPath, options: ExportOptions, *, like: bool) -> Path:
    """Name the file beside a model that is written if none is named.

    Raises:
        InputError: If that is the model itself.
    """
    model, ending = given.path, f".{options.format or ('onnx' if like else 'tflite')}"
    made = "float32" if options.quantize == "none" else options.quantize
    if ending == ".onnx" and kind_of_source(model) == "onnx":
        from dsconvert.base.errors import InputError

        refuse_the_same(given, options.quantize)
        if model.is_dir():
            return model.with_name(model.name + ending)
        raise InputError(
            f"{model} is an ONNX file already: name the smaller one.",
            f"Try: -o {model.stem}-{made}.onnx",
            code="needs-output",
        )
    return model.with_name(model.stem + ending)


def refuse_the_same(model: ModelSource, quantize: str) -> None:
    """Refuse to make the same ONNX file of an ONNX file.

    Raises:
        InputError: If nothing is quantized, dequantized or fixed in size.
    """
    from dsconvert.base.errors import InputError

    path = path_of(model) or Path("model.onnx")
    if quantize == "none" and not _is_folder(model) and not is_changed(model):
        raise InputError(
            f"{path} is an ONNX file already.",
            "Use it as it is: evaluate and profile run it, rewrite changes it, --quantize makes it "
            f"smaller. For TFLite: -o {path.with_suffix('.tflite').name}",
            code="onnx-already",
        )


def _is_folder(model: ModelSource) -> bool:
    """Tell whether a model is a SavedModel, which may be read as ONNX, and is no file."""
    path = path_of(model)
    return path is not None and path.is_dir()


@contextmanager
def _native_file(source: ConvertedModel, native: bool) -> Iterator[Model | Path]:
    """Return what is converted: a Keras model, or a file of an ONNX model."""
    if not native:
        yield source.model
        return
    with runtime_of(source) as runtime:
        yield runtime.path


def _calibration(
    source: ModelFile,
    calibration: DataSource | None,
    options: ExportOptions,
    preprocessing: Preprocessing | None,
) -> tuple[Data | None, list[str]]:
    """The calibration images, if there are any, and what looks wrong with them, which is told."""
    from dsconvert.models.evaluation.plausibility import suspicions

    if calibration is None:
        return None, []
    data = data_for(
        source,
        calibration,
        split="train",
        warn=False,
        samples=options.samples,
        seed=options.seed,
        preprocessing=preprocessing,
    )
    found = suspicions(data, source.model, source.folder)
    for text in found:
        note(text)
    return data, found


def _verification(
    source: ModelFile,
    calibration: DataSource | None,
    verification: DataSource | None,
    seed: int,
    preprocessing: Preprocessing | None,
) -> Data | None:
    """Give the images to verify on, other than those of the calibration; None if there are none."""
    from dsconvert.models.data.checks import check_against

    chosen = verification
    if chosen is None and isinstance(calibration, str | Path) and _has_both(Path(calibration)):
        chosen = calibration
    if chosen is None:
        return None
    data = as_data(
        chosen,
        split="test",
        samples=_VERIFIED,
        seed=seed,
        preprocessing=preprocessing,
        input_names=source.input_names,
        input_shapes=source.input_shapes,
    )
    check_against(source.input_shapes, data)
    return data


def _has_both(calibration: Path) -> bool:
    """Tell whether a data source is an .npz file with x_train and x_test."""
    if calibration.suffix != ".npz":
        return False
    with zipfile.ZipFile(calibration) as archive:
        return {"x_train.npy", "x_test.npy"} <= set(archive.namelist())


def _done(preprocessing: Preprocessing | None, data: Data | None) -> dict[str, Any] | None:
    """Return what was done to stored images, as the file keeps it; None if nobody said."""
    import msgspec

    found = preprocessing if data is None else known(data)
    if found is None or (data is None and found.does_nothing):
        return None
    done: dict[str, Any] = msgspec.to_builtins(found)
    return done


def _check_like(
    output: Path,
    source: str | Path | ModelPath,
    options: ExportOptions,
    verification: DataSource | None,
) -> None:
    """Refuse before any work what --like cannot do."""
    from dsconvert.base.errors import InputError

    like = source.path if isinstance(source, ModelPath) else Path(source)
    if output.suffix != ".onnx":
        raise InputError(
            f"--like writes the graph of an .onnx file, and the output is {output}.",
            f"Try: -o {output.with_suffix('.onnx')}",
            code="wrong-suffix",
        )
    if options.quantize != "none":
        raise InputError(
            f"--like writes the graph of {like} in float32, and --quantize is {options.quantize}.",
            f"Take two steps: export without --quantize, then dsconvert export {output} "
            f"--quantize {options.quantize} -o {output.stem}-{options.quantize}.onnx",
            code="like-is-float32",
        )
    if kind_of_source(like) != "onnx":
        raise InputError(
            f"--like {like} is no .onnx file.",
            "Give the file that MODEL was imported from.",
            code="like-is-not-onnx",
        )
    if output.exists() and like.exists() and output.samefile(like):
        raise InputError(
            f"{output} is the file of --like itself.",
            "Name another file with -o.",
            code="same-file",
        )
    for option, given in {
        "--no-verify": not options.verify,
        "--labels": bool(options.labels),
        "--verification": verification is not None,
    }.items():
        if given:
            raise InputError(
                f"--like does not go with {option}.", f"Leave {option} out.", code="not-with-like"
            )


def _export_like(
    source: ModelFile,
    output: Path,
    like: ModelSource,
    data: Sequence[Array] | None,
    seed: int,
    overwrite: bool,
    progress: Progress,
) -> Artifact:
    """The graph of an .onnx file with the weights of the Keras model that was imported from it."""
    original = onnx_round_trip.convert(open_model(like), seed, progress=progress)
    return onnx_round_trip.write_onnx(
        original,
        source.model,
        output,
        data=data,
        seed=seed,
        overwrite=overwrite,
        source_sha256=source.sha256,
        notes=(f"graph, names and layout are those of {original.told}",),
    )
