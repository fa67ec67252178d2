"""The devices that a user has given names: a small TOML file.

    [boards.kitchen]                       # dsconvert profile model.tflite --device kitchen
    host = "192.168.1.20"                  # an address, or a name from ~/.ssh/config
    user = "pi"
    port = 22
    python = "~/venv/bin/python3"          # by default ~/dsconvert-venv's, then python3

    [phones.pixel]
    serial = "R5CR1234567"                 # as adb devices prints it
    benchmark_binary = "~/tools/benchmark_model"

Only the host or the serial number has to be there.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from dsconvert.base.cache_folder import home_folder
from dsconvert.base.errors import InputError
from dsconvert.base.files import read_whole

from .accelerators import MCU
from .records import HOST, Kind

_OURS = (HOST, MCU, "adb", "ssh")


class Board(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A board reached by ssh.

    Attributes:
        host: Its address, or its name in ~/.ssh/config.
        user: By default that of the ssh configuration.
        port: By default that of the ssh configuration.
        python: The Python there.
        benchmark_binary: The program `benchmark_model` for it, on this machine, if it is to run
            .tflite files instead of Python.
        folder: The folder there in which a temporary one is made.
    """

    host: str
    user: str = ""
    port: int | None = None
    python: str | None = None
    benchmark_binary: str | None = None
    folder: str | None = None

    @property
    def name(self) -> str:
        """Return what `--device` calls it without this file."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"ssh:{user}{host}" + (f":{self.port}" if self.port else "")

    @property
    def kind(self) -> Kind:
        """Tell how it is reached."""
        return "ssh"

    @property
    def options(self) -> dict[str, Any]:
        """Return what its `Device` is made with."""
        return _given(self.benchmark_binary, folder=self.folder, python=self.python)


class Phone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A phone reached by adb.

    Attributes:
        serial: As ``adb devices`` prints it.
        benchmark_binary: The program `benchmark_model` for it, on this machine.
        folder: The folder there in which a temporary one is made.
    """

    serial: str
    benchmark_binary: str | None = None
    folder: str | None = None

    @property
    def name(self) -> str:
        """Return what `--device` calls it without this file."""
        return f"adb:{self.serial}"

    @property
    def kind(self) -> Kind:
        """Tell how it is reached."""
        return "adb"

    @property
    def options(self) -> dict[str, Any]:
        """Return what its `Device` is made with."""
        return _given(self.benchmark_binary, folder=self.folder)


class NamedDevices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says.

    Attributes:
        boards: By the names that the user gave them.
        phones: Likewise.
    """

    boards: dict[str, Board] = {}
    phones: dict[str, Phone] = {}

    @property
    def devices(self) -> dict[str, Board | Phone]:
        """All of them, boards first."""
        return {**self.boards, **self.phones}


def config_path() -> Path:
    """``$DSCONVERT_DEVICES``, or devices.toml in the platform's folder for settings."""
    chosen = os.environ.get("DSCONVERT_DEVICES")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or home_folder() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        base = home_folder() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or home_folder() / ".config")
    return base / "dsconvert" / "devices.toml"


def known(path: Path | None = None) -> NamedDevices:
    """Read the file; where there is none, nothing is known.

    Raises:
        InputError: If it is no TOML, or says something that is not understood.
    """
    path = path or config_path()
    try:
        said = tomllib.loads(read_whole(path).decode())
    except FileNotFoundError:
        return NamedDevices()
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read: {error}", "Correct it, or remove it.", code="bad-devices-file"
        ) from error
    try:
        found = msgspec.convert(said, NamedDevices)
    except msgspec.ValidationError as error:
        raise InputError(
            f"{path}: {error}",
            "A board is [boards.NAME] with host, and if need be user, port, python, "
            "benchmark_binary, folder; a phone [phones.NAME] with serial, and if need be "
            "benchmark_binary, folder.",
            code="bad-devices-file",
        ) from error
    _check_names(path, found)
    return found


def _given(benchmark_binary: str | None, **options: str | None) -> dict[str, Any]:
    """Return the options that have a value."""
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if benchmark_binary is not None:
        given["benchmark_binary"] = Path(benchmark_binary).expanduser()
    return given


def _check_names(path: Path, found: NamedDevices) -> None:
    """Names that mean something already, or that would be read as something else."""
    for name in found.devices:
        if not name or name in _OURS or name.startswith("ethos-u") or ":" in name:
            raise InputError(
                f"{path}: {name!r} cannot be the name of a device.",
                "Use another.",
                code="bad-devices-file",
            )
    both = set(found.boards) & set(found.phones)
    if both:
        raise InputError(
            f"{path}: {', '.join(sorted(both))} is both a board and a phone.",
            code="bad-devices-file",
        )
