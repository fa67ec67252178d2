from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import next_command, options, terminal

if TYPE_CHECKING:
    from dsconvert.workflows.results.listed import DeviceList


@click.command()
@click.option("--timeout", type=options.Finite(0.1, 86400), default=20.0, show_default=True,
              metavar="SECONDS", help="For each device to answer.")  # fmt: skip
@options.common
@terminal.speaks(next_command.after_devices)
def devices(timeout: float, seed: int) -> DeviceList:
    """List what profile can measure on: this machine, boards, phones.

    Also listed: the NPUs that it can estimate.

    \b
    Boards and phones get names in devices.toml, in the platform's folder for
    settings (~/.config/dsconvert on Linux, or $DSCONVERT_DEVICES):
      [boards.kitchen]
      host = "192.168.1.20"
      user = "pi"
      [phones.pixel]
      serial = "R5CR1234567"
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.workflows.devices import devices as run

    del seed
    return run(timeout)
