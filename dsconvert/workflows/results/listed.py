"""What there is to measure on, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from dsconvert.base.tables import Block, Shown, Table
from dsconvert.deploy.devices.listing import Listing
from dsconvert.deploy.profiling.doctor import Diagnosis

if TYPE_CHECKING:
    from dsconvert.deploy.devices.listing import ListedDevice

_MARKS = {"ok": "ok", "missing": "missing", "broken": "BROKEN", "doubtful": "doubtful"}


class DeviceList(Shown, Listing, frozen=True, kw_only=True):
    """The devices that files can be measured on."""

    def blocks(self) -> Iterator[Block]:
        """Yield a line per device that answered, the others with their reasons, then estimates."""
        numbers = ("cores", "memory", "governor", "MHz", "°C")
        table = Table(("device", "processor", "system", "runtimes"), numbers)
        for one in self.devices:
            if one.info is not None:
                table.add(*_cells(one))
        yield table
        for one in self.devices:
            if one.reason and one.kind != "npu":
                yield f"\n{_name(one)} cannot be used: {one.reason}"
                if one.hint:
                    yield f"  {one.hint}"
        yield ""
        estimated = [one for one in self.devices if one.kind in ("npu", "mcu")]
        for method, group in groupby(estimated, key=_method):
            yield f"by estimate: {', '.join(one.name for one in group)} ({method})"
        yield from (f"Note: {note}" for note in self.notes)


def _method(one: ListedDevice) -> str:
    return one.method or f"unavailable: {one.reason}"


def _name(one: ListedDevice) -> str:
    return f"{one.name} ({one.address})" if one.address else one.name


def _cells(one: ListedDevice) -> list[str]:
    """Return what a device that answered says of itself."""
    info, state = one.info, one.state
    assert info is not None, "only such devices are asked for"
    runtimes = ", ".join(f"{runtime} {version}" for runtime, version in info.runtimes.items())
    memory = "–" if info.memory_mib is None else f"{info.memory_mib / 1024:.1f} GiB"
    mhz = state.frequency_mhz if state else None
    degrees = state.temperature_c if state else None
    return [
        _name(one),
        info.cpu + (" (emulated)" if info.emulated else ""),
        f"{info.system}, {info.architecture}",
        runtimes or "none",
        str(info.cores),
        memory,
        (state.governor if state else None) or "–",
        "–" if mhz is None else f"{mhz:.0f}",
        "–" if degrees is None else f"{degrees:.0f}" + (" throttled" if _slow(one) else ""),
    ]


def _slow(one: ListedDevice) -> bool:
    return bool(one.state and one.state.throttled)


class CheckedSetup(Shown, Diagnosis, frozen=True, kw_only=True):
    """What is missing for which job."""

    def blocks(self) -> Iterator[Block]:
        """Yield a line per check, with the command that helps beneath those that need one."""
        width = max(len(mark) for mark in _MARKS.values())
        for check in self.checks:
            yield f"{_MARKS[check.status]:{width}}  {check.job}: {check.found}"
            if check.fix:
                yield f"{'':{width}}  → {check.fix}"
        yield (
            "\nThe basics work."
            if self.passed
            else "\nThe basics do not work: dsconvert needs its own packages, and those for Keras "
            "or ONNX models."
        )
