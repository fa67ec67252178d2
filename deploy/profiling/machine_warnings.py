"""What about a device makes its timings doubtful."""

from __future__ import annotations

from ..devices.records import DeviceInfo, MachineState

_STEADY = ("performance", "schedutil", "userspace")
"""Governors that hold the frequency, or raise it at once where there is work."""
_HOTTER_C = 10.0
_SLOWER = 0.9


def doubts(
    info: DeviceInfo, before: MachineState, after: MachineState, busy: int, cpus: int = 0
) -> list[str]:
    """Return what a reader of the figures should know, a phrase each.

    Args:
        info: The device.
        before: How it was doing before the measurement.
        after: And after; the measurement itself counts as ``busy`` of its load.
        busy: Threads that the measurement kept busy.
        cpus: The number of cores that these were kept on; 0 for all.
    """
    found = []
    if before.load is not None and before.load > info.cores:
        found.append(f"the machine was busy: load {before.load:.1f} on {info.cores} cores")
    elif after.load is not None and after.load > info.cores + busy:
        found.append(f"the machine became busy: load {after.load:.1f} on {info.cores} cores")
    room = cpus or info.cores
    if busy > room:
        found.append(f"{busy} threads on {room} core{'s' if room > 1 else ''}")
    governors = (before.governor or "").split(", ")
    slow = [name for name in governors if name and name not in _STEADY]
    if slow:
        found.append(f"the governor {', '.join(slow)} changes the frequency as it likes")
    if before.throttled or after.throttled:
        when = "before" if before.throttled else "while"
        found.append(f"the processor slowed itself down {when} it was measured")
    if before.temperature_c is not None and after.temperature_c is not None:
        cool, warm = before.temperature_c, after.temperature_c
        found += [f"it warmed from {cool:.0f} to {warm:.0f} °C"] * (warm - cool > _HOTTER_C)
    found += _slower(before, after)
    return found


def _slower(before: MachineState, after: MachineState) -> list[str]:
    """Return a busy core whose frequency is far below what it could be, or fell."""
    now, most = after.frequency_mhz, after.max_frequency_mhz or before.max_frequency_mhz
    if now is None or after.governor == "userspace":
        return []
    if before.frequency_mhz is not None and now < _SLOWER * before.frequency_mhz:
        return [f"its frequency fell from {before.frequency_mhz:.0f} to {now:.0f} MHz"]
    if after.governor == "performance" and most is not None and now < _SLOWER * most:
        return [f"it ran at {now:.0f} MHz of {most:.0f}"]
    return []
