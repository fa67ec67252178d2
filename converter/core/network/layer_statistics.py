"""Looking at the layers of the untouched network, in one pass over its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent

from ..fitting.moments import Statistics
from ..stages import Site, Stages
from .fit_state import FitSettings
from .stage_runner import StageRunner, room_for


def observe_network(
    stages: Stages,
    inputs: Sequence[Array],
    settings: FitSettings,
    visit: Callable[[Site, Sequence[Statistics]], None],
    progress: Progress = silent,
) -> None:
    """Show the moments of each convolution of the untouched network, in its order.

    Args:
        stages: The network; its "conv" sites are shown, a shared layer once.
        inputs: One array per model input, (n, ...).
        settings: See `FitSettings`.
        visit: Called with each site and its moments.
        progress: Told of each stage.
    """
    with room_for(stages, settings) as store:
        runner = StageRunner(stages, inputs, 0, settings, store)
        with progress("Looking at layers", len(stages.sites)) as advance:
            for index, site in enumerate(stages.sites):
                if site is not None and site.role == "conv":
                    runner.gather(site, [runner.clean])
                    if site.call + 1 == site.calls:
                        moments = runner.clean.moments.pop(site.name)
                        visit(site, [part.statistics() for part in moments])
                runner.clean.live = runner.after(index, runner.clean)
                advance()
