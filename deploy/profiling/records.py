"""The records of this room: what an exported file is, and what it measured."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..devices.records import DeviceInfo, MachineState, OperatorTime, Startup

Verdict = Literal["faster", "slower", "no measurable difference"]


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The time of one invocation: percentiles in milliseconds, and every sample behind them.

    Attributes:
        p50_ms: The median; p90, p95 and p99 likewise.
        min_ms: The fastest.
        max_ms: The slowest.
        mean_ms: The mean.
        std_ms: The standard deviation of one invocation, not of the mean.
        inferences_per_s: Samples per second at the median.
        samples_ms: Every timed invocation, in the order of the rounds.
    """

    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    mean_ms: float
    std_ms: float
    inferences_per_s: float
    samples_ms: tuple[float, ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This file's time over the first file's.

    Attributes:
        baseline: The first file's path.
        ratio: Median time over the first file's median time: below 1 is faster.
        low: Lower end of the 95 % bootstrap interval of the ratio.
        high: Upper end.
        resolution: How far from 1 the ratio of two copies of one file can be on its own.
        verdict: What can be said: a difference only if the interval stays out of 1 ± resolution.
    """

    baseline: str
    ratio: float
    low: float
    high: float
    resolution: float
    verdict: Verdict


class Estimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file would need on a device that nobody has measured it on; None is "not known".

    Attributes:
        kind: "npu" or "mcu".
        method: What estimated it, with its version and configuration.
        cycles: Of one inference, those on the accelerator only.
        inference_ms: The same at the clock of the configuration.
        sram_kib: Peak use of SRAM.
        flash_kib: Use of flash: weights and constants.
        dram_kib: Peak use of DRAM.
        npu_share: The part of the operators that run on the accelerator.
        arena_kib: The memory for activations that a microcontroller's interpreter must be given.
    """

    kind: Literal["npu", "mcu"]
    method: str
    cycles: int | None = None
    inference_ms: float | None = None
    sram_kib: float | None = None
    flash_kib: float | None = None
    dram_kib: float | None = None
    npu_share: float | None = None
    arena_kib: float | None = None


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one file measured on a device.

    Attributes:
        path: The file.
        sha256: Its hash.
        size_bytes: Its size.
        runtime: The runtime's name.
        runtime_version: Its version.
        cpu: The processor's name.
        threads: Threads the runtime was given.
        batch: Samples per invocation.
        warmup: Untimed invocations before the timed ones.
        runs: Timed invocations.
        startup: Loading and first run in a fresh process; None if that failed, see the notes.
        latency: The timed invocations; None if the measurement failed.
        comparison: Against the first file; None for the first file and for failures.
        device: What it was measured on; None if it was not measured but estimated.
        before: How the device was doing before.
        after: And after.
        cpus: The cores it was pinned to; empty for all.
        macs: Multiply-accumulates of one invocation in convolutions, dense layers and products of
            matrices, counted in the file; a text says why they are not known.
        gmacs_per_s: The same per second at the median.
        weight_bytes: Of all constants of the file, as stored.
        activation_bytes: The largest sum, over the operators, of the activations that one reads
            and writes, as the file types them: no runtime that runs one operator after the other
            needs less memory for activations.
        operators: The time of each operator, in runs of their own, if that was asked for; a text
            says why there are none.
        estimate: What takes the latency's place for a device that was not measured.
        failure: Why there is no latency; empty if there is.
        notes: What a reader of these figures should know.
    """

    schema: Literal["dsconvert.measurement/1"] = "dsconvert.measurement/1"
    path: str
    sha256: str
    size_bytes: int
    runtime: str
    runtime_version: str
    cpu: str
    threads: int
    batch: int
    warmup: int
    runs: int
    startup: Startup | None
    latency: Latency | None
    comparison: Comparison | None = None
    device: DeviceInfo | None = None
    before: MachineState | None = None
    after: MachineState | None = None
    cpus: tuple[int, ...] = ()
    macs: int | str = "unavailable: not counted"
    gmacs_per_s: float | None = None
    weight_bytes: int | str = "unavailable: not counted"
    activation_bytes: int | str = "unavailable: not counted"
    operators: tuple[OperatorTime, ...] | str = ()
    estimate: Estimate | None = None
    failure: str = ""
    notes: tuple[str, ...] = ()
