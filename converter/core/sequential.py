"""Fit a whole network layer by layer, in one pass over its stages.

Several *lanes* run side by side: the clean network, and one per recipe, which feels its own
rewritten prefix. No recipe is good for every network (sequential inputs help ResNet8 and hurt VGG),
so images that no fit has seen decide: the lane whose outputs stay nearest to the original's wins.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from . import fidelity
from .choose import best_fit, block_fit
from .fit import refit
from .lanes import Lane, Recipe, Settings
from .moments import Statistics
from .predictor import Array
from .progress import Progress, silent
from .staged import Norm, Site, Stages, Weights
from .store import Store
from .types import Choice, Factorization, Float
from .walking import Walk, room_for

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
    with room_for(stages, settings) as store:
        return _Fitting(stages, inputs, held_out, choices, recipes, settings, store).run(progress)


class _Fitting(Walk):
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
        super().__init__(stages, inputs, held_out, settings, store)
        self.choices = choices
        self.lanes = [Lane(recipe, self.clean.live) for recipe in recipes]

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

    def _advance(self, index: int) -> None:
        """From the live values before a stage to those after it, in every lane."""
        after = self.after(index, self.clean)
        for lane in self.lanes:
            # A lane that has changed nothing yet shares the clean activations.
            lane.live = self.after(index, lane) if lane.weights else after
        self.clean.live = after

    def _harm(self, lane: Lane, outputs: Sequence[int]) -> float:
        expected, got = self.unseen(self.clean), self.unseen(lane)
        return fidelity.harm([expected[v] for v in outputs], [got[v] for v in outputs])

    # Fitting one site in every lane.

    def _fit(self, index: int, site: Site) -> None:
        lanes = [lane for lane in self.lanes if self._wanted(lane, site)]
        if not lanes:
            return
        self.gather(site, lanes)
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
                bias, norm = settled(site, best.bias, site.norm)
                lane.weights[site.name] = Weights(best.kernel, bias, norm)
                lane.refitted.append(site.name)
            else:
                self._refit_head(index, lane, site, stats[0])

    def _best_fit(self, site: Site, stats: Sequence[Statistics]) -> Factorization:
        choice, options = self.choices[site.name], self.settings.fit
        if len(stats) == 1:
            return best_fit(stats[0], site, choice, options)
        return block_fit(stats, self.blocks(site), site, choice, options)

    def _wanted(self, lane: Lane, site: Site) -> bool:
        if site.role == "conv":
            return site.name in self.choices
        if not lane.weights:
            return False  # nothing has drifted
        if len(self.blocks(site)) > 1:
            return False  # too wide to be solved for as a whole
        return self.settings.refit_head if site.role == "head" else lane.recipe.shortcuts

    def _rewrite(
        self, lane: Lane, site: Site, factors: Factorization, stats: Sequence[Statistics]
    ) -> None:
        norm = site.norm
        if norm is not None and lane.recipe.match_variance and len(stats) == 1:
            norm = _matched(norm, factors, stats[0])
        bias, norm = settled(site, factors.bias, norm)
        lowering = self.choices[site.name].lowering
        lane.factors[site.name] = replace(factors, bias=bias, lowering=lowering)
        lane.weights[site.name] = Weights(factors.kernel(), bias, norm)

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
        expected = self.unseen_after(index, self.unseen(self.clean), None)
        got = self.unseen_after(index, self.unseen(lane), weights)
        return fidelity.harm([expected[v] for v in outputs], [got[v] for v in outputs])


def settled(site: Site, bias: Float | None, norm: Norm | None) -> tuple[Float | None, Norm | None]:
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
