"""The command that comes after the one that has just ended."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from . import options

if TYPE_CHECKING:
    from dsconvert.workflows.results.exported import ExportedFile
    from dsconvert.workflows.results.inspected import InspectedModel
    from dsconvert.workflows.results.rewritten import RewriteResult
    from dsconvert.workflows.results.tuned import TunedModel
    from dsconvert.workflows.results.verified import Verification


def after_inspect(result: InspectedModel) -> Iterator[str]:
    """Yield how to do all in one, or how to quantize where a rewrite does not pay."""
    model, data = _given("model"), _given("calibration") or "DATA"
    if not result.convolutions:
        return
    if result.potential.pays:
        yield _next("optimize", model, "--data", data, *_sizes(), *_preprocessing())
    else:
        yield _next("export", model, *_sizes(), *_int8(data))


def after_rewrite(result: RewriteResult) -> Iterator[str]:
    """Yield how to fine-tune what needs that, or how to export what does not."""
    from dsconvert.workflows.formatting import GOOD

    if result.report.untrained:
        return  # the result says that itself
    errors = [row.data_error for row in result.report.layers if row.pairs is not None]
    data = _given("calibration") or "DATA"
    if all(error is not None and error <= GOOD for error in errors):
        yield _next("export", result.output, *_int8(data))
    else:
        teacher = ("--teacher", result.model, "--data", data)
        yield _next("finetune", result.output, *teacher, *_preprocessing())


def after_finetune(result: TunedModel) -> Iterator[str]:
    """Yield how to export what was trained for int8, or how to compare it with its teacher."""
    record = result.record
    if record.settings.quantize == "int8":  # what was trained, and nothing that changes it
        as_trained = ("--equalize", "off", "--no-bias-correction")
        yield _next("export", record.output, *_int8(_given("data")), *as_trained)
        return
    words = ("--data", _given("data"), "--reference", record.teacher)
    yield _next("evaluate", record.output, *words, *_preprocessing())


def after_export(result: ExportedFile) -> Iterator[str]:
    """Yield how to measure the file."""
    yield _next("profile", str(result.path))


def after_verify(result: Verification) -> Iterator[str]:
    """Yield how to measure files that passed."""
    if not result.passed:
        return
    both = (result.reference, result.model)
    files = [file for file in both if file.endswith((".tflite", ".onnx"))]
    if files:
        yield _next("profile", *files)


def _next(*words: str) -> str:
    return f"next: {shlex.join(['dsconvert', *words])}"


def _int8(data: str) -> tuple[str, ...]:
    return ("--quantize", "int8", "--calibration", data, *_preprocessing())


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
