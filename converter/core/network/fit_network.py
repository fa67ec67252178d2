"""Fit a whole network layer by layer, in one pass over its stages.

Several *fit runs* run side by side: the clean network, and one per strategy, which feels its own
rewritten prefix. No strategy is good for every network (sequential inputs help ResNet8 and hurt
VGG),
so images that no fit has seen decide: the fit run whose outputs stay nearest to the original's
wins.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dsconvert.base import fidelity
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent

from ..fitting.few_rows import refit_rows
from ..fitting.fit import refit
from ..fitting.moments import Moments, Statistics
from ..fitting.styles import block_style
from ..stages import Norm, Site, Stages, Weights
from ..types import Choice, Factorization, Float
from .activation_store import Store
from .fit_state import FitRun, FitSettings, FitStrategy
from .patch_stream import row_bytes
from .stage_runner import StageRunner, moment_share, room_for

log = logging.getLogger(__name__)

HEAD_RIDGES = (0.03, 0.3, 3.0)
"""Strengths of the prior tried for the last dense layer: few images, many features."""


def fit_network(
    stages: Stages,
    inputs: Sequence[Array],
    held_out: int,
    choices: Mapping[str, Choice],
    strategies: Sequence[FitStrategy],
    settings: FitSettings,
    progress: Progress = silent,
) -> list[FitRun]:
    """Fit all chosen convolutions by every strategy.

    Args:
        stages: The network.
        inputs: One array per model input, (n, ...).
        held_out: How many of the last images no fit may see; they judge the fit runs.
        choices: What to make of each convolution, by name.
        strategies: One fit run each.
        settings: See `FitSettings`.
        progress: Told of each stage.

    Returns:
        The fit runs, best first: the one with the least output error to the outputs of the
        held-out images.
    """
    drifting = sum(strategy.sequential for strategy in strategies)
    sets = drifting + (drifting < len(strategies))
    with room_for(stages, settings, sets) as store:
        return _Fitting(stages, inputs, held_out, choices, strategies, settings, store, sets).run(
            progress
        )


class _Fitting(StageRunner):
    def __init__(
        self,
        stages: Stages,
        inputs: Sequence[Array],
        held_out: int,
        choices: Mapping[str, Choice],
        strategies: Sequence[FitStrategy],
        settings: FitSettings,
        store: Store,
        sets: int,
    ) -> None:
        super().__init__(stages, inputs, held_out, settings, store, sets)
        self.choices = choices
        self.fit_runs = [FitRun(strategy, self.clean.live) for strategy in strategies]

    def run(self, progress: Progress) -> list[FitRun]:
        sites = self.stages.sites
        with progress("Fitting layers", len(sites)) as advance:
            for index, site in enumerate(sites):
                if site is not None:
                    self._fit(index, site)
                self._advance(index)
                advance()
        for fit_run in self.fit_runs:
            fit_run.output_error = self._output_error(fit_run, self.stages.outputs)
            log.info(
                "%s: output error %.4g on held-out images", fit_run.strategy, fit_run.output_error
            )
        return sorted(self.fit_runs, key=lambda fit_run: fit_run.output_error)

    def _advance(self, index: int) -> None:
        """From the live values before a stage to those after it, in every fit run."""
        after = self.after(index, self.clean)
        for fit_run in self.fit_runs:
            # A fit run that has changed nothing yet shares the clean activations.
            fit_run.live = self.after(index, fit_run) if fit_run.weights else after
        self.clean.live = after

    def _output_error(self, fit_run: FitRun, outputs: Sequence[int]) -> float:
        expected, got = self.unseen(self.clean), self.unseen(fit_run)
        return fidelity.output_error([expected[v] for v in outputs], [got[v] for v in outputs])

    # Fitting one site in every fit run.

    def _fit(self, index: int, site: Site) -> None:
        fit_runs = [fit_run for fit_run in self.fit_runs if self._wanted(fit_run, site)]
        if not fit_runs:
            return
        if self._few_rows(site):
            for fit_run in fit_runs:
                x, aims = self.rows(site, fit_run)
                fits = refit_rows(x, aims, site.kernel, HEAD_RIDGES)
                self._choose_head(index, fit_run, site, fits)
            return
        self.gather(site, fit_runs)
        if site.call + 1 < site.calls:
            return
        if site.role == "conv":
            self._fit_convolution(site, fit_runs)
            return
        for fit_run in fit_runs:
            (moments,) = fit_run.moments.pop(site.name)
            stats = moments.statistics()
            if site.role == "shortcut":
                best = refit(stats, site.kernel, self.settings.fit.ridge)
                bias, norm = place_bias(site, best.bias, site.norm)
                fit_run.weights[site.name] = Weights(best.kernel, bias, norm)
                fit_run.refitted.append(site.name)
            else:
                fits = [refit(stats, site.kernel, ridge) for ridge in HEAD_RIDGES]
                self._choose_head(index, fit_run, site, fits)

    def _fit_convolution(self, site: Site, fit_runs: Sequence[FitRun]) -> None:
        """Fit once for all runs that share the moments."""
        options = replace(self.settings.fit, seed=self.settings.seed)
        alike: dict[int, tuple[list[Moments], list[FitRun]]] = {}
        for fit_run in fit_runs:
            moments = fit_run.moments.pop(site.name)
            alike.setdefault(id(moments), (moments, []))[1].append(fit_run)
        start: Factorization | None = None
        for moments, group in alike.values():
            choice = self.choices[site.name]
            data = self.site_data(site, group[0], moments)
            fitted = block_style(choice.block).fit(data, choice, options, start)
            start = fitted.factors  # the next run's inputs have drifted a little from these
            for fit_run in group:
                norm = site.norm
                if norm is not None and fit_run.strategy.match_variance and fitted.read is not None:
                    norm = _matched(norm, fitted.mixer, fitted.read)
                weights = placed(site, fitted.factors, norm)
                fit_run.factors[site.name] = replace(fitted.factors, bias=weights.bias)
                fit_run.weights[site.name] = weights

    def _wanted(self, fit_run: FitRun, site: Site) -> bool:
        if site.role == "conv":
            return site.name in self.choices
        if not fit_run.weights:
            return False  # nothing has drifted
        if len(self.blocks(site)) > 1 and not self._few_rows(site):
            return False  # too wide to be solved for as a whole
        return self.settings.refit_head if site.role == "head" else fit_run.strategy.shortcuts

    def _few_rows(self, site: Site) -> bool:
        """Tell whether a last dense layer sees fewer images than it has inputs, and these fit."""
        rows, features = self.fitting, site.spec.in_channels
        if site.role != "head" or site.calls > 1 or rows >= features:
            return False
        return row_bytes(rows, features) <= moment_share(self.settings)

    def _choose_head(
        self, index: int, fit_run: FitRun, site: Site, fits: Sequence[Weights]
    ) -> None:
        """Keep a refitted last layer only if the held-out images say so."""
        outputs = [value for value in self.stages.live_after(index) if value in self.stages.outputs]
        candidates: list[Weights | None] = [None, *fits]
        output_errors = [self._try(index, fit_run, weights, outputs) for weights in candidates]
        best = candidates[int(np.argmin(output_errors))]
        if best is not None:
            fit_run.weights[site.name] = best
            fit_run.refitted.append(site.name)

    def _try(
        self, index: int, fit_run: FitRun, weights: Weights | None, outputs: Sequence[int]
    ) -> float:
        expected = self.through(index, self.unseen(self.clean), None)
        got = self.through(index, self.unseen(fit_run), weights)
        return fidelity.output_error([expected[v] for v in outputs], [got[v] for v in outputs])


def place_bias(
    site: Site, bias: Float | None, norm: Norm | None
) -> tuple[Float | None, Norm | None]:
    """Give the bias to the BatchNorm, if the layer has none of its own and a norm follows.

    Returns:
        The layer's bias and the norm's new statistics, None where they stay as they are.
    """
    if norm is None:
        return bias, None
    if bias is not None and site.bias is None:
        return None, replace(norm, mean=norm.mean - bias)
    return bias, norm if norm is not site.norm else None


def placed(site: Site, factors: Factorization, norm: Norm | None) -> Weights:
    """Return what a site computes with once it is a block; see `place_bias`."""
    bias, norm = place_bias(site, factors.bias, norm)
    block = None if factors.linear else replace(factors, bias=bias)
    return Weights(factors.kernel(), bias, norm, block)


def _matched(norm: Norm, flat: Float, stats: Statistics) -> Norm:
    """Return the norm whose output keeps its mean and variance when Var(y) has become Var(ŷ).

    Args:
        norm: As it was trained.
        flat: What makes ŷ, (D, N).
        stats: The moments of what that reads, and of y.
    """
    ratio = stats.output_variance(flat) / np.maximum(stats.var_y, 1e-12)
    ratio = np.clip(ratio, 0.05, 1.0)
    mean = stats.mean_y + (norm.mean - stats.mean_y) * np.sqrt(ratio)
    return Norm(norm.gain / np.sqrt(ratio), mean, norm.variance * ratio)
