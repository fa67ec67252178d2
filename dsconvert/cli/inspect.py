from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import next_command, options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.inspected import InspectedModel


@click.command(epilog=terms.explained("MACs", "pair", "T", "block", "R", "stem", "fit"))
@click.argument("model", type=options.MODEL)
@click.option("--calibration", metavar="DATA", help="Images: also show errors of fitted pairs.")
@click.option("--samples", type=options.SAMPLES, default=500, show_default=True)
@click.option("--memory", type=options.Memory(), default="2GiB", show_default=True)
@options.input_size
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(next_command.after_inspect)
def inspect(
    model: Path,
    calibration: str | None,
    samples: int,
    memory: int,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    input_size: tuple[str, ...],
    **prepare: Any,
) -> InspectedModel:
    """Show each convolution of MODEL, what pairs would save and lose, or why it is left alone."""
    from dsconvert.workflows.inspect import inspect as run

    return run(
        options.opened_with(model, trust, custom_objects, input_size=input_size),
        calibration=calibration,
        samples=samples,
        preprocessing=options.as_preprocessing(**prepare),
        memory=memory,
        seed=seed,
        progress=terminal.progress,
    )
