"""The time of blocks' forms on a board or phone: many small files in one visit."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from dsconvert.base.errors import InputError, MissingExtra
from dsconvert.base.progress import silent
from dsconvert.converter.core.planning.cost_model import Block, BlockCosts
from dsconvert.converter.core.types import Choice

from ..devices.board import BoardDevice
from ..devices.device import Case, Device, DeviceInfo, Job, Report, TimedFile
from ..runtimes.registry import open_runtime
from ..runtimes.runtime import first_line
from ..runtimes.samples import random_inputs
from ..verification.device_outputs import not_finite
from .block_variants import form_of
from .measuring import MAX_RUNS, RUNS, SECONDS, cannot, costs_of
from .onnx_block import onnx_block
from .target import Target
from .tflite_block import tflite_block

_WARM_UPS = 5


def usable(device: Device, target: Target) -> DeviceInfo:
    """What the device is, if it can measure for the target.

    Raises:
        InputError: If it cannot be reached, lacks the runtime, or is emulated.
    """
    info = device.describe()
    if info.emulated:
        raise InputError(
            f"{info.name} is emulated: its times are no costs to plan by.",
            "Name a real device, or plan for this machine: --device host.",
        )
    if _runtime_of(info, target) is None:
        raise InputError(
            f"{info.name} does not run {'.tflite' if target.runtime == 'litert' else '.onnx'} "
            f"files: it has {', '.join(info.runtimes) or 'no runtime'}.",
            f"Try: dsconvert profile FILE --device {info.name}, which says what to install there.",
        )
    return info


def described(info: DeviceInfo, target: Target) -> dict[str, str]:
    """What of a device its times depend on."""
    return {
        "version": _runtime_of(info, target) or "",
        "cpu": info.cpu,
        "architecture": info.architecture,
        "cores": str(info.cores),
        "system": info.system,
    }


def _runtime_of(info: DeviceInfo, target: Target) -> str | None:
    """The version of what runs the target's files there."""
    found = info.runtimes.get(target.runtime)
    if found is None and target.runtime == "litert":
        return info.runtimes.get("benchmark_model")
    return found


def measure_away(
    asked: Sequence[tuple[Block, Sequence[Choice]]],
    device: Device,
    target: Target,
    *,
    seconds: float = SECONDS,
) -> list[BlockCosts]:
    """Measure blocks and what may replace them: the forms of each take turns.

    On a board all of them are sent in one visit. Float blocks of ONNX Runtime are measured with
    the conversions of layout at their ends, if it makes any there: `onnx_inside` cuts them off the
    graph that it has optimized for this machine, which another one may not run.

    Args:
        asked: Blocks, each with what may replace it.
        device: Where.
        target: In which runtime and precision.
        seconds: Time for all forms of a block together, unless 30 invocations of each take longer.

    Returns:
        As `measure`, for each.

    Raises:
        InputError: If the device fails, or cannot run a convolution itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        jobs, forms = [], []
        for number, (block, choices) in enumerate(asked):
            cases = _cases(block, choices, target, Path(folder, str(number)))
            forms.append(cases)
            there = tuple(case for case in cases if case is not None)
            jobs.append(
                Job(
                    cases=there,
                    threads=target.threads,
                    runs=RUNS,
                    warmup=_WARM_UPS,
                    min_seconds=seconds / len(there),
                )
            )
        reports = _reports(device, jobs)
    return [
        _costs(block, choices, cases, report)
        for (block, choices), cases, report in zip(asked, forms, reports, strict=True)
    ]


def _cases(
    block: Block, choices: Sequence[Choice], target: Target, folder: Path
) -> list[Case | None]:
    """The forms of a block as files; None for one that cannot be written or loaded here."""
    folder.mkdir()
    cases: list[Case | None] = []
    for number, choice in enumerate([None, *choices]):
        try:
            cases.append(_case(block, choice, target, folder / str(number)))
        except MissingExtra:
            raise
        except Exception as error:  # the runtimes raise anything
            cannot(block, choice, first_line(error), error)
            cases.append(None)
    return cases


def _case(block: Block, choice: Choice | None, target: Target, path: Path) -> Case:
    form = form_of(block, choice)
    if target.runtime == "litert":
        path = path.with_suffix(".tflite")
        path.write_bytes(tflite_block(form, target.precision))
    else:
        path = path.with_suffix(".onnx")
        path.write_bytes(onnx_block(form, target.precision))
    runtime = open_runtime(path)
    return Case(
        path=path,
        runtime=target.runtime,
        inputs=tuple(random_inputs(runtime.inputs, 1, seed=0)),
        input_infos=runtime.inputs,
        output_infos=runtime.outputs,
    )


def _reports(device: Device, jobs: Sequence[Job]) -> list[Report]:
    if isinstance(device, BoardDevice):
        return device.measure_all(jobs, startup=False, max_runs=MAX_RUNS)
    return [device.measure(job, silent) for job in jobs]


def _costs(
    block: Block, choices: Sequence[Choice], cases: Sequence[Case | None], report: Report
) -> BlockCosts:
    """The costs of one block."""
    found = iter(report.files)
    samples: list[Sequence[float] | None] = []
    for choice, case in zip([None, *choices], cases, strict=True):
        timed = None if case is None else next(found)
        why = "" if timed is None else _failure(timed)
        if why:
            cannot(block, choice, why)
        samples.append(None if timed is None or why else timed.samples_ms)
    return costs_of(samples)


def _failure(timed: TimedFile) -> str:
    """Why a form has no time; empty if it has."""
    if timed.failure or not timed.samples_ms:
        return timed.failure or "the device gave no timings"
    return not_finite(timed.outputs) if timed.outputs is not None else ""
