"""What devices are called."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from dsconvert.base.errors import InputError

from .device import Device

_KINDS = {
    "host": (".host", "HostDevice"),
    "ssh": (".ssh", "SshDevice"),
    "adb": (".adb", "AdbDevice"),
}
_FORMS = "host, ssh:[USER@]HOST[:PORT], adb[:SERIAL]"


def is_estimated(name: str) -> bool:
    """Whether a device's figures are estimated from the file: NPUs and microcontrollers."""
    return name == "mcu" or name.startswith("ethos-u")


def open_device(name: str, benchmark_binary: Path | None = None) -> Device:
    """The device of this name; it is not reached yet.

    Args:
        name: "host", "ssh:[USER@]HOST[:PORT]", "adb[:SERIAL]", or a name of devices.toml.
        benchmark_binary: TFLite's `benchmark_model` for a phone or a board, on this machine.

    Raises:
        InputError: If there is no such kind of device, or the name is not of its form.
        MissingExtra: If what reaches it is not installed.
    """
    kind, colon, rest = name.partition(":")
    if kind not in _KINDS or (kind == "host" and colon):
        from .config import config_path, open_known

        named = open_known(name, benchmark_binary=benchmark_binary)
        if named is not None:
            return named
        raise InputError(
            f"unknown device {name!r}; allowed: {_FORMS}, or a name of {config_path()}.",
            "For estimates from the file alone: mcu, ethos-u55-128, ethos-u65-256, ethos-u85-256 …",
        )
    if not rest and (colon or kind == "ssh"):
        raise InputError(f"device {name!r} names no machine; allowed: {_FORMS}.")
    module, cls = _KINDS[kind]
    make = getattr(import_module(module, __package__), cls)
    if kind == "host" and benchmark_binary is not None:
        raise InputError(
            "this machine runs files in its own runtimes.",
            "Leave --benchmark-binary out, or name a phone or a board with --device.",
        )
    options = {} if benchmark_binary is None else {"benchmark_binary": benchmark_binary}
    device: Device = make() if kind == "host" else make(name, **options)
    return device
