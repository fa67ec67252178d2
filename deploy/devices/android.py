"""What an Android phone says of itself, and how it is doing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .adb_shell import AdbPhone
from .device import DeviceInfo, MachineState

_PROPERTIES = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.product.cpu.abi",
    "ro.product.cpu.abilist",
    "ro.build.version.release",
    "ro.soc.manufacturer",
    "ro.soc.model",
    "ro.board.platform",
    "ro.kernel.qemu",
    "ro.boot.qemu",
)
_ASK = "\n".join(
    (
        *(f'echo "{name}=$(getprop {name})"' for name in _PROPERTIES),
        'echo "uname=$(uname -m)"',
        'echo "cores=$(cat /sys/devices/system/cpu/possible 2>/dev/null)"',
        'echo "memory=$(grep MemTotal /proc/meminfo 2>/dev/null)"',
    )
)
_CPUFREQ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"
_STATE = f"""\
for file in {_CPUFREQ}/scaling_governor {_CPUFREQ}/scaling_cur_freq {_CPUFREQ}/cpuinfo_max_freq
do echo "$file=$(cat $file 2>/dev/null)"; done
for zone in /sys/class/thermal/thermal_zone*
do echo "zone:$(cat $zone/type 2>/dev/null)=$(cat $zone/temp 2>/dev/null)"; done
echo "loadavg=$(cat /proc/loadavg 2>/dev/null)"
dumpsys thermalservice 2>/dev/null | grep -E 'Thermal Status|mType=0'
dumpsys battery 2>/dev/null | grep -E '^ *temperature'
true"""
_CORE_ZONE = re.compile(r"cpu|tsens|apss|big|little|mid|soc[-_]?thermal|^AP$", re.IGNORECASE)
_PLAUSIBLE = (5.0, 150.0)
"""Degrees Celsius; zones of phones also carry voltages, currents and states of charge."""


def properties(phone: AdbPhone) -> dict[str, str]:
    """Its properties, and "uname", "cores" and "memory" as its kernel says them.

    Raises:
        InputError: If the phone does not answer.
    """
    pairs = (line.partition("=") for line in phone.script(_ASK).text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def abis(said: dict[str, str]) -> list[str]:
    """Android's names of the architectures whose programs it runs, the native one first."""
    names = [said.get("ro.product.cpu.abi", ""), *said.get("ro.product.cpu.abilist", "").split(",")]
    return list(dict.fromkeys(name for name in names if name))


def describe(name: str, said: dict[str, str], runtimes: dict[str, str]) -> DeviceInfo:
    """Return what the properties make of a phone.

    Args:
        name: What `--device` calls it.
        said: Its `properties`.
        runtimes: Version of each runtime it will be given.
    """
    chip = " ".join(filter(None, (said.get(f"ro.soc.{part}", "") for part in _SOC)))
    chip = chip or said.get("ro.board.platform", "")
    model = " ".join(filter(None, (said.get(f"ro.product.{part}", "") for part in _PRODUCT)))
    memory = re.search(r"(\d+) kB", said.get("memory", ""))
    return DeviceInfo(
        name=name,
        cpu=f"{model} ({chip})" if chip else model or "unknown",
        architecture=said.get("uname", ""),
        cores=_count(said.get("cores", "")),
        memory_mib=int(memory[1]) / 1024 if memory else None,
        system=f"Android {said.get('ro.build.version.release', '?')}",
        runtimes=runtimes,
        emulated="1" in (said.get("ro.kernel.qemu"), said.get("ro.boot.qemu")),
    )


_SOC = ("manufacturer", "model")
_PRODUCT = ("manufacturer", "model")


def state(phone: AdbPhone, cpus: Sequence[int]) -> MachineState:
    """Tell how it is doing.

    The temperature is of the hottest sensor of the processor; without one, of the battery.

    Args:
        phone: The phone.
        cpus: The cores in use; empty for all.

    Raises:
        InputError: If the phone does not answer.
    """
    return read_state(phone.script(_STATE).text, cpus)


def read_state(text: str, cpus: Sequence[int]) -> MachineState:
    """Return the state in what the phone printed; see `state`."""
    governors, now, reach = (_of_cores(text, name, cpus) for name in _CPUFREQ_FILES)
    load = re.search(r"^loadavg=([\d.]+)", text, re.MULTILINE)
    status = re.search(r"Thermal Status: (\d+)", text)
    return MachineState(
        load=float(load[1]) if load else None,
        governor=", ".join(sorted({*governors})) or None,
        frequency_mhz=min((int(khz) / 1e3 for khz in now), default=None),
        max_frequency_mhz=max((int(khz) / 1e3 for khz in reach), default=None),
        temperature_c=_temperature(text),
        throttled=int(status[1]) > 0 if status else None,
    )


_CPUFREQ_FILES = ("scaling_governor", "scaling_cur_freq", "cpuinfo_max_freq")


def _of_cores(text: str, name: str, cpus: Sequence[int]) -> list[str]:
    """Return the content of this file of the cores in use, where it could be read."""
    found = re.findall(rf"/cpu(\d+)/cpufreq/{name}=(\S+)", text)
    return [value for core, value in found if not cpus or int(core) in cpus]


def _temperature(text: str) -> float | None:
    zones = re.findall(r"^zone:(.*)=(-?\d+)$", text, re.MULTILINE)
    # The kernel's unit is a thousandth of a degree; some vendors' zones give whole degrees.
    values = [(kind, float(value)) for kind, value in zones if _CORE_ZONE.search(kind)]
    cores = [value / 1e3 if value >= 1000 else value for _, value in values]
    service = [float(value) for value in re.findall(r"mValue=(-?[\d.]+), mType=0", text)]
    tenths = re.findall(r"^ *temperature: (\d+)", text, re.MULTILINE)
    battery = [int(value) / 10 for value in tenths]
    for sensors in (cores, service, battery):
        hottest = max(_plausible(sensors), default=None)
        if hottest is not None:
            return hottest
    return None


def _plausible(values: Sequence[float]) -> Iterator[float]:
    return (value for value in values if _PLAUSIBLE[0] < value < _PLAUSIBLE[1])


def _count(ranges: str) -> int:
    """Tell how many numbers "0-3,6" names; 0 if it names none."""
    count = 0
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        if first.isdigit():
            count += int(last or first) - int(first) + 1
    return count
