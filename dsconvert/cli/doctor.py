from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import next_command, options, terminal

if TYPE_CHECKING:
    from dsconvert.workflows.results.listed import CheckedSetup


@click.command()
@options.common
@terminal.speaks(next_command.after_doctor)
def doctor(seed: int) -> CheckedSetup:
    """Say what is missing for which job, and how to install it.

    Exit code 0 if dsconvert can work with Keras or ONNX models, 1 if not.
    """
    from dsconvert.workflows.devices import doctor as run

    del seed
    return run()
