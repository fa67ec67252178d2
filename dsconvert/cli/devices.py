from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import click

from . import options, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.deploy.devices.listing import ListedDevice, Listing


def show(console: Console, result: Listing) -> None:
    """A line per device that answered, then the others with their reasons, then estimates."""
    from rich.table import Table

    table = Table("device", "processor", "system", "runtimes", box=None, pad_edge=False)
    for title in ("cores", "memory", "governor", "MHz", "°C"):
        table.add_column(title, justify="right")
    for one in result.devices:
        if one.info is not None:
            table.add_row(*_cells(one))
    console.print(table)
    for one in result.devices:
        if one.reason and one.kind != "npu":
            name = f"{one.name} ({one.address})" if one.address else one.name
            console.print(f"\n{name} cannot be used: {one.reason}")
            if one.hint:
                console.print(f"  {one.hint}")
    console.print()
    estimated = [one for one in result.devices if one.kind in ("npu", "mcu")]
    for said, group in groupby(
        estimated, key=lambda one: one.method or f"unavailable: {one.reason}"
    ):
        console.print(f"by estimate: {', '.join(one.name for one in group)} ({said})")
    for note in result.notes:
        console.print(f"Note: {note}")


def _said(one: ListedDevice) -> str:
    return one.method or f"unavailable: {one.reason}. {one.hint}"


def _cells(one: ListedDevice) -> list[str]:
    """What a device that answered says of itself."""
    info, state = one.info, one.state
    assert info is not None, "only such devices are asked for"
    name = f"{one.name} ({one.address})" if one.address else one.name
    runtimes = ", ".join(f"{runtime} {version}" for runtime, version in info.runtimes.items())
    memory = "–" if info.memory_mib is None else f"{info.memory_mib / 1024:.1f} GiB"
    governor = (state.governor if state else None) or "–"
    mhz = state.frequency_mhz if state else None
    degrees = state.temperature_c if state else None
    return [
        name,
        info.cpu + (" (emulated)" if info.emulated else ""),
        f"{info.system}, {info.architecture}",
        runtimes or "none",
        str(info.cores),
        memory,
        governor,
        "–" if mhz is None else f"{mhz:.0f}",
        "–" if degrees is None else f"{degrees:.0f}" + (" throttled" if _slow(one) else ""),
    ]


def _slow(one: ListedDevice) -> bool:
    return bool(one.state and one.state.throttled)


@click.command()
@click.option("--timeout", type=click.FloatRange(min=0.1), default=20.0, show_default=True,
              metavar="SECONDS", help="For each device to answer.")  # fmt: skip
@options.common
@terminal.speaks(show)
def devices(timeout: float, seed: int) -> Listing:
    """List what profile can measure on: this machine, phones, named boards, and estimates.

    \b
    Boards and phones get names in devices.toml, in the platform's folder for settings
    (~/.config/dsconvert on Linux, or $DSCONVERT_DEVICES):
      [boards.kitchen]
      host = "192.168.1.20"
      user = "pi"
      [phones.pixel]
      serial = "R5CR1234567"
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.deploy.devices.listing import list_devices

    del seed
    return list_devices(timeout)
