"""What costs are asked for: a runtime, a precision, a device."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from dsconvert.base.errors import InputError

from ..devices.records import HOST
from ..devices.registry import Capabilities, find_device, open_device
from ..runtimes.registry import RUNTIMES, default_runtime, find_runtime

Precision = Literal["float32", "int8"]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a network shall run.

    Attributes:
        runtime: The name of a runtime: "litert", "ort" (ONNX Runtime) or "openvino".
        precision: "float32" or "int8" (static, a scale per output channel of the weights).
        threads: Of the runtime; an NPU has none.
        device: "host", this machine's CPU; a board or phone, "ssh:pi@board", "adb" or
            a name of devices.toml; or an accelerator of Vela's, e.g. "ethos-u55-128".

    Raises:
        InputError: If there is no such target.
        MissingExtra: If what reaches the device is not installed.

    Example:
        >>> import dsconvert as ds
        >>> ds.Target("ort", threads=2)
        Target(runtime='ort', precision='float32', threads=2, device='host')
    """

    runtime: str = "litert"
    precision: Precision = "float32"
    threads: int = 1
    device: str = HOST

    def __post_init__(self) -> None:
        """Check the values and that they go together."""
        find_runtime(self.runtime)
        if self.precision not in get_args(Precision):
            allowed = ", ".join(get_args(Precision))
            raise InputError(
                f"unknown precision {self.precision!r}; allowed: {allowed}.",
                code="unknown-precision",
            )
        can = self.capabilities
        if not can.unit:
            raise InputError(
                f"{self.device} has no times to plan by: only its memory is known.",
                "Name a device that files run on, or an accelerator.",
                code="device-without-times",
            )
        if self.runtime not in can.runtimes or self.precision not in can.precisions:
            raise self._unfit(can)
        if self.threads < 1:
            raise InputError(f"threads must be 1 or more, got {self.threads}.", code="bad-threads")
        if can.measured:
            open_device(self.device)  # which checks its name, and reaches nothing
        elif self.threads != 1:
            raise InputError(
                f"{self.device} has no threads to choose, got {self.threads}.",
                code="option-not-applicable",
            )

    @property
    def capabilities(self) -> Capabilities:
        """Return what can be asked of the device.

        Raises:
            InputError: If there is no such device.
        """
        return find_device(self.device).capabilities

    @property
    def on_host(self) -> bool:
        """Tell whether it is measured on this machine."""
        return self.capabilities.this_machine

    @property
    def estimated(self) -> bool:
        """Tell whether its costs are estimated from the files; they are measured otherwise."""
        return not self.capabilities.measured

    @property
    def suffix(self) -> str:
        """Of the files that are written for it."""
        return find_runtime(self.runtime).suffixes[0]

    def _unfit(self, can: Capabilities) -> InputError:
        """Return the refusal of a runtime or a precision that the device does not have."""
        suffixes = dict.fromkeys(s for name in can.runtimes for s in RUNTIMES[name].suffixes)
        precisions = [one for one in get_args(Precision) if one in can.precisions]
        one = "" if len(precisions) > 1 else f"{precisions[0]} "
        also = f" and precision {self.precision}" if one else ""
        what = f" and the precision {precisions[0]}" if one else ""
        return InputError(
            f"{self.device} runs {one}{' and '.join(suffixes)} files only, "
            f"got runtime {self.runtime}{also}.",
            f"Choose the runtime {' or '.join(can.runtimes)}{what}.",
            code="runtime-not-on-device",
        )


def target_for(
    suffix: str,
    *,
    runtime: str | None = None,
    precision: Precision | None = None,
    threads: int = 1,
    device: str = HOST,
) -> Target:
    """Return the target of a model, with what is not given chosen for the device.

    Args:
        suffix: Of the file that the model becomes most directly: ".onnx" or ".tflite".
        runtime: None for the first that the device has for such files, or its first.
        precision: None for float32, or int8 where the device runs nothing else.
        threads: As `Target`.
        device: As `Target`.

    Raises:
        InputError: If there is no such target.
    """
    can = find_device(device).capabilities
    if runtime is None:
        usual = default_runtime(suffix, can.runtimes)
        runtime = usual.name if usual else can.runtimes[0]
    if precision is None:
        precision = "float32" if "float32" in can.precisions else "int8"
    return Target(runtime=runtime, precision=precision, threads=threads, device=device)
