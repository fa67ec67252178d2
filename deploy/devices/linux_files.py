"""What a Linux machine says of itself, read from afar by a shell alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..runner import machine
from .device import DeviceInfo, MachineState

_MARK = "=== "
_FILES = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/loadavg",
    "/proc/device-tree/model",
    "/etc/os-release",
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor",
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq",
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
    "/sys/class/thermal/thermal_zone[0-9]*/temp",
    "/sys/class/hwmon/hwmon[0-9]*/temp[0-9]*_input",
    "/sys/devices/platform/soc*/*firmware*/get_throttled",
)
ASK = f"""echo "$(uname -m)"; echo "$(uname -sr)"; echo "$(getconf _NPROCESSORS_ONLN || nproc)"
for file in {" ".join(_FILES)}; do
    [ -r "$file" ] && echo "{_MARK}$file" && cat "$file" 2>/dev/null && echo
done; true"""
"""What its shell is to read; its answer is for the functions here."""


def describe(answer: str, name: str, runtimes: dict[str, str]) -> DeviceInfo:
    """Return what the machine is that gave this answer."""
    architecture, kernel, cores, files = _read(answer)
    with tempfile.TemporaryDirectory() as folder:
        root = _laid_out(files, Path(folder))
        said: dict[str, Any] = machine.describe(root)
    system = said["system"].partition(", ")  # "NAME, KERNEL"; the kernel is that of this machine
    known = bool(system[1])
    return DeviceInfo(
        name=name,
        cpu=said["cpu"] if "/proc/cpuinfo" in files else architecture,
        architecture=architecture,
        cores=cores,
        memory_mib=said["memory_mib"],
        system=f"{system[0]}, {kernel}" if known else kernel,
        runtimes=runtimes,
        emulated="QEMU TCG CPU" in files.get("/proc/cpuinfo", ""),
    )


def state(answer: str, cpus: Sequence[int]) -> MachineState:
    """Tell how it was doing when it answered."""
    _, _, cores, files = _read(answer)
    with tempfile.TemporaryDirectory() as folder:
        root = _laid_out(files, Path(folder))
        said: dict[str, Any] = machine.state(list(cpus) or list(range(cores)), root)
    load = files.get("/proc/loadavg", "").split()
    return msgspec.convert({**said, "load": float(load[0]) if load else None}, MachineState)


def _read(answer: str) -> tuple[str, str, int, dict[str, str]]:
    """Architecture, kernel, number of cores and contents of files."""
    head, *parts = answer.split(f"\n{_MARK}")
    lines = [*head.strip().splitlines()[-3:], "", "", ""]  # a login script may have printed before
    files = {}
    for part in parts:
        path, _, content = part.partition("\n")
        files[path] = content
    return lines[0], lines[1], int(lines[2]) if lines[2].isdigit() else 1, files


def _laid_out(files: dict[str, str], root: Path) -> Path:
    for path, content in files.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    return root
