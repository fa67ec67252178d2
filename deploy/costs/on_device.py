"""The time of blocks' forms on this machine, a board or a phone: many small files in one visit."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsconvert.base.errors import InputError, MissingExtra
from dsconvert.base.predictor import Array
from dsconvert.converter.core.fitting.styles import block_style
from dsconvert.converter.core.planning.cost_model import Block, BlockCosts
from dsconvert.converter.core.types import Choice, Figure

from ..devices.benchmark_model import NAME as BENCHMARK_MODEL
from ..devices.benchmark_model import RUNTIME as BENCHMARKED
from ..devices.device import Case, Device, DeviceInfo, Job, Report, TimedFile
from ..profiling.latency import compare, summarize
from ..profiling.opened_files import inputs_for
from ..profiling.records import Latency
from ..runtimes.registry import ORT, find_runtime, reference_runtime
from ..runtimes.samples import random_inputs
from ..runtimes.session import first_line
from ..verification.device_outputs import not_finite
from .block_files import block_files
from .ort_block_core import inside
from .relative import REFERENCE, Measured
from .target import Target

logger = logging.getLogger(__name__)

SECONDS = 0.4
"""Time that the timing of one block takes, if the fewest runs take no longer."""
RUNS, MAX_RUNS = 30, 400
_WARM_UPS = 5
_NETWORK_RUNS, _NETWORK_SECONDS = 50, 2.0
"""Of a whole network and the reference block together."""


def usable(device: Device, target: Target) -> DeviceInfo:
    """Return what the device is, if it can measure for the target.

    Raises:
        InputError: If it cannot be reached, lacks the runtime, or is emulated.
    """
    info = device.describe()
    if info.emulated:
        raise InputError(
            f"{info.name} is emulated: its times are no costs to plan by.",
            "Name a real device, or plan for this machine: --device host.",
            code="device-emulated",
        )
    if _runtime_of(info, target) is None:
        raise InputError(
            f"{info.name} does not run {target.suffix} files in "
            f"{find_runtime(target.runtime).title}: "
            f"it has {', '.join(info.runtimes) or 'no runtime'}.",
            f"Try: dsconvert profile FILE --device {info.name}, which says what to install there.",
            code="runtime-not-on-device",
        )
    return info


def described(info: DeviceInfo, target: Target) -> dict[str, str]:
    """Return what of a device its times depend on."""
    return {
        "version": _runtime_of(info, target) or "",
        "cpu": info.cpu,
        "architecture": info.architecture,
        "cores": str(info.cores),
        "system": info.system,
    }


def _runtime_of(info: DeviceInfo, target: Target) -> str | None:
    """Return the version of what runs the target's files there."""
    found = info.runtimes.get(target.runtime)
    if found is None and target.runtime == BENCHMARKED:
        return info.runtimes.get(BENCHMARK_MODEL)
    return found


@dataclass(frozen=True)
class DeviceBench:
    """A device, a runtime and a precision to measure in: see `measured_costs.Bench`.

    On another machine, blocks of ONNX Runtime are measured with the conversions of layout at their
    ends: `inside` cuts them off the graph that it has optimized for this machine, which another one
    may not run.

    Attributes:
        device: Where.
        target: In which runtime and precision.
        seconds: Time for all forms of a block together, unless 30 invocations of each take longer.
    """

    device: Device
    target: Target
    seconds: float = SECONDS

    def measure(self, asked: Sequence[tuple[Block, Sequence[Choice]]]) -> list[Measured]:
        """Measure blocks in one visit; the forms of each, and the reference block, take turns.

        Args:
            asked: Blocks, each with what may replace it.

        Returns:
            Medians in milliseconds, for each block. A choice that the runtime cannot run gets None
            and a line in the log.

        Raises:
            InputError: If the device fails, or cannot run a convolution itself.
            MissingExtra: If the runtime, or what writes its files, is not installed.
        """
        with tempfile.TemporaryDirectory() as folder:
            reference = self._reference(Path(folder))
            jobs, forms = [], []
            for number, (block, choices) in enumerate(asked):
                cases = _cases(block, choices, self.target, Path(folder, str(number)))
                forms.append(cases)
                there = tuple(case for case in cases if case is not None)
                jobs.append(self._job((reference, *there), RUNS, self.seconds))
            reports = self._reports(jobs)
        return [
            Measured(
                costs=_costs(block, choices, cases, report.files[1:]),
                reference=_median(report.files[0], "the reference block"),
            )
            for (block, choices), cases, report in zip(asked, forms, reports, strict=True)
        ]

    def reference(self) -> float:
        """Measure the reference block alone, in milliseconds.

        Raises:
            InputError: If it does not run there.
        """
        with tempfile.TemporaryDirectory() as folder:
            job = self._job((self._reference(Path(folder)),), RUNS, self.seconds)
            (report,) = self._reports([job])
        return _median(report.files[0], "the reference block")

    def network(self, path: Path, inputs: Sequence[Array]) -> tuple[float, float]:
        """Measure a whole file and the reference block, in turns.

        Args:
            path: The file.
            inputs: One array per input, (n, ...): the first sample is run on.

        Returns:
            The medians of the two, in milliseconds.

        Raises:
            InputError: If the file does not run there.
        """
        session = reference_runtime(path, self.target.runtime).open(path, 1)
        arrays = inputs_for(session, inputs)
        case = Case(path, self.target.runtime, arrays, session.inputs, session.outputs)
        with tempfile.TemporaryDirectory() as folder:
            cases = (case, self._reference(Path(folder)))
            (report,) = self._reports([self._job(cases, _NETWORK_RUNS, _NETWORK_SECONDS)])
        whole, reference = report.files
        return _median(whole, path.name), _median(reference, "the reference block")

    def _job(self, cases: tuple[Case, ...], runs: int, seconds: float) -> Job:
        return Job(
            cases=cases,
            threads=self.target.threads,
            runs=runs,
            warmup=_WARM_UPS,
            min_seconds=seconds / len(cases),
        )

    def _reports(self, jobs: Sequence[Job]) -> list[Report]:
        return self.device.measure_all(jobs, startup=False, max_runs=MAX_RUNS)

    def _reference(self, folder: Path) -> Case:
        """Return the reference block as a file.

        Raises:
            InputError: If it cannot be written or loaded.
        """
        target = self.target
        try:
            (file,) = block_files(REFERENCE, [None], target.suffix, target.precision)
            return _case(file, target, folder / f"reference{target.suffix}")
        except MissingExtra:
            raise
        except Exception as error:  # the runtimes raise anything
            cannot(REFERENCE, None, first_line(error).replace(f"{folder}{os.sep}", ""), error)
            raise


def costs_of(samples: Sequence[Sequence[float] | None]) -> BlockCosts:
    """Return the costs of a block from the milliseconds of its forms, which took turns.

    Args:
        samples: Those of the convolution itself, then of each choice; None for one that failed.
    """
    first, *others = samples
    assert first is not None, "refused before"
    original = summarize(first, 1)
    return BlockCosts(
        original=Figure(value=original.p50_ms),
        choices=tuple(None if one is None else _figure(original, one) for one in others),
    )


def _figure(original: Latency, samples: Sequence[float]) -> Figure:
    latency = summarize(samples, 1)
    versus = compare("the convolution", original, latency, seed=0)
    return Figure(
        value=latency.p50_ms,
        ratio_low=versus.low,
        ratio_high=versus.high,
        faster=versus.verdict == "faster",
    )


def cannot(block: Block, choice: Choice | None, why: str, error: Exception | None = None) -> None:
    """Log that a choice has no cost.

    Raises:
        InputError: If it is the convolution itself that has none: there is nothing to compare with.
    """
    if choice is None:
        raise InputError(
            f"the {block.text} has no cost on the target: {why}", code="cost-not-measured"
        ) from error
    logger.warning(
        "%s as %s (%s) has no cost on the target: %s",
        block.text,
        block_style(choice.block).text(choice),
        choice.lowering,
        why,
    )


def _cases(
    block: Block, choices: Sequence[Choice], target: Target, folder: Path
) -> list[Case | None]:
    """Return the forms of a block as files; None for one that cannot be written or loaded here."""
    folder.mkdir()
    cases: list[Case | None] = []
    forms = [None, *choices]
    files = block_files(block, forms, target.suffix, target.precision)
    for number, (choice, file) in enumerate(zip(forms, files, strict=True)):
        try:
            cases.append(_case(file, target, folder / f"{number}{target.suffix}"))
        except MissingExtra:
            raise
        except Exception as error:  # the runtimes raise anything
            cannot(block, choice, first_line(error).replace(f"{folder}{os.sep}", ""), error)
            cases.append(None)
    return cases


def _case(file: bytes | Exception, target: Target, path: Path) -> Case:
    if isinstance(file, Exception):
        raise file
    own = target.runtime == ORT.name and target.on_host
    path.write_bytes(inside(file) if own else file)
    session = reference_runtime(path, target.runtime).open(path, 1)
    return Case(
        path=path,
        runtime=target.runtime,
        inputs=tuple(random_inputs(session.inputs, 1, seed=0)),
        input_infos=session.inputs,
        output_infos=session.outputs,
    )


def _costs(
    block: Block,
    choices: Sequence[Choice],
    cases: Sequence[Case | None],
    files: Sequence[TimedFile],
) -> BlockCosts:
    """Return the costs of one block."""
    found = iter(files)
    samples: list[Sequence[float] | None] = []
    for choice, case in zip([None, *choices], cases, strict=True):
        timed = None if case is None else next(found)
        why = "" if timed is None else _failure(timed)
        if why:
            cannot(block, choice, why)
        samples.append(None if timed is None or why else timed.samples_ms)
    return costs_of(samples)


def _median(timed: TimedFile, what: str) -> float:
    """Return the median time of a file, in milliseconds.

    Raises:
        InputError: If there is none.
    """
    why = _failure(timed)
    if why:
        raise InputError(f"{what} does not run: {why}", code="does-not-run")
    return summarize(timed.samples_ms, 1).p50_ms


def _failure(timed: TimedFile) -> str:
    """Tell why a form has no time; empty if it has."""
    if timed.failure or not timed.samples_ms:
        return timed.failure or "the device gave no timings"
    return not_finite(timed.outputs) if timed.outputs is not None else ""
