"""What a machine says of itself, and how it is doing: Linux's files, where they are."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Union

Said = Union[str, float, bool, None]  # evaluated by Python 3.9
_ROOT = Path("/")
_MIB = 2**20
_PLAUSIBLE = (-40.0, 150.0)
"""Degrees Celsius; a sensor that says otherwise is not connected."""
_THROTTLED_NOW = 0xF
"""Of a Raspberry Pi's word: too little voltage, capped, throttled, soft limit of temperature."""
_ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd49": "Neoverse-N2",
    "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3",
    "0xd4f": "Neoverse-V2",
    "0xd80": "Cortex-A520",
    "0xd81": "Cortex-A720",
    "0xd82": "Cortex-X4",
    "0xc07": "Cortex-A7",
    "0xc08": "Cortex-A8",
    "0xc09": "Cortex-A9",
    "0xc0d": "Cortex-A17",
    "0xc0f": "Cortex-A15",
}


def cpu_name(root: Path = _ROOT) -> str:
    """Return the processor's name as its maker calls it, or what the platform knows.

    Arm's Linux names no processor, but the board and the kind of each core.
    """
    lines = (_text(root / "proc/cpuinfo") or "").splitlines()
    fields = [[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]
    for key, value in fields:
        if key == "model name":
            return value
    parts = {_ARM_PARTS.get(value, value): None for key, value in fields if key == "CPU part"}
    board = (_text(root / "proc/device-tree/model") or "").strip("\0 \n")
    cores = " + ".join(parts)
    if board:
        return f"{board} ({cores})" if cores else board
    return cores or platform.processor() or platform.machine()


def describe(root: Path = _ROOT) -> dict[str, Said]:
    """Return the fields of a `DeviceInfo` that its operating system knows.

    Returns:
        "cpu", "architecture", "cores", "memory_mib" and "system".
    """
    total = _field(root / "proc/meminfo", "MemTotal")
    release = (_text(root / "etc/os-release") or "").splitlines()
    names = [line.split("=", 1)[1].strip('"') for line in release if line.startswith("PRETTY_NAME")]
    kernel = f"{platform.system()} {platform.release()}"
    return {
        "cpu": cpu_name(root),
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_mib": None if total is None else total / _MIB,
        "system": f"{names[0]}, {kernel}" if names else kernel,
    }


def state(cpus: Sequence[int] = (), root: Path = _ROOT) -> dict[str, Said]:
    """Tell how the machine is doing now: the fields of a `MachineState`; None is "it does not say".

    Args:
        cpus: The cores in use, by number; empty for all that this process may use.
        root: Where the file system starts.
    """
    used = list(cpus) or usable_cpus() or list(range(os.cpu_count() or 1))
    folders = [root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq" for cpu in used]
    governors = {_text(folder / "scaling_governor") for folder in folders} - {None}
    now = [_number(folder / "scaling_cur_freq") for folder in folders]
    reach = [_number(folder / "cpuinfo_max_freq") for folder in folders]
    current = [khz / 1e3 for khz in now if khz] or _x86_frequencies(used, root)
    return {
        "load": _load(),
        "governor": ", ".join(sorted(str(name).strip() for name in governors)) or None,
        "frequency_mhz": min(current, default=None),
        "max_frequency_mhz": max((khz / 1e3 for khz in reach if khz), default=None),
        "temperature_c": max(_temperatures(root), default=None),
        "throttled": _throttled(root),
    }


def usable_cpus() -> list[int]:
    """The cores that this process may run on, by number; empty where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


def peak_bytes(root: Path = _ROOT) -> int | None:
    """Return the peak resident memory of this process; None where the system does not say.

    On Linux not from ``getrusage``: its maximum is inherited through exec, so that it would report
    the memory of the process that started this one.
    """
    if sys.platform == "darwin":
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes
    return _field(root / "proc/self/status", "VmHWM")


def resident_bytes(root: Path = _ROOT) -> int | None:
    """Return the resident memory of this process now; None where there is no /proc."""
    return _field(root / "proc/self/status", "VmRSS")


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none, Android hides it
        return None


def _x86_frequencies(cpus: Sequence[int], root: Path) -> list[float]:
    """Return what /proc/cpuinfo says in MHz, for kernels and virtual machines without cpufreq."""
    lines = (_text(root / "proc/cpuinfo") or "").splitlines()
    values = [line.split(":", 1)[1] for line in lines if line.startswith("cpu MHz")]
    return [float(values[cpu]) for cpu in cpus if cpu < len(values)]


def _temperatures(root: Path) -> Iterator[float]:
    """Degrees Celsius of every sensor that says something plausible."""
    zones = (root / "sys/class/thermal").glob("thermal_zone*/temp")
    chips = (root / "sys/class/hwmon").glob("hwmon*/temp*_input")
    for sensor in [*zones, *chips]:
        thousandths = _number(sensor)
        if thousandths is not None and _PLAUSIBLE[0] < thousandths / 1e3 < _PLAUSIBLE[1]:
            yield thousandths / 1e3


def _throttled(root: Path) -> bool | None:
    """Tell whether the firmware or the kernel caps the processor's frequency now."""
    said = []
    for word in (root / "sys/devices/platform").glob("soc*/*firmware*/get_throttled"):
        text = _text(word)
        if text:
            said.append(bool(int(text.strip(), 16) & _THROTTLED_NOW))
    for device in (root / "sys/class/thermal").glob("cooling_device*"):
        kind = (_text(device / "type") or "").strip().lower()
        if kind == "processor" or "cpufreq" in kind:
            said.append((_number(device / "cur_state") or 0) > 0)
    return any(said) if said else None


def _field(path: Path, name: str) -> int | None:
    """Return a line like "VmHWM:  12345 kB" in bytes."""
    for line in (_text(path) or "").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return None


def _number(path: Path) -> float | None:
    text = _text(path)
    try:
        return None if text is None else float(text)
    except ValueError:  # "<unknown>"
        return None


def _text(path: Path) -> str | None:
    """Return the content; None where it is missing, hidden, or the sensor does not answer."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
