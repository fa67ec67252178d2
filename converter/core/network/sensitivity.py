"""What rewriting one layer alone does to the network: the output error that a plan adds up.

One pass over the stages of the untouched network. At each convolution its moments are gathered
once, every choice is fitted to them, and the held-out images go through the rest of the network
with that one layer changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from dsconvert.base import fidelity
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent

from ..fitting.block_style import BlockStyle, SiteData
from ..fitting.cost import conv_macs
from ..fitting.fit import FitOptions
from ..fitting.styles import block_style
from ..fitting.threads import one_blas_thread, processors
from ..stages import Site, Stages, Weights
from ..types import Choice, Effect, Factorization, Size
from .between_widths import between_others, interpolated, takes_long
from .fit_network import placed
from .fit_state import FitRun, FitSettings
from .stage_runner import StageRunner, room_for

QUICK = FitOptions(
    sweeps=10,
    sweep_features=20_000,
    fewest_sweeps=4,
    tolerance=3e-4,
    steps=60,
    work=2e10,
    fewest_steps=8,
    starts=1,
    exact_end=False,
)
"""Enough to tell choices apart; the rewrite itself fits longer."""


Effects = dict[tuple[str, Choice], Effect]


def measure_effects(
    stages: Stages,
    inputs: Sequence[Array],
    held_out: int,
    choices: Mapping[str, Sequence[Choice]],
    settings: FitSettings,
    *,
    known: Mapping[tuple[str, Choice], Effect] | None = None,
    record: Callable[[str, Choice, Effect], None] = lambda name, choice, effect: None,
    progress: Progress = silent,
) -> Effects:
    """Try each choice for each layer.

    Args:
        stages: The network; its "conv" sites are the layers.
        inputs: One array per model input, (n, ...).
        held_out: How many of the last images no fit may see; the output error is measured on them.
        choices: What to try, by name; with their order named.
        settings: See `FitSettings`; its `fit` is replaced by a quicker one.
        known: Effects that need not be measured again.
        record: Told of each effect as soon as it is known, so that a run can be resumed.
        progress: Told of each stage.

    Returns:
        The effect of each (name, choice), those known included; where it takes long to try them,
        those of some sizes lie between the effects of others, see `between_widths`. What mixes all
        channels at once, as pointwise first does, has none in a layer so wide that its moments do
        not fit into the memory together.
    """
    effects: Effects = dict(known or {})
    sites = stages.sites
    pass_macs = held_out * float(
        sum(conv_macs(site.spec) or 0 for site in sites if site is not None)
    )
    slow = {site.name for site in sites if site is not None and takes_long(site.spec, pass_macs)}
    between = {name: between_others(options) for name, options in choices.items() if name in slow}
    wanted = {
        name: [
            choice
            for choice in options
            if (name, choice) not in effects and choice not in between.get(name, ())
        ]
        for name, options in choices.items()
    }
    last = max(
        (i for i, site in enumerate(sites) if site is not None and wanted.get(site.name)),
        default=-1,
    )
    if last >= 0:
        with room_for(stages, settings) as store:
            runner = StageRunner(stages, inputs, held_out, settings, store)
            trial = _Trial(runner)
            with progress("Trying choices", last + 1) as advance:
                for index, site in enumerate(sites[: last + 1]):
                    if site is not None and wanted.get(site.name):
                        for choice, effect in trial.run(index, site, wanted[site.name]):
                            effects[site.name, choice] = effect
                            record(site.name, choice, effect)
                    if index < last:
                        runner.clean.live = runner.after(index, runner.clean)
                    advance()
    for name, places in between.items():
        for choice, (below, above) in places.items():
            if (name, choice) not in effects and {(name, below), (name, above)} <= set(effects):
                ends = effects[name, below], effects[name, above]
                effects[name, choice] = interpolated(choice, below, above, *ends)
    return effects


def input_sizes(
    stages: Stages, inputs: Sequence[Array], settings: FitSettings
) -> dict[str, tuple[Size, ...]]:
    """(H, W) of what each convolution reads, for each of its calls, at the data's size."""
    sizes: dict[str, tuple[Size, ...]] = {}
    with room_for(stages, settings) as store:
        runner = StageRunner(stages, [array[:1] for array in inputs], 0, settings, store)
        for index, site in enumerate(stages.sites):
            if site is not None and site.role == "conv":
                shape = runner.clean.live[site.reads].shape
                height, width = shape[-2:] if site.channels_first else shape[-3:-1]
                sizes[site.name] = (*sizes.get(site.name, ()), (height, width))
            runner.clean.live = runner.after(index, runner.clean)
    return sizes


class _Trial:
    """Changes one layer at a time and lets the held-out images see it."""

    def __init__(self, runner: StageRunner) -> None:
        self.runner = runner
        self.expected: list[Array] | None = None

    def run(
        self, index: int, site: Site, choices: Sequence[Choice]
    ) -> Iterator[tuple[Choice, Effect]]:
        runner = self.runner
        fit_run = FitRun(runner.clean.strategy, runner.clean.live, moments=runner.clean.moments)
        runner.gather(site, [fit_run])
        if site.call + 1 < site.calls:
            return  # a shared layer is judged by its last call
        data = runner.site_data(site, fit_run, fit_run.moments.pop(site.name))
        if self.expected is None:
            live: Mapping[int, Array] = runner.unseen(runner.clean)
            for stage in range(index, len(runner.stages.sites)):
                live = runner.through(stage, live, None)  # learns how many images go at once
            self.expected = self._outputs(index, None)
        for choice, factors in self._fitted(data, choices):
            outputs = self._outputs(index, placed(site, factors, site.norm))
            yield (
                choice,
                Effect(
                    data_error=factors.data_error or 0.0,
                    output_error=fidelity.output_error(self.expected, outputs),
                ),
            )

    def _fitted(
        self, data: SiteData, choices: Sequence[Choice]
    ) -> Iterator[tuple[Choice, Factorization]]:
        """Fit each choice by itself, several at once, and yield each as soon as it is there."""
        possible = [
            (choice, style)
            for choice in choices
            for style in [block_style(choice.block)]
            if len(data.stats) == 1 or style.fits_in_parts(choice)
        ]
        at_once = min(processors(), self.runner.fits_at_once(data.site))
        under_way: dict[Future[Factorization], Choice] = {}
        with one_blas_thread(), ThreadPoolExecutor(at_once) as pool:
            try:
                for choice, style in possible:
                    under_way[pool.submit(_factors, style, data, choice)] = choice
                    if len(under_way) > at_once:  # what is finished takes memory, too
                        yield from _finished(under_way)
                while under_way:
                    yield from _finished(under_way)
            finally:
                for fit in under_way:
                    fit.cancel()

    def _outputs(self, index: int, weights: Weights | None) -> list[Array]:
        """Return the network's outputs for the held-out images, with other weights at one stage."""
        stages = self.runner.stages
        last = len(stages.sites) - 1
        live = self.runner.through(index, self.runner.unseen(self.runner.clean), weights)
        if index < last:
            live = self.runner.through(index + 1, live, None, last)
        return [live[value] for value in stages.outputs]


def _finished(
    under_way: dict[Future[Factorization], Choice],
) -> Iterator[tuple[Choice, Factorization]]:
    """Wait for fits and take those that are finished off the list."""
    done = wait(under_way, return_when=FIRST_COMPLETED).done
    for fit in [fit for fit in under_way if fit in done]:
        yield under_way.pop(fit), fit.result()


def _factors(style: BlockStyle, data: SiteData, choice: Choice) -> Factorization:
    return style.fit(data, choice, QUICK).factors
