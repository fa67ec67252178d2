"""Fit a whole network layer by layer, in one pass over its stages.

Several *lanes* run side by side: the clean network, and one per recipe, which feels its own
rewritten prefix. No recipe is good for every network (sequential inputs help ResNet8 and hurt VGG),
so images that no fit has seen decide: the lane whose outputs stay nearest to the original's wins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from . import fidelity
from .choose import best_fit, block_fit
from .fit import refit
from .gathering import channel_blocks, features_of, gather_moments, moment_bytes
from .lanes import Lane, Recipe, Settings
from .moments import Statistics
from .predictor import Array
from .progress import Progress, silent
from .staged import Norm, Site, Stages, Weights
from .store import Store
from .types import Choice, Factorization, Float

log = logging.getLogger(__name__)

HEAD_RIDGES = (0.03, 0.3, 3.0)
"""Strengths of the prior tried for the last dense layer: few images, many features."""


def fit_network(
    stages: Stages,
    inputs: Sequence[Array],
    held_out: int,
    choices: Mapping[str, Choice],
    recipes: Sequence[Recipe],
    settings: Settings,
    progress: Progress = silent,
) -> list[Lane]:
    """Fit all chosen convolutions by every recipe.

    Args:
        stages: The network.
        inputs: One array per model input, (n, ...).
        held_out: How many of the last images no fit may see; they judge the lanes.
        choices: What to make of each convolution, by name.
        recipes: One lane each.
        settings: See `Settings`.
        progress: Told of each stage.

    Returns:
        The lanes, best first: the one with the least harm to the outputs of the held-out images.
    """
    store = _store(stages, settings)
    try:
        return _Walk(stages, inputs, held_out, choices, recipes, settings, store).run(progress)
    finally:
        store.close()


class _Walk:
    def __init__(
        self,
        stages: Stages,
        inputs: Sequence[Array],
        held_out: int,
        choices: Mapping[str, Choice],
        recipes: Sequence[Recipe],
        settings: Settings,
        store: Store,
    ) -> None:
        self.stages, self.choices, self.settings, self.store = stages, choices, settings, store
        self.total = len(inputs[0])
        self.fitting = self.total - held_out
        self.rng = np.random.default_rng(settings.seed)
        values = dict(zip(stages.inputs, inputs, strict=True))
        self.clean = Lane(Recipe(), values)
        self.lanes = [Lane(recipe, values) for recipe in recipes]

    def run(self, progress: Progress) -> list[Lane]:
        sites = self.stages.sites
        with progress("Fitting layers", len(sites)) as advance:
            for index, site in enumerate(sites):
                if site is not None:
                    self._fit(index, site)
                self._advance(index)
                advance()
        for lane in self.lanes:
            lane.harm = self._harm(lane, self.stages.outputs)
            log.info("%s: harm %.4g on held-out images", lane.recipe, lane.harm)
        return sorted(self.lanes, key=lambda lane: lane.harm)

    def observe(
        self, visit: Callable[[Site, Sequence[Statistics]], None], progress: Progress
    ) -> None:
        sites = self.stages.sites
        with progress("Looking at layers", len(sites)) as advance:
            for index, site in enumerate(sites):
                if site is not None and site.role == "conv":
                    self._gather(site, [self.clean])
                    if site.call + 1 == site.calls:
                        moments = self.clean.moments.pop(site.name)
                        visit(site, [part.statistics() for part in moments])
                self._advance(index)
                advance()

    # Advancing: from the live values before a stage to those after it.

    def _advance(self, index: int) -> None:
        after = self._run_all(index, self.clean)
        for lane in self.lanes:
            # A lane that has changed nothing yet shares the clean activations.
            lane.live = self._run_all(index, lane) if lane.weights else after
        self.clean.live = after

    def _run_all(self, index: int, lane: Lane) -> dict[int, Array]:
        results: dict[int, Array] = {}
        keep = self.stages.live_after(index)
        passed = {value: lane.live[value] for value in keep if value in lane.live}
        for rows, made in self._stream(index, lane.live, self._weights(index, lane)):
            for value, array in made.items():
                if value not in results:
                    results[value] = self.store.empty((self.total, *array.shape[1:]))
                results[value][rows] = array
            self.store.settle()
        return passed | results

    def _stream(
        self, index: int, live: Mapping[int, Array], weights: Weights | None
    ) -> Iterator[tuple[slice, dict[int, Array]]]:
        """Run a stage batch by batch: rows, and what was made of them."""
        total = len(next(iter(live.values())))
        widest = max(map(_width, live.values()))
        fixed = self.stages.batch_size
        first = 0
        with self.stages.using(index, weights):
            while first < total:
                # What comes out may be wider than what goes in, so the first batch is small.
                size = fixed or _images_at_once(widest, limit=128 if first else 4)
                rows = slice(first, min(first + size, total))
                batch = {value: array[rows] for value, array in live.items()}
                if fixed:
                    batch = {value: _filled(array, fixed) for value, array in batch.items()}
                made = self.stages.run(index, batch)
                count = rows.stop - rows.start
                yield rows, {value: array[:count] for value, array in made.items()}
                widest = max(widest, *map(_width, made.values()), 1)
                first = rows.stop

    def _weights(self, index: int, lane: Lane) -> Weights | None:
        """What the stage's site has in this lane; a shared layer changes at its last call."""
        site = self.stages.sites[index]
        return lane.weights.get(site.name) if site is not None else None

    def _harm(self, lane: Lane, outputs: Sequence[int]) -> float:
        unseen = slice(self.fitting, None)
        return fidelity.harm(
            [self.clean.live[value][unseen] for value in outputs],
            [lane.live[value][unseen] for value in outputs],
        )

    # Fitting one site in every lane.

    def _fit(self, index: int, site: Site) -> None:
        lanes = [lane for lane in self.lanes if self._wanted(lane, site)]
        if not lanes:
            return
        self._gather(site, lanes)
        if site.call + 1 < site.calls:
            return
        fits: dict[int, Factorization] = {}  # lanes that share moments share the fit
        for lane in lanes:
            moments = lane.moments.pop(site.name)
            stats = [part.statistics() for part in moments]
            if site.role == "conv":
                if id(moments) not in fits:
                    fits[id(moments)] = self._best_fit(site, stats)
                self._rewrite(lane, site, fits[id(moments)], stats)
            elif site.role == "shortcut":
                best = refit(stats[0], site.kernel, self.settings.fit.ridge)
                bias, norm = _settle(site, best.bias, site.norm)
                lane.weights[site.name] = Weights(best.kernel, bias, norm)
                lane.refitted.append(site.name)
            else:
                self._refit_head(index, lane, site, stats[0])

    def _best_fit(self, site: Site, stats: Sequence[Statistics]) -> Factorization:
        choice, options = self.choices[site.name], self.settings.fit
        if len(stats) == 1:
            return best_fit(stats[0], site, choice, options)
        return block_fit(stats, self._blocks(site), site, choice, options)

    def _wanted(self, lane: Lane, site: Site) -> bool:
        if site.role == "conv":
            return site.name in self.choices
        if not lane.weights:
            return False  # nothing has drifted
        if len(self._blocks(site)) > 1:
            return False  # too wide to be solved for as a whole
        return self.settings.refit_head if site.role == "head" else lane.recipe.shortcuts

    def _rewrite(
        self, lane: Lane, site: Site, factors: Factorization, stats: Sequence[Statistics]
    ) -> None:
        norm = site.norm
        if norm is not None and lane.recipe.match_variance and len(stats) == 1:
            norm = _matched(norm, factors, stats[0])
        bias, norm = _settle(site, factors.bias, norm)
        lane.factors[site.name] = replace(factors, bias=bias)
        lane.weights[site.name] = Weights(factors.kernel(), bias, norm)

    def _gather(self, site: Site, lanes: Sequence[Lane]) -> None:
        def batches(width: int) -> list[slice]:
            size = _images_at_once(max(width, _width(self.clean.live[site.reads])))
            return [
                slice(first, min(first + size, self.fitting))
                for first in range(0, self.fitting, size)
            ]

        gather_moments(
            site,
            self.clean,
            lanes,
            blocks=self._blocks(site),
            batches=batches,
            images=self.fitting,
            patches=self.settings.patches,
            rng=self.rng,
        )

    def _blocks(self, site: Site) -> list[slice]:
        return channel_blocks(site, self.settings.memory // 2)

    def _refit_head(self, index: int, lane: Lane, site: Site, stats: Statistics) -> None:
        """Keep the refitted last layer only if the held-out images say so."""
        outputs = [value for value in self.stages.live_after(index) if value in self.stages.outputs]
        candidates: list[Weights | None] = [
            None,
            *(refit(stats, site.kernel, ridge) for ridge in HEAD_RIDGES),
        ]
        harms = [self._try(index, lane, weights, outputs) for weights in candidates]
        best = candidates[int(np.argmin(harms))]
        if best is not None:
            lane.weights[site.name] = best
            lane.refitted.append(site.name)

    def _try(
        self, index: int, lane: Lane, weights: Weights | None, outputs: Sequence[int]
    ) -> float:
        expected = self._unseen_outputs(index, self.clean, None, outputs)
        return fidelity.harm(expected, self._unseen_outputs(index, lane, weights, outputs))

    def _unseen_outputs(
        self, index: int, lane: Lane, weights: Weights | None, outputs: Sequence[int]
    ) -> list[Array]:
        """The outputs that the stage makes of the held-out images."""
        unseen = {value: array[self.fitting :] for value, array in lane.live.items()}
        parts = [
            {value: array[rows] for value, array in unseen.items()} | made
            for rows, made in self._stream(index, unseen, weights)
        ]
        return [np.concatenate([part[value] for part in parts]) for value in outputs]


_BATCH = 16 << 20
"""Values of one tensor that a batch may have: 64 MiB."""


def _width(array: Array) -> int:
    """Values per image."""
    return int(np.prod(array.shape[1:], dtype=np.int64))


def _images_at_once(width: int, limit: int = 128) -> int:
    return int(np.clip(_BATCH // max(width, 1), 1, limit))


def _filled(array: Array, size: int) -> Array:
    """A batch with its last image repeated up to the only size the model takes."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _store(stages: Stages, settings: Settings) -> Store:
    """Room for activations: what the largest layer's moments leave of the memory."""
    sizes = [moment_bytes(features_of(site)) for site in stages.sites if site is not None]
    moments = min(max(sizes, default=0), settings.memory // 2)
    return Store(settings.memory - moments)


def _settle(site: Site, bias: Float | None, norm: Norm | None) -> tuple[Float | None, Norm | None]:
    """Where the bias goes: to the BatchNorm, if the layer has none of its own and a norm follows.

    Returns:
        The layer's bias and the norm's new statistics, None where they stay as they are.
    """
    if norm is None:
        return bias, None
    if bias is not None and site.bias is None:
        return None, replace(norm, mean=norm.mean - bias)
    return bias, norm if norm is not site.norm else None


def _matched(norm: Norm, factors: Factorization, stats: Statistics) -> Norm:
    """The norm whose output keeps its mean and variance when Var(y) has become Var(ŷ)."""
    kernel = factors.kernel()
    flat: Float = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])
    ratio = stats.output_variance(flat) / np.maximum(stats.var_y, 1e-12)
    ratio = np.clip(ratio, 0.05, 1.0)
    mean = stats.mean_y + (norm.mean - stats.mean_y) * np.sqrt(ratio)
    return Norm(norm.gain / np.sqrt(ratio), mean, norm.variance * ratio)


def observe_network(
    stages: Stages,
    inputs: Sequence[Array],
    settings: Settings,
    visit: Callable[[Site, Sequence[Statistics]], None],
    progress: Progress = silent,
) -> None:
    """Show the moments of each convolution of the untouched network, in its order.

    Args:
        stages: The network; its "conv" sites are shown, a shared layer once.
        inputs: One array per model input, (n, ...).
        settings: See `Settings`.
        visit: Called with each site and its moments.
        progress: Told of each stage.
    """
    store = _store(stages, settings)
    try:
        _Walk(stages, inputs, 0, {}, [], settings, store).observe(visit, progress)
    finally:
        store.close()
