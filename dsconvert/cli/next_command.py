"""The command that comes after the one that has just ended."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.workflows.dequantized import stands_for_floats
from dsconvert.workflows.model_files import kind_of

from . import options

if TYPE_CHECKING:
    from dsconvert.converter.core.types import Reason
    from dsconvert.workflows.report import WrittenReport
    from dsconvert.workflows.results.evaluated import EvaluatedModel
    from dsconvert.workflows.results.exported import ExportedFile
    from dsconvert.workflows.results.imported import ImportedModel
    from dsconvert.workflows.results.inspected import InspectedModel
    from dsconvert.workflows.results.listed import CheckedSetup, DeviceList
    from dsconvert.workflows.results.measured import ComparedRuns, MeasuredFile
    from dsconvert.workflows.results.planned import PlanResult, SweepResult
    from dsconvert.workflows.results.reference import ZooFile, ZooList
    from dsconvert.workflows.results.rewritten import RewriteResult
    from dsconvert.workflows.results.shown import Results
    from dsconvert.workflows.results.tuned import TunedModel
    from dsconvert.workflows.results.verified import Verification


_TARGET = {"device": "host", "runtime": "", "precision": "", "threads": "1"}
"""What a plan is for, with the defaults."""
_HALF = 0.5


def after_inspect(result: InspectedModel) -> Iterator[str]:
    """Yield how to do all in one, or how to quantize where a rewrite does not pay."""
    model, data = _given("model"), _given("calibration") or "DATA"
    if not result.convolutions:
        return
    if _only_quantized(row.reason for row in result.convolutions):
        yield _as_float()
    elif not result.potential.pays:
        yield _next("export", model, *_dequantized(model), *_sizes(), *_int8(data))
    else:
        read = (*_dequantized(model), *_sizes())
        yield _next("optimize", model, "--data", data, *read, *_preprocessing())


def after_rewrite(result: RewriteResult) -> Iterator[str]:
    """Yield how to fine-tune what needs that, or how to export what does not."""
    from dsconvert.workflows.formatting import GOOD

    if result.report.untrained:
        return  # the result says that itself
    if _only_quantized(row.reason for row in result.report.layers):
        yield _as_float()
        return
    errors = [row.data_error for row in result.report.layers if row.pairs is not None]
    data = _given("calibration") or "DATA"
    if all(error is not None and error <= GOOD for error in errors):
        made = () if _dequantized() else _dequantized(result.output)
        yield _next("export", result.output, *made, *_int8(data))
    else:
        teacher = ("--teacher", result.model, "--data", data, *_dequantized(result.model))
        yield _next("finetune", result.output, *teacher, *_preprocessing())


def after_finetune(result: TunedModel) -> Iterator[str]:
    """Yield how to export what was trained for int8, or how to compare it with its teacher."""
    record = result.record
    if record.settings.quantize == "int8":  # what was trained, and nothing that changes it
        as_trained = ("--calibration-method", "minmax", "--equalize", "off", "--no-bias-correction")
        yield _next("export", record.output, *_int8(_given("data")), *as_trained)
        return
    words = ("--data", _given("data"), "--reference", record.teacher)
    yield _next("evaluate", record.output, *words, *_dequantized(), *_preprocessing())


def after_export(result: ExportedFile) -> Iterator[str]:
    """Yield how to measure the file, on what it was made for."""
    device = _given("compile_for") or ("mcu" if result.c_array else "")
    yield _next("profile", str(result.path), *(("--device", device) if device else ()))


def after_verify(result: Verification) -> Iterator[str]:
    """Yield how to measure files that passed, or how to find the layers of one that did not."""
    if not result.passed:
        if not result.reference.endswith(".tflite"):
            words = ("--quantize", "int8", "--calibration", "DATA", "--report", "--overwrite")
            yield _next("export", result.reference, *_dequantized(), *words)
        return
    # A reference that was read as float may be none that a runtime loads.
    both = (*(() if _dequantized() else (result.reference,)), result.model)
    files = [file for file in both if file.endswith((".tflite", ".onnx"))]
    if files:
        yield _next("profile", *files)


def after_plan(result: PlanResult) -> Iterator[str]:
    """Yield how to rewrite by the plan."""
    refine = ("--refine", _given("refine")) if _given("refine") else ()
    words = ("--plan", result.output, "--calibration", result.calibration, *refine)
    done = options.preprocessing_words(result.preprocessing)
    yield _next("rewrite", result.model, *words, *_reading(), *done)


def after_sweep(result: SweepResult) -> Iterator[str]:
    """Yield how to plan for one of the budgets."""
    timed = result.unit not in ("", "MACs")
    amounts = [point.totals.cost if timed else point.totals.macs for point in result.points]
    words = ("--target-latency" if timed else "--target-macs", _reachable(amounts))
    target = [word for name in _TARGET for word in _asked(name)]
    data = ("--calibration", _given("calibration") or "DATA")
    yield _next("plan", result.model, *data, *target, *words, *_reading(), *_preprocessing())


def _reachable(amounts: Sequence[float | None]) -> str:
    """Return half of the first amount, or more where the last is more: what the middle one has."""
    shares = [amount / (amounts[0] or 1) for amount in amounts if amount is not None]
    if not shares or shares[-1] <= _HALF:
        return f"{_HALF}x"
    return f"{math.ceil(100 * shares[len(shares) // 2]) / 100}x"


def _asked(name: str) -> tuple[str, ...]:
    """Return an option that was not left at its default, with its value."""
    given = _given(name)
    return (f"--{name}", given) if given not in ("", _TARGET[name]) else ()


def after_import(result: ImportedModel) -> Iterator[str]:
    """Yield how to see what can be rewritten."""
    yield _next("inspect", result.record.output)


def after_evaluate(result: Results[EvaluatedModel]) -> Iterator[str]:
    """Yield how to measure the times of files, or how to make files that devices run."""
    files = [str(file) for file in click.get_current_context().params["files"]]
    runnable = [file for file in files if file.endswith((".tflite", ".onnx"))]
    if runnable:
        yield _next("profile", *runnable)
    else:
        new = [file for file in files if file != _given("reference")]
        yield _next("export", (new or files)[-1], *_int8("DATA"))


def after_profile(result: Results[MeasuredFile]) -> Iterator[str]:
    """Yield how to measure what the files are worth."""
    if not result.passed:
        yield "next: dsconvert verify MODEL FILE, for a file that failed"
        return
    files = [str(file) for file in click.get_current_context().params["files"]]
    data = ("--data", _given("data") or "DATA", *_preprocessing())
    yield _next("evaluate", *dict.fromkeys(files), *data)


def after_compare(result: ComparedRuns) -> Iterator[str]:
    """Yield how to measure both again, in one run, which tells small differences better."""
    pair = result.pairs[0] if result.pairs else None
    if pair is not None and not pair.same_file:
        yield _next("profile", pair.first, pair.second)
    else:
        yield "next: dsconvert profile FILE… --json > RUN.json, for another run to compare"


def after_zoo(result: ZooList | ZooFile) -> Iterator[str]:
    """Yield how to write a network, or what is worth knowing of one."""
    output = getattr(result, "output", None)
    if output is None:
        yield "next: dsconvert zoo NAME -o NAME.keras"
        return
    yield "next: train it in Keras; then:"
    yield f"      {shlex.join(['dsconvert', 'inspect', output])}"


def after_report(result: WrittenReport) -> Iterator[str]:
    """Yield how to look at the page."""
    yield f"next: open {shlex.quote(result.output)} in a browser"


def after_devices(result: DeviceList) -> Iterator[str]:
    """Yield how to measure on one of them."""
    found = [one.name for one in result.devices if one.info is not None and one.name != "host"]
    device = found[0] if found else "host"
    yield f"next: dsconvert profile FILE --device {shlex.quote(device)}"


def after_doctor(result: CheckedSetup) -> Iterator[str]:
    """Yield where to begin, or to look again after something was installed."""
    yield "next: dsconvert inspect MODEL" if result.passed else "next: dsconvert doctor"


def _next(*words: str) -> str:
    return f"next: {shlex.join(['dsconvert', *words])}"


def _int8(data: str) -> tuple[str, ...]:
    return ("--quantize", "int8", "--calibration", data, *_preprocessing())


def _reading() -> tuple[str, ...]:
    """Return how the model was read, for a command that reads it again."""
    return (*_dequantized(), *_sizes())


def _dequantized(model: str = "") -> tuple[str, ...]:
    """Return the option that was given, or that the next command needs for a model."""
    given = click.get_current_context().params.get("dequantize")
    return ("--dequantize",) if given or (model and stands_for_floats(Path(model))) else ()


def _only_quantized(reasons: Iterable[Reason | None]) -> bool:
    """Tell whether an .onnx file's convolutions stay as they are because they are quantized."""
    found = {reason and reason.code for reason in reasons}
    return kind_of(Path(_given("model"))) == "onnx" and found == {"quantized"}


def _as_float() -> str:
    """Return how to look at the float form of a quantized .onnx file."""
    data = _given("calibration")
    calibration = ("--calibration", data) if data else ()
    words = (*calibration, "--dequantize", *_sizes(), *_preprocessing())
    return _next("inspect", _given("model"), *words)


def _sizes() -> tuple[str, ...]:
    sizes = click.get_current_context().params.get("input_size") or ()
    return tuple(word for size in sizes for word in ("--input-size", size))


def _given(name: str) -> str:
    """Return what the user gave for an option; empty for nothing."""
    found: Any = click.get_current_context().params.get(name)
    return "" if found is None else str(found)


def _preprocessing() -> tuple[str, ...]:
    found: dict[str, Any] = click.get_current_context().params
    scale, mean, std = (found.get(name) for name in ("scale", "mean", "std"))
    done = options.as_preprocessing(scale, mean, std, bool(found.get("channels_first")))
    return () if done is None else options.preprocessing_words(done)
