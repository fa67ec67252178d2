"""Fit a whole network layer by layer, in one pass over its stages.

Several *lanes* run side by side: the clean network, and one per recipe, which feels its own
rewritten prefix. No recipe is good for every network (sequential inputs help ResNet8 and hurt VGG),
so images that no fit has seen decide: the lane whose outputs stay nearest to the original's wins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from . import fidelity
from .choose import best_fit
from .fit import FitOptions, refit
from .moments import Moments, Statistics
from .patches import gather, output_size, sample_positions
from .predictor import Array
from .progress import Progress, silent
from .staged import Norm, Site, Stages, Weights
from .store import Store
from .types import Choice, Factorization, Float

log = logging.getLogger(__name__)

HEAD_RIDGES = (0.03, 0.3, 3.0)
"""Strengths of the prior tried for the last dense layer: few images, many features."""


@dataclass(frozen=True)
class Recipe:
    """Which liberties a lane takes.

    Attributes:
        sequential: Fit to the rewritten prefix's activations instead of the original's.
        shortcuts: Refit 1×1 convolutions, and let a layer that is added to something make up for
            what that has lost.
        match_variance: Re-estimate the BatchNorm after a rewritten layer so that each channel
            keeps its variance.
    """

    sequential: bool = False
    shortcuts: bool = False
    match_variance: bool = False

    def __str__(self) -> str:
        parts = [
            name for name in ("sequential", "shortcuts", "match_variance") if getattr(self, name)
        ]
        return " + ".join(parts) or "clean inputs"


@dataclass
class Lane:
    """One recipe on its way through the network."""

    recipe: Recipe
    live: dict[int, Array] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)
    factors: dict[str, Factorization] = field(default_factory=dict)
    moments: dict[str, Moments] = field(default_factory=dict)
    refitted: list[str] = field(default_factory=list)
    harm: float = np.inf


@dataclass(frozen=True)
class Settings:
    """How much data the fit may look at.

    Attributes:
        patches: Patches per layer at most; None chooses by the layer's size.
        memory: Bytes for activations in memory.
        seed: Seeds the choice of patches.
        fit: Options of each layer's fit.
        refit_head: Whether the last dense layers may be refitted.
    """

    patches: int | None = None
    memory: int = 2 << 30
    seed: int = 0
    fit: FitOptions = field(default_factory=FitOptions)
    refit_head: bool = True


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
    store = Store(settings.memory)
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

    def observe(self, visit: Callable[[Site, Statistics], None], progress: Progress) -> None:
        sites = self.stages.sites
        with progress("Looking at layers", len(sites)) as advance:
            for index, site in enumerate(sites):
                if site is not None and site.role == "conv":
                    self._gather(site, [self.clean])
                    if site.call + 1 == site.calls:
                        visit(site, self.clean.moments.pop(site.name).statistics())
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
        with self.stages.using(index, self._weights(index, lane)):
            for rows in self._batches(lane.live):
                batch = {value: array[rows] for value, array in lane.live.items()}
                made = self.stages.run(index, batch)
                for value, array in made.items():
                    if value not in results:
                        results[value] = self.store.empty((self.total, *array.shape[1:]))
                    results[value][rows] = array
        return passed | results

    def _weights(self, index: int, lane: Lane) -> Weights | None:
        """What the stage's site has in this lane; a shared layer changes at its last call."""
        site = self.stages.sites[index]
        return lane.weights.get(site.name) if site is not None else None

    def _batches(self, live: Mapping[int, Array], stop: int | None = None) -> list[slice]:
        total = self.total if stop is None else stop
        size = self.stages.batch_size
        if size is None:
            widest = max(int(np.prod(array.shape[1:], dtype=np.int64)) for array in live.values())
            size = int(np.clip((16 << 20) // max(widest, 1), 1, 128))
        return [slice(first, min(first + size, total)) for first in range(0, total, size)]

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
            stats = moments.statistics()
            if site.role == "conv":
                if id(moments) not in fits:
                    fits[id(moments)] = best_fit(
                        stats, site, self.choices[site.name], self.settings.fit
                    )
                self._rewrite(lane, site, fits[id(moments)], stats)
            elif site.role == "shortcut":
                best = refit(stats, site.kernel, self.settings.fit.ridge)
                bias, norm = _settle(site, best.bias, site.norm)
                lane.weights[site.name] = Weights(best.kernel, bias, norm)
                lane.refitted.append(site.name)
            else:
                self._refit_head(index, lane, site, stats)

    def _wanted(self, lane: Lane, site: Site) -> bool:
        if site.role == "conv":
            return site.name in self.choices
        if not lane.weights:
            return False  # nothing has drifted
        return self.settings.refit_head if site.role == "head" else lane.recipe.shortcuts

    def _rewrite(self, lane: Lane, site: Site, factors: Factorization, stats: Statistics) -> None:
        norm = site.norm
        if norm is not None and lane.recipe.match_variance:
            norm = _matched(norm, factors, stats)
        bias, norm = _settle(site, factors.bias, norm)
        lane.factors[site.name] = replace(factors, bias=bias)
        lane.weights[site.name] = Weights(factors.kernel(), bias, norm)

    def _gather(self, site: Site, lanes: Sequence[Lane]) -> None:
        """Stream the patches of all lanes into their moments, at the same positions."""
        clean = _image(self.clean.live[site.reads], site)
        height, width = output_size(site.spec, (clean.shape[1], clean.shape[2]))
        features = site.spec.taps * site.spec.in_channels
        wanted = self.settings.patches or _enough(features)
        per_image = max(1, -(-wanted // self.fitting))
        groups: dict[int, tuple[Lane, Moments]] = {}
        common = Moments(features, site.spec.out_channels)
        for lane in lanes:
            if site.calls == 1 and not self._drifts(lane, site):
                lane.moments[site.name] = common
            elif site.name not in lane.moments:
                lane.moments[site.name] = Moments(features, site.spec.out_channels)
            moments = lane.moments[site.name]
            groups.setdefault(id(moments), (lane, moments))
        kernel = site.kernel.transpose(2, 0, 1, 3).reshape(features, -1).astype(np.float32)
        for rows in self._batches({0: clean}, self.fitting):
            where = sample_positions(self.rng, len(clean[rows]), (height, width), per_image)
            patches = gather(clean[rows], site.spec, where).reshape(-1, features)
            target = patches @ kernel
            if site.bias is not None:
                target += site.bias
            for lane, moments in groups.values():
                if not self._drifts(lane, site):
                    moments.update(patches, target)
                    continue
                drifted = gather(_image(lane.live[site.reads], site)[rows], site.spec, where)
                aim = target + self._owed(lane, site, rows, where)
                moments.update(drifted.reshape(-1, features), aim)

    def _drifts(self, lane: Lane, site: Site) -> bool:
        follows = lane.recipe.sequential or site.role != "conv"
        return follows and lane.live is not self.clean.live

    def _owed(
        self, lane: Lane, site: Site, rows: slice, where: tuple[Array, Array, Array]
    ) -> Array | float:
        """What the other side of the sum has lost, in units of this site's output."""
        if site.beside is None or not lane.recipe.shortcuts:
            return 0.0
        lost = (
            _image(self.clean.live[site.beside], site)[rows]
            - (_image(lane.live[site.beside], site)[rows])
        )
        gain = 1.0 if site.norm is None else site.norm.gain
        usable = np.abs(gain) > 1e-3 * np.max(np.abs(gain))
        return np.asarray(lost[where] * np.where(usable, 1 / np.where(usable, gain, 1.0), 0.0))

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
        parts = []
        with self.stages.using(index, weights):
            for rows in self._batches(unseen, self.total - self.fitting):
                batch = {value: array[rows] for value, array in unseen.items()}
                parts.append(batch | self.stages.run(index, batch))
        return [np.concatenate([part[value] for part in parts]) for value in outputs]


def _image(array: Array, site: Site) -> Array:
    """The array as (n, H, W, C): features (n, F) become a 1×1 image."""
    if array.ndim == 2:
        return array[:, None, None, :]
    return array.transpose(0, 2, 3, 1) if site.channels_first else array


def _enough(features: int) -> int:
    """Patches for a layer: several per unknown, as many as 10¹¹ multiplications allow."""
    affordable = int(1e11 / features**2)
    return int(np.clip(affordable, max(8192, 2 * features), 32768))


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
    visit: Callable[[Site, Statistics], None],
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
    store = Store(settings.memory)
    try:
        _Walk(stages, inputs, 0, {}, [], settings, store).observe(visit, progress)
    finally:
        store.close()
