"""What devices are called."""

from __future__ import annotations

from dsconvert.converter.core.errors import InputError

from .device import Device


def open_device(name: str) -> Device:
    """The device of this name; it is not reached yet.

    Args:
        name: "host", "ssh:[USER@]HOST[:PORT]" or "adb[:SERIAL]".

    Raises:
        InputError: If there is no such kind of device, or the name is not of its form.
        MissingExtra: If what reaches it is not installed.
    """
    raise InputError(
        f"unknown device {name!r}; allowed: host, ssh:[USER@]HOST[:PORT], adb[:SERIAL]."
    )
