"""The kinds of devices, and what their names lead to.

To add a kind: a file with its `Device`, and a record in `KINDS`. Nothing is reached here, and what
reaches a device is imported when one is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from dsconvert.base.errors import InputError

from ..runtimes.registry import RUNTIMES
from ..runtimes.runtime import Precision
from .accelerators import MCU, NPUS
from .benchmark_model import RUNTIME as BENCHMARKED
from .config import config_path, known
from .device import Device
from .records import HOST, Kind


@dataclass(frozen=True)
class Capabilities:
    """What can be asked of a device.

    Attributes:
        runtimes: Names of the runtimes whose files it runs, if they are installed there.
        precisions: Of the files that it runs.
        unit: What its costs are counted in: "ms" where files run and are timed, on chosen cores and
            threads; "cycles" where they are estimated; empty where no time is known.
        this_machine: Whether it is this machine: what is made for this processor runs there.
        side_by_side: Whether it can be measured while other devices are.
        benchmark_binary: Whether it takes TFLite's program `benchmark_model`.
    """

    runtimes: tuple[str, ...]
    precisions: tuple[Precision, ...] = ("float32", "float16", "int8")
    unit: Literal["ms", "cycles", ""] = "ms"
    this_machine: bool = False
    side_by_side: bool = False
    benchmark_binary: bool = False

    @property
    def measured(self) -> bool:
        """Tell whether files run there; otherwise its figures are estimated from the files."""
        return self.unit == "ms"


class OpenDevice(Protocol):
    """Makes a `Device`, without reaching it."""

    def __call__(self) -> Device:
        """Make it.

        Raises:
            InputError: If nothing runs there: its figures are estimated.
            MissingExtra: If what reaches it is not installed.
        """
        ...


@dataclass(frozen=True)
class DeviceEntry:
    """What a name leads to.

    Attributes:
        name: What ``--device`` calls it; of a name of devices.toml what it stands for.
        kind: How it is reached, or what it is estimated as.
        capabilities: What can be asked of it.
        open: Makes it.
    """

    name: str
    kind: Kind
    capabilities: Capabilities
    open: OpenDevice


@dataclass(frozen=True)
class DeviceKind:
    """A kind of devices.

    Attributes:
        form: How its names are written, for people; empty for what is listed one by one.
        matches: Tells whether a name is one of this kind.
        capabilities: Of its devices.
        make: Makes the `Device` of a name and its options, as "module:Class" in this package; empty
            for what is estimated.
    """

    form: str
    matches: Callable[[str], bool]
    capabilities: Capabilities
    make: str = ""

    def open(self, name: str, options: dict[str, Any]) -> Device:
        """Make a device; see `OpenDevice`."""
        if not self.make:
            raise InputError(
                f"{name} is estimated from the file: nothing runs there.", code="device-estimated"
            )
        module, _, cls = self.make.partition(":")
        device: Device = getattr(import_module(f".{module}", __package__), cls)(name, **options)
        return device


_ALL = tuple(RUNTIMES)
KINDS: dict[Kind, DeviceKind] = {
    "host": DeviceKind(
        "host", lambda name: name == HOST, Capabilities(_ALL, this_machine=True), "host:HostDevice"
    ),
    "ssh": DeviceKind(
        "ssh:[USER@]HOST[:PORT]",
        lambda name: name.partition(":")[0] == "ssh",
        Capabilities(_ALL, side_by_side=True, benchmark_binary=True),
        "ssh:SshDevice",
    ),
    "adb": DeviceKind(
        "adb[:SERIAL]",
        lambda name: name.partition(":")[0] == "adb",
        Capabilities((BENCHMARKED,), side_by_side=True, benchmark_binary=True),
        "adb:AdbDevice",
    ),
    "npu": DeviceKind(
        "",
        lambda name: name.startswith("ethos-u"),
        Capabilities(("litert",), ("int8",), unit="cycles"),
    ),
    "mcu": DeviceKind("", lambda name: name == MCU, Capabilities(("litert",), unit="")),
}
_FORMS = ", ".join(kind.form for kind in KINDS.values() if kind.form)


def find_device(name: str, benchmark_binary: Path | None = None) -> DeviceEntry:
    """Return what a name leads to; nothing is reached.

    Args:
        name: "host", "ssh:[USER@]HOST[:PORT]", "adb[:SERIAL]", an accelerator of Vela's, "mcu", or
            a name of devices.toml.
        benchmark_binary: TFLite's `benchmark_model` for a phone or a board, on this machine.

    Raises:
        InputError: If there is no such device, the name is not of its form, or it takes no program.
    """
    options: dict[str, Any] = (
        {} if benchmark_binary is None else {"benchmark_binary": benchmark_binary}
    )
    kind: Kind | None = next((kind for kind, one in KINDS.items() if one.matches(name)), None)
    if kind is None:
        kind, name, options = _named(name, options)
    found = KINDS[kind]
    _check(name, kind, found)
    capabilities = found.capabilities
    if "benchmark_binary" in options:
        if not capabilities.benchmark_binary:
            raise _takes_no_program(name, capabilities)
        capabilities = replace(capabilities, runtimes=(BENCHMARKED,))
    return DeviceEntry(name, kind, capabilities, partial(found.open, name, options))


def open_device(name: str, benchmark_binary: Path | None = None) -> Device:
    """Return the device of this name; it is not reached yet.

    Args:
        name: As for `find_device`.
        benchmark_binary: Likewise.

    Raises:
        InputError: As `find_device`; also for what is estimated.
        MissingExtra: If what reaches it is not installed.
    """
    return find_device(name, benchmark_binary).open()


def _named(name: str, options: dict[str, Any]) -> tuple[Kind, str, dict[str, Any]]:
    """Return a device of devices.toml: its kind, its name without that file, its options.

    Raises:
        InputError: If the file names none, or cannot be used.
    """
    found = known().devices.get(name)
    if found is None:
        raise InputError(
            f"unknown device {name!r}; allowed: {_FORMS}, or a name of {config_path()}.",
            "For estimates from the file alone: mcu, ethos-u55-128, ethos-u65-256, ethos-u85-256 …",
            code="unknown-device",
        )
    return found.kind, found.name, {**found.options, **options}


def _check(name: str, kind: Kind, found: DeviceKind) -> None:
    """Check the form of a name.

    Raises:
        InputError: If it names no machine, or an accelerator that Vela does not know.
    """
    _, colon, rest = name.partition(":")
    if not rest and (colon or kind == "ssh"):
        raise InputError(
            f"device {name!r} names no machine; allowed: {_FORMS}.", code="unknown-device"
        )
    if kind == "npu" and name not in NPUS:
        raise InputError(
            f"unknown device {name!r}; allowed: {', '.join((HOST, *NPUS))}.", code="unknown-device"
        )


def _takes_no_program(name: str, capabilities: Capabilities) -> InputError:
    if not capabilities.measured:
        return InputError(
            f"{name} is estimated: no program runs.",
            "Leave --benchmark-binary out.",
            code="option-not-applicable",
        )
    return InputError(
        "this machine runs files in its own runtimes.",
        "Leave --benchmark-binary out, or name a phone or a board with --device.",
        code="option-not-applicable",
    )
