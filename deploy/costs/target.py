"""What costs are asked for: a runtime, a precision, a device."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from dsconvert.base.errors import InputError

from ..devices.accelerators import NPUS
from ..devices.open_device import open_device

RuntimeName = Literal["litert", "ort"]
Precision = Literal["float32", "int8"]
HOST = "host"


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a network shall run.

    Attributes:
        runtime: "litert" or "ort" (ONNX Runtime).
        precision: "float32" or "int8" (static, a scale per output channel of the weights).
        threads: Of the runtime; an NPU has none.
        device: "host", this machine's CPU; a board or phone, "ssh:pi@board", "adb" or
            a name of devices.toml; or an accelerator of Vela's, e.g. "ethos-u55-128".

    Raises:
        InputError: If there is no such target.
        MissingExtra: If what reaches the device is not installed.
    """

    runtime: RuntimeName = "litert"
    precision: Precision = "float32"
    threads: int = 1
    device: str = HOST

    def __post_init__(self) -> None:
        """Check the values and that they go together."""
        for name, value, allowed in (
            ("runtime", self.runtime, get_args(RuntimeName)),
            ("precision", self.precision, get_args(Precision)),
        ):
            if value not in allowed:
                raise InputError(f"unknown {name} {value!r}; allowed: {', '.join(allowed)}.")
        if self.device.startswith("ethos-u") and self.device not in NPUS:
            known = ", ".join((HOST, *NPUS))
            raise InputError(f"unknown device {self.device!r}; allowed: {known}.")
        reached = self.device if self.on_host or self.estimated else open_device(self.device).name
        if reached.startswith("adb") and self.runtime != "litert":
            raise InputError(
                f"{self.device} runs .tflite files only, got runtime {self.runtime}.",
                "Choose the runtime litert.",
            )
        if self.threads < 1:
            raise InputError(f"threads must be 1 or more, got {self.threads}.")
        if self.estimated and (self.runtime, self.precision) != ("litert", "int8"):
            raise InputError(
                f"{self.device} runs int8 .tflite files only, "
                f"got runtime {self.runtime} and precision {self.precision}.",
                "Choose the runtime litert and the precision int8.",
            )
        if self.estimated and self.threads != 1:
            raise InputError(f"{self.device} has no threads to choose, got {self.threads}.")

    @property
    def on_host(self) -> bool:
        """Whether it is measured on this machine."""
        return self.device == HOST

    @property
    def estimated(self) -> bool:
        """Whether its costs are estimated from the files; they are measured otherwise."""
        return self.device in NPUS
