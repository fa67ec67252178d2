"""Talking to an Android phone through adb: which one, its shell, its files."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dsconvert.base.errors import InputError

_ANSWER_S = 15.0
"""For what a phone answers at once: a property, a file of its kernel."""
_COPY_S = 300.0
_REMEDIES = {
    "unauthorized": "Unlock the phone and allow USB debugging for this computer.",
    "authorizing": "Unlock the phone and allow USB debugging for this computer.",
    "offline": "Reconnect the cable, or try: adb reconnect offline",
    "connecting": "Wait a moment and try again.",
    "recovery": "Restart the phone: adb reboot",
    "sideload": "Restart the phone: adb reboot",
    "bootloader": "Restart the phone: fastboot reboot",
    "no": "Set up udev rules: https://developer.android.com/studio/run/device",
}
"""By what adb calls the state; "no" is the first word of "no permissions"."""
_CODE = "dsconvert-exit-code:"


class AdbEntry(NamedTuple):
    """A line of ``adb devices -l``.

    Attributes:
        serial: What ``adb -s`` takes.
        state: "device" if it can be used.
        model: As the phone calls itself; empty if it does not say.
    """

    serial: str
    state: str
    model: str

    @property
    def usable(self) -> bool:
        """Tell whether it takes commands."""
        return self.state == "device"

    @property
    def trouble(self) -> str:
        """Return what keeps it from being used; empty if nothing does."""
        if self.usable:
            return ""
        return "not accessible for this user" if self.state == "no" else self.state

    @property
    def remedy(self) -> str:
        """Return what to do about it."""
        return "" if self.usable else _REMEDIES.get(self.state, "Reconnect it.")


class Said(NamedTuple):
    """What a command on the phone printed, both streams together, and its exit code."""

    code: int
    text: str


def adb_path() -> str:
    """Return the adb to use: ``$ADB``, else that of the PATH.

    Raises:
        InputError: If there is none.
    """
    chosen = os.environ.get("ADB")
    found = shutil.which(chosen or "adb")
    if found is None:
        raise InputError(
            f"$ADB is {chosen}, which is no program." if chosen else "adb is not on the PATH.",
            "Install Android's platform tools (Debian: apt install adb; others: "
            "https://developer.android.com/tools/releases/platform-tools), or set ADB to its path.",
            code="adb-not-found",
        )
    return found


def listed(timeout_s: float = _ANSWER_S) -> list[AdbEntry]:
    """Return the devices that adb knows, whether they can be used or not.

    Raises:
        InputError: If there is no adb, or its server does not answer.
    """
    done = _run([adb_path(), "devices", "-l"], timeout_s)
    if done.code != 0:
        raise InputError(
            f"adb devices failed: {_last_line(done.text)}",
            "Try: adb kill-server",
            code="adb-failed",
        )
    devices = []
    for line in done.text.splitlines():
        words = line.split()
        if len(words) < 2 or line.startswith(("List of devices", "*", "adb ")):
            continue
        model = re.search(r" model:(\S+)", line)
        devices.append(AdbEntry(words[0], words[1], model[1].replace("_", " ") if model else ""))
    return devices


def choose(serial: str | None) -> str:
    """Return the serial number of the phone that is meant.

    Raises:
        InputError: If it is not there or cannot be used, or none was named and there are several.
    """
    devices = listed()
    if serial is not None:
        devices = [device for device in devices if device.serial == serial]
        if not devices:
            raise InputError(
                f"adb has no device {serial}.", "Try: dsconvert devices", code="device-not-found"
            )
    if not devices:
        raise InputError(
            "adb has no device.",
            "Connect a phone with USB debugging on (Settings, Developer options), "
            "or one of the network: adb connect HOST:PORT",
            code="device-not-found",
        )
    usable = [device for device in devices if device.usable]
    if len(usable) > 1:
        names = ", ".join(f"{device.serial} ({device.model or 'unnamed'})" for device in usable)
        raise InputError(
            f"adb has {len(usable)} devices: {names}.",
            f"Say which: --device adb:{usable[0].serial}",
            code="several-devices",
        )
    if not usable:
        raise InputError(
            f"adb: {devices[0].serial} is {devices[0].trouble}.",
            devices[0].remedy,
            code="device-not-ready",
        )
    return usable[0].serial


class AdbPhone:
    """A phone whose serial number is known."""

    def __init__(self, serial: str) -> None:
        self.serial = serial
        self._adb = adb_path()

    def shell(self, *words: str, timeout_s: float = _ANSWER_S) -> Said:
        """Run one command; every word reaches it as it is.

        Raises:
            InputError: If the phone is gone or does not answer in time.
        """
        return self.script(shlex.join(words), timeout_s=timeout_s)

    def script(self, text: str, timeout_s: float = _ANSWER_S) -> Said:
        """Run lines of the phone's shell.

        Older phones do not hand on the exit code, so it is printed.

        Raises:
            InputError: If the phone is gone or does not answer in time.
        """
        line = f"{{ {text}\n}} 2>&1; echo {_CODE}$?"
        done = _run([self._adb, "-s", self.serial, "shell", line], timeout_s)
        output, mark, code = done.text.replace("\r\n", "\n").rpartition(_CODE)
        if not mark or not code.strip().isdigit():
            raise self._gone("shell", done.text)
        return Said(int(code), output)

    def push(self, path: Path, to: str) -> None:
        """Copy a file to the phone.

        Raises:
            InputError: If that fails.
        """
        done = _run([self._adb, "-s", self.serial, "push", str(path), to], _COPY_S)
        if done.code != 0:
            raise self._gone(f"push {path.name} to {to}", done.text)

    def pull(self, path: str, to: Path) -> bool:
        """Copy a file from the phone; False if it is not there."""
        done = _run([self._adb, "-s", self.serial, "pull", path, str(to)], _COPY_S)
        return done.code == 0 and to.is_file()

    def _gone(self, what: str, text: str) -> InputError:
        return InputError(
            f"adb: {what} failed on {self.serial}: {_last_line(text)}",
            "Check the cable and that the phone is unlocked; then try: dsconvert devices",
            code="adb-failed",
        )


class TooSlow(InputError):
    """A command that did not end in time."""

    default_code = "device-timeout"


def _run(command: Sequence[str], timeout_s: float) -> Said:
    """Run adb; both streams in one text."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,  # adb shell would read what is meant for others
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        what = " ".join(command[1:4])
        raise TooSlow(
            f"adb {what} … did not end within {timeout_s:.0f} s.", "Try: adb reconnect"
        ) from error
    except OSError as error:
        raise InputError(
            f"{command[0]} cannot be run: {error.strerror}.", code="adb-not-found"
        ) from error
    return Said(done.returncode, done.stdout.decode(errors="replace"))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def inside(folder: str, *parts: str) -> str:
    """Return a path on the phone."""
    return str(PurePosixPath(folder, *parts))
