"""The records of this room: what an exported file is, and what it measured."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from dsconvert.converter.core.fidelity import OutputFidelity
from dsconvert.converter.core.predictor import Shape

from .layer_types import LayerReport

Format = Literal["tflite", "onnx"]
Quantization = Literal["none", "float16", "dynamic", "int8", "int8-float-io", "int16x8"]
CalibrationMethod = Literal["minmax", "entropy", "percentile"]
VerifiedOn = Literal["verification data", "calibration data", "random inputs", "nothing"]
Verdict = Literal["faster", "slower", "no measurable difference"]


class TensorInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of a model file.

    Attributes:
        name: Its name.
        shape: Batch axis first; None where a size is free.
        dtype: The numpy name of the stored type, e.g. ``"int8"``.
        scale: For a quantized tensor, the s of real = s · (stored − zero_point); else None.
        zero_point: For a quantized tensor, its zero point; else None.
    """

    name: str
    shape: Shape
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the ranges of a file's activations come from.

    Attributes:
        source: The name of the data, without their folder.
        samples: How many samples that was.
        random: Whether they are random numbers: such a file is for trying out, not for use.
        method: How a range is taken from the values seen.
    """

    source: str
    samples: int
    random: bool = False
    method: CalibrationMethod = "minmax"


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an exported file says of itself: where it comes from and what was done.

    Attributes:
        tools: Versions of everything that took part, by package name.
        source_sha256: The hash of the model file it was made from; empty if not told.
        quantization: How its weights and activations are stored.
        verified_on: What its outputs were compared on; "nothing" if they were not.
        rejected: Whether it failed that comparison.
        preprocessing: What was done to the stored images; None if not told.
        calibration: What its activations' ranges come from; None where there are none.
        labels: The names of the classes, in their order.
    """

    schema: Literal["dsconvert.metadata/1"] = "dsconvert.metadata/1"
    tools: dict[str, str]
    source_sha256: str
    quantization: Quantization
    verified_on: VerifiedOn
    rejected: bool = False
    preprocessing: dict[str, Any] | None = None
    calibration: Calibration | None = None
    labels: tuple[str, ...] = ()


class Artifact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An exported file that passed its verification, or the report on one that did not.

    Attributes:
        path: Where the file lies.
        format: Its format.
        quantization: How its weights and activations are stored.
        size_bytes: Its size.
        sha256: Its hash.
        source_sha256: The hash of the model file it was made from; empty if not told.
        tools: Versions of everything that took part, by package name.
        inputs: Its inputs, in the order of the source model.
        outputs: Its outputs, in the order of the source model.
        fidelity: How close each output is to the source model's.
        verified_on: What data the outputs were compared on; "nothing" if that was not wanted.
        samples: How many samples that was.
        preprocessing: What was done to the stored images; None if not told.
        calibration: What the ranges of its activations come from; None where there are none.
        labels: How many class names it holds.
        failures: Why it was rejected; empty for a file that took its place.
        layers: What each layer of an int8 file loses; None if that was not asked for.
        notes: What its user should know.
    """

    schema: Literal["dsconvert.artifact/1"] = "dsconvert.artifact/1"
    path: str
    format: Format
    quantization: Quantization
    size_bytes: int
    sha256: str
    source_sha256: str
    tools: dict[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    fidelity: tuple[OutputFidelity, ...]
    verified_on: VerifiedOn
    samples: int
    preprocessing: dict[str, Any] | None = None
    calibration: Calibration | None = None
    labels: int = 0
    failures: tuple[str, ...] = ()
    layers: LayerReport | None = None
    notes: tuple[str, ...] = ()


class Startup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a fresh process measured that did nothing but load one file and run it once.

    Attributes:
        load_ms: Time to read the file and prepare its kernels; the runtime was imported before.
        first_run_ms: Time of the first invocation.
        peak_memory_mib: Peak resident memory of the process.
        memory_increase_mib: The part of it that loading and running the file added.
    """

    load_ms: float
    first_run_ms: float
    peak_memory_mib: float
    memory_increase_mib: float


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


class DeviceInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device is.

    Attributes:
        name: What `--device` calls it, e.g. "host" or "ssh:pi@board".
        cpu: The processor's name.
        architecture: As ``uname -m`` says it.
        cores: Logical ones.
        memory_mib: Main memory; None where unknown.
        system: The operating system, with its version.
        runtimes: Version of each runtime that it has, by "litert", "ort" or "benchmark_model".
        emulated: Whether its processor is emulated: its times are no latency.
    """

    name: str
    cpu: str
    architecture: str
    cores: int
    memory_mib: float | None = None
    system: str = ""
    runtimes: dict[str, str] = {}
    emulated: bool = False


class MachineState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a device is doing; None is "it does not say".

    Attributes:
        load: Runnable processes, on average over the last minute.
        governor: Of the frequencies of the cores in use, e.g. "performance"; several by commas.
        frequency_mhz: The lowest current one of the cores in use.
        max_frequency_mhz: What these could reach.
        temperature_c: Of the hottest sensor.
        throttled: Whether it says it slows itself down.
    """

    load: float | None = None
    governor: str | None = None
    frequency_mhz: float | None = None
    max_frequency_mhz: float | None = None
    temperature_c: float | None = None
    throttled: bool | None = None


class OperatorTime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The time of one operator of a file.

    Attributes:
        name: Of the operator, as the file calls it.
        type: Its type, e.g. "DEPTHWISE_CONV_2D" or "Conv".
        p50_ms: Per invocation of the file.
        share: Of the sum over all operators.
        kind: "convolution" (of more than one tap), "depthwise", "pointwise" (1×1), "dense", "other"
            or "unknown": where the runtime fused or split what multiplies in the file. A device
            need not tell: it is found by comparison with the file.
    """

    name: str
    type: str
    p50_ms: float
    share: float
    kind: str = ""


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
