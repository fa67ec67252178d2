from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.deploy.profiling.doctor import Diagnosis

_MARKS = {"ok": "ok", "missing": "missing", "broken": "BROKEN", "doubtful": "doubtful"}


def show(console: Console, result: Diagnosis) -> None:
    """A line per check, with the command that helps beneath those that need one."""
    width = max(len(mark) for mark in _MARKS.values())
    for check in result.checks:
        console.print(f"{_MARKS[check.status]:{width}}  {check.job}: {check.found}")
        if check.fix:
            console.print(f"{'':{width}}  → {check.fix}")
    console.print(
        "\nThe basics work."
        if result.passed
        else "\nThe basics do not work: dsconvert needs its own packages, and those for Keras or "
        "ONNX models."
    )


@click.command()
@options.common
@terminal.speaks(show)
def doctor(seed: int) -> Diagnosis:
    """Say what is missing for which job, and the command that brings it.

    Exit code 0 if dsconvert can work with Keras or ONNX models, 1 if not.
    """
    from dsconvert.deploy.profiling.doctor import diagnose

    del seed
    return diagnose()
