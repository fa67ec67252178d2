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
@options.calibration_samples(500)
@options.memory
@options.dequantize
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
    dequantize: bool,
    trust: bool,
    custom_objects: str | None,
    input_size: tuple[str, ...],
    **prepare: Any,
) -> InspectedModel:
    """Show each convolution of MODEL and what pairs would save.

    With --calibration also what they would lose. A layer that is left alone has a reason.

    \b
      dsconvert inspect model.h5
      dsconvert inspect model.h5 --calibration images.npz --scale 1/255
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.workflows.inspect import inspect as run

    return run(
        options.opened_with(model, trust, custom_objects, dequantize, input_size=input_size),
        calibration=calibration,
        samples=samples,
        preprocessing=options.as_preprocessing(**prepare),
        memory=memory,
        seed=seed,
        progress=terminal.progress,
    )
