"""Records of what a device is and of what a process on it measured."""

from __future__ import annotations

from typing import Literal

import msgspec

HOST = "host"
"""What `--device` calls this machine."""
Kind = Literal["host", "adb", "ssh", "npu", "mcu"]
"""How a device is reached, or what it is estimated as."""


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


class DeviceInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device is.

    Attributes:
        name: What `--device` calls it, e.g. "host" or "ssh:pi@board".
        cpu: The processor's name.
        architecture: As ``uname -m`` says it.
        cores: Logical ones.
        memory_mib: Main memory; None where unknown.
        system: The operating system, with its version.
        runtimes: Version of each runtime that it has, by its name, or "benchmark_model".
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
