"""What can be profiled on: this machine, phones, boards, and what is estimated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import msgspec

from dsconvert.base.errors import InputError

from . import adb_shell
from .accelerators import MCU, NPUS
from .config import config_path, known
from .records import HOST, DeviceInfo, Kind, MachineState
from .registry import open_device

TIMEOUT_S = 20.0
Answer = tuple[DeviceInfo, MachineState | None]


class ListedDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device, reached or not.

    Attributes:
        name: What `--device` calls it.
        kind: How it is reached: estimates ("npu", "mcu") need no device.
        address: What a name of devices.toml stands for; empty for others.
        info: What it is; None if it was not reached, or is estimated.
        state: How it is doing; None if that is not known.
        method: What estimates it; empty for others.
        reason: Why it cannot be used; empty if it can.
        hint: What to do about that.
    """

    name: str
    kind: Kind
    address: str = ""
    info: DeviceInfo | None = None
    state: MachineState | None = None
    method: str = ""
    reason: str = ""
    hint: str = ""


class Listing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All devices.

    Attributes:
        devices: This machine first.
        config: The file that names boards and phones, whether it is there or not.
        notes: What else there is to say.
    """

    schema: Literal["dsconvert.devices/1"] = "dsconvert.devices/1"
    devices: tuple[ListedDevice, ...]
    config: str
    notes: tuple[str, ...] = ()


def list_devices(timeout_s: float = TIMEOUT_S) -> Listing:
    """Ask all devices side by side.

    Args:
        timeout_s: How long each may take to answer; it is listed as unreachable after that.

    Raises:
        InputError: If devices.toml cannot be used.
    """
    names = known()
    asked = [(ListedDevice(name=HOST, kind="host"), _asking(HOST))]
    phones, notes = _phones({phone.serial for phone in names.phones.values()})
    asked += phones
    for name, one in sorted(names.devices.items(), key=lambda pair: pair[1].kind):
        asked.append((ListedDevice(name=name, kind=one.kind, address=one.name), _asking(name)))
    if not names.boards:
        notes.append(f"boards: none is named in {config_path()}; --device ssh:USER@HOST works too")
    return Listing(
        devices=(*_answers(asked, timeout_s), *_estimated()),
        config=str(config_path()),
        notes=tuple(notes),
    )


def _phones(
    named: set[str],
) -> tuple[list[tuple[ListedDevice, Callable[[], Answer]]], list[str]]:
    """Return the phones that adb knows, but those with a name; and notes."""
    try:
        found = [one for one in adb_shell.listed() if one.serial not in named]
    except InputError as error:
        return [], [f"phones: {error.words.message}"]
    if not found and not named:
        return [], ["phones: adb sees none"]
    return [
        (ListedDevice(name=f"adb:{one.serial}", kind="adb"), _asking(f"adb:{one.serial}"))
        for one in found
    ], []


def _asking(name: str) -> Callable[[], Answer]:
    """Ask a device."""

    def ask() -> Answer:
        device = open_device(name)
        return device.describe(), device.state()

    return ask


def _answers(
    asked: Sequence[tuple[ListedDevice, Callable[[], Answer]]], timeout_s: float
) -> list[ListedDevice]:
    """Ask all at once; a device that does not answer in time is left to itself."""
    found = [one for one, _ in asked]
    late = f"no answer within {timeout_s:.0f} s"

    def run(i: int, ask: Callable[[], Answer]) -> None:
        try:
            info, state = ask()
        except (InputError, OSError) as error:
            changes: dict[str, Any] = {"reason": str(error)}
            if isinstance(error, InputError):
                changes = {"reason": error.words.message, "hint": error.words.hint}
        else:
            changes = {"info": info, "state": state}
        found[i] = msgspec.structs.replace(found[i], **changes)

    # Daemons: one that hangs must not keep the program from ending.
    threads = [
        threading.Thread(target=run, args=(i, ask), daemon=True) for i, (_, ask) in enumerate(asked)
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    answers = list(found)  # what comes after this is too late
    return [
        one if one.info or one.reason else msgspec.structs.replace(one, reason=late)
        for one in answers
    ]


def _estimated() -> list[ListedDevice]:
    """Return what needs no device."""
    missing = ListedDevice(
        name="",
        kind="npu",
        reason="ethos-u-vela is not installed",
        hint="Try: pip install 'dsconvert[ethosu]'",
    )
    try:
        npu = ListedDevice(name="", kind="npu", method=f"Vela {version('ethos-u-vela')}")
    except PackageNotFoundError:
        npu = missing
    npus = [msgspec.structs.replace(npu, name=name) for name in NPUS]
    mcu = ListedDevice(name=MCU, kind="mcu", method="TFLM's greedy plan of the file's tensors")
    return [*npus, mcu]
