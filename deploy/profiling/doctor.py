"""What is missing for which job, and the command that brings it.

Nothing is imported to tell its version: TensorFlow alone would take seconds.
"""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from packaging.requirements import Requirement
from packaging.version import Version

from dsconvert.base.cache_folder import cache_folder, home_folder
from dsconvert.base.errors import InputError

from ..devices import adb_shell
from ..devices.adb import binary_place
from ..devices.benchmark_model import NAME
from ..devices.config import config_path, known
from ..devices.records import DeviceInfo, MachineState
from ..runner import machine
from ..runtimes.registry import RUNTIMES
from .machine_warnings import doubts

Status = Literal["ok", "missing", "broken", "doubtful"]
EXTRAS = {
    **{runtime.extra: runtime.purpose.removeprefix("to ") for runtime in RUNTIMES.values()},
    "keras": "load, rewrite, fine-tune Keras models; export to and run TFLite",
    "onnx": "plan, rewrite, evaluate, profile ONNX models",
    "all": "from ONNX to Keras and back",
    "ethosu": "estimates for Ethos-U NPUs",
    "ssh": "profile on boards by ssh",
    "report": "report.html of a whole run",
}
_SAME_MODULE = (
    ("tensorflow-cpu", "tensorflow", "tensorflow-macos", "tf-nightly"),
    *(runtime.packages for runtime in RUNTIMES.values()),
)
"""Distributions that bring the same module."""
TESTED = {
    "asyncssh": "2.24",
    "ethos-u-vela": "5.2",
    "h5py": "3.14",
    "keras": "3.15",
    "numpy": "2.4",
    "onnx": "1.23",
    "tensorflow-cpu": "2.21",
    "tf2onnx": "1.17",
    **{runtime.packages[0]: runtime.tested for runtime in RUNTIMES.values()},
}
"""Releases that the test suite was run with, all together: those of requirements/dev.lock."""


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that was looked at.

    Attributes:
        job: What it is for.
        status: "ok"; "missing", so that the job cannot be done; "broken", installed and of no use
            as it is; "doubtful", the job can be done and its result may not be what it seems.
        found: What there is.
        fix: The command or action that helps; empty if nothing has to be done.
    """

    job: str
    status: Status
    found: str
    fix: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that was looked at.

    Attributes:
        passed: Whether dsconvert itself can work, and with Keras or ONNX models.
        checks: In order of need.
    """

    schema: Literal["dsconvert.doctor/1"] = "dsconvert.doctor/1"
    passed: bool
    checks: tuple[Check, ...]


def diagnose() -> Diagnosis:
    """Look at Python, packages, tools, settings and the machine."""
    basics = [_python(), _extra("", "dsconvert itself")]
    jobs = {extra: _extra(extra, job) for extra, job in EXTRAS.items()}
    checks = [
        *basics,
        *jobs.values(),
        *_combinations(),
        *_keras_backend(),
        *_adb(),
        *_settings(),
        _cache(),
        _machine(),
    ]
    models = any(jobs[extra].status == "ok" for extra in ("keras", "onnx"))
    sound = all(check.status == "ok" for check in basics)
    return Diagnosis(passed=sound and models, checks=tuple(checks))


def _python() -> Check:
    fine = sys.version_info >= (3, 11)
    return Check(
        job="Python",
        status="ok" if fine else "broken",
        found=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        fix="" if fine else "Use Python 3.11 or newer.",
    )


def _extra(extra: str, job: str) -> Check:
    """Tell whether what an extra asks for is installed, in the versions it asks for."""
    found, missing, wrong = [], [], []
    for requirement in _requirements(extra):
        installed = _installed(requirement.name)
        if installed is None:
            missing.append(requirement.name)
        elif not requirement.specifier.contains(installed[1], prereleases=True):
            wrong.append(f"{installed[0]} {installed[1]}, needed {requirement.specifier}")
        else:
            found.append(f"{installed[0]} {installed[1]}")
    status: Status = "broken" if wrong else "missing" if missing else "ok"
    said = [*wrong, *(f"no {name}" for name in missing), *found]
    what = f"dsconvert[{extra}]" if extra else "dsconvert"
    return Check(
        job=job,
        status=status,
        found=", ".join(said) or "nothing is needed",
        fix="" if status == "ok" else f"pip install --upgrade '{what}'",
    )


def _requirements(extra: str) -> list[Requirement]:
    """List what an extra of dsconvert asks for on this platform; an empty one is dsconvert itself.

    An extra may name others: "dsconvert[keras,onnx]; extra == 'all'".
    """
    found: dict[str, Requirement] = {}
    for line in metadata.requires("dsconvert") or ():
        requirement = Requirement(line)
        if not _asked_for(requirement, extra) or (extra and _asked_for(requirement, "")):
            continue
        if requirement.name == "dsconvert":
            for other in sorted(requirement.extras):
                found |= {one.name: one for one in _requirements(other)}
        else:
            found[requirement.name] = requirement
    return list(found.values())


def _asked_for(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _installed(name: str) -> tuple[str, str] | None:
    """Return the distribution that brings a package, and its version."""
    for candidate in next((group for group in _SAME_MODULE if name in group), (name,)):
        try:
            return candidate, metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return None


def _combinations() -> Iterator[Check]:
    """Packages that spoil each other."""
    for group in _SAME_MODULE:
        found = [one for one in group if _has(one)]
        if len(found) > 1:
            yield Check(
                job=group[0],
                status="broken",
                found=f"{' and '.join(found)} share their files: each spoils the other",
                fix=f"pip uninstall -y {' '.join(found)} && pip install {found[0]}",
            )
    ours = [requirement.name for extra in ("", *EXTRAS) for requirement in _requirements(extra)]
    for name in dict.fromkeys(ours):
        yield from _unmet(name)
    yield from _newer()


def _newer() -> Iterator[Check]:
    """Name releases that the tests have not seen: any install of today has some.

    A new main release may change what its functions do, a smaller one rarely does.
    """
    newer, main = [], False
    for name, tested in TESTED.items():
        installed = _installed(name)
        if installed and (have := Version(installed[1]).release[:2]) > Version(tested).release:
            newer.append(f"{installed[0]} {installed[1]} ({tested})")
            main |= have[0] > Version(tested).major
    if newer:
        yield Check(
            job="versions",
            status="doubtful" if main else "ok",
            found=f"newer than what was tested: {', '.join(newer)}",
        )


def _has(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _unmet(name: str) -> Iterator[Check]:
    """Return what an installed package asks for and does not get."""
    installed = _installed(name)
    if installed is None:
        return
    for line in metadata.requires(installed[0]) or ():
        requirement = Requirement(line)
        if not _asked_for(requirement, ""):
            continue
        try:
            have = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            have = ""
        if not have or not requirement.specifier.contains(have, prereleases=True):
            wanted = f"{requirement.name}{requirement.specifier}"
            there = f"{have} is installed" if have else "which is missing"
            yield Check(
                job=installed[0],
                status="broken",
                found=f"{installed[0]} {installed[1]} needs {wanted}, {there}",
                fix=f"pip install '{wanted}'",
            )


def _keras_backend() -> Iterator[Check]:
    """Keras with another backend than TensorFlow cannot export."""
    if _installed("keras") is None:
        return
    chosen, where = os.environ.get("KERAS_BACKEND", ""), "KERAS_BACKEND"
    if not chosen:
        file = Path(os.environ.get("KERAS_HOME", home_folder() / ".keras")) / "keras.json"
        try:
            said: Any = json.loads(file.read_text())
            chosen, where = str(said.get("backend", "")), str(file)
        except (OSError, ValueError, AttributeError, RecursionError):
            return
    if chosen not in ("", "tensorflow"):
        yield Check(
            job="Keras models",
            status="broken",
            found=f"{where} chooses the backend {chosen}: dsconvert needs tensorflow",
            fix="export KERAS_BACKEND=tensorflow",
        )


def _adb() -> Iterator[Check]:
    """Phones: adb, and a program to run there."""
    job = "profile on Android phones by adb"
    try:
        path = adb_shell.adb_path()
        phones = adb_shell.listed()
    except InputError as error:
        yield Check(job=job, status="missing", found=error.words.message, fix=error.words.hint)
        return
    usable = [one for one in phones if one.usable]
    others = [one for one in phones if not one.usable]
    place = binary_place("*")
    here = sorted(one.parent.name for one in place.parents[1].glob(f"*/{NAME}"))
    yield Check(
        job=job,
        status="ok" if here else "missing",
        found=f"{path}, {len(usable)} usable phone{'' if len(usable) == 1 else 's'}, {NAME} for "
        + (", ".join(here) or "none"),
        fix=""
        if here
        else f"Copy {NAME} for your phone to {binary_place('arm64-v8a')}; "
        "dsconvert profile --device adb says where one is.",
    )
    for one in others:
        yield Check(
            job=job, status="broken", found=f"{one.serial} is {one.trouble}", fix=one.remedy
        )


def _settings() -> Iterator[Check]:
    path = config_path()
    try:
        names = known().devices
    except InputError as error:
        yield Check(
            job="named devices", status="broken", found=error.words.message, fix=error.words.hint
        )
        return
    if path.is_file():
        yield Check(
            job="named devices", status="ok", found=f"{path}: {', '.join(names) or 'no names'}"
        )


def _cache() -> Check:
    folder = cache_folder()
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    fine = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return Check(
        job="cache of measured costs",
        status="ok" if fine else "doubtful",
        found=str(folder)
        if fine
        else f"{nearest} cannot be written to: plans start anew each time",
        fix="" if fine else "export DSCONVERT_CACHE=FOLDER",
    )


def _machine() -> Check:
    """Tell whether timings taken here would mean something."""
    said: dict[str, Any] = machine.describe()
    info = DeviceInfo(name="host", **said)
    now = MachineState(**machine.state())  # type: ignore[arg-type]
    troubles = doubts(info, now, now, 1)
    return Check(
        job="profile on this machine",
        status="doubtful" if troubles else "ok",
        found="; ".join([f"{info.cpu}, {info.cores} cores", *troubles]),
        fix=_quieter(troubles, now),
    )


def _quieter(troubles: Sequence[str], now: MachineState) -> str:
    """Return what makes timings steadier."""
    steps = []
    if any("governor" in trouble for trouble in troubles):
        steps.append("sudo cpupower frequency-set -g performance")
    if any("busy" in trouble for trouble in troubles):
        steps.append("end other programs, or wait until the load has gone")
    if now.throttled:
        steps.append("let the processor cool down, or give it a better supply")
    return "; ".join(steps)
