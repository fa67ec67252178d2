"""Walking through a network stage by stage, with all images at once and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

from ..fitting.block_style import Sample, SiteData
from ..fitting.moments import Moments
from ..stages import Site, Stages, Weights
from ..types import Float
from .activation_store import Store
from .fit_state import FitRun, FitSettings, FitStrategy
from .patch_stream import (
    channel_blocks,
    fits_at_once,
    gather_moments,
    site_bytes,
    stream_patches,
)

SAMPLE_HELD_OUT = 0.2
"""The share of a sample's images that chooses how a MobileNet block starts."""


class StageRunner:
    """The untouched network on its way from stage to stage, and what may be asked of it there.

    Args:
        stages: The network.
        inputs: One array per model input, (n, ...).
        held_out: How many of the last images no fit may see.
        settings: See `FitSettings`.
        store: Room for the values between stages.
        sets: How many fit runs have moments of their own.

    Attributes:
        clean: The untouched network's live values.
        fitting: How many images may be fitted to; the others are held out.
    """

    def __init__(
        self,
        stages: Stages,
        inputs: Sequence[Array],
        held_out: int,
        settings: FitSettings,
        store: Store,
        sets: int = 1,
    ) -> None:
        self.stages, self.settings, self.store, self.sets = stages, settings, store, sets
        self.total = len(inputs[0])
        self.fitting = self.total - held_out
        self.rng = np.random.default_rng(settings.seed)
        self.clean = FitRun(FitStrategy(), dict(zip(stages.inputs, inputs, strict=True)))
        self._widths: dict[int, int] = {}  # values per image, of the widest that a stage makes

    def after(self, index: int, fit_run: FitRun) -> dict[int, Array]:
        """Return a fit run's live values after a stage, for all images."""
        return self.through(index, fit_run.live, self._weights(index, fit_run))

    def unseen(self, fit_run: FitRun) -> dict[int, Array]:
        """Return a fit run's live values of the held-out images."""
        return {value: array[self.fitting :] for value, array in fit_run.live.items()}

    def through(
        self,
        index: int,
        live: Mapping[int, Array],
        weights: Weights | None,
        last: int | None = None,
    ) -> dict[int, Array]:
        """Return the live values after a stage from those before it, of any number of images.

        Args:
            index: The stage.
            live: The values before it.
            weights: What its site has instead of its own, where only this stage is passed.
            last: The last stage to pass, where it is another one.
        """
        results: dict[int, Array] = {}
        after = self.stages.live_after(index if last is None else last)
        passed = {value: live[value] for value in after if value in live}
        total = len(next(iter(live.values())))
        for rows, made in self.stream(index, live, weights, last):
            for value, array in made.items():
                if value not in results:
                    results[value] = self.store.empty((total, *array.shape[1:]))
                results[value][rows] = array
            self.store.settle()
        return passed | results

    def stream(
        self,
        index: int,
        live: Mapping[int, Array],
        weights: Weights | None,
        last: int | None = None,
    ) -> Iterator[tuple[slice, dict[int, Array]]]:
        """Run stages batch by batch: rows, and what was made of them; see `through`."""
        total = len(next(iter(live.values())))
        passed = range(index, (index if last is None else last) + 1)
        widest = max(*map(_width, live.values()), *(self._widths.get(s, 0) for s in passed), 1)
        fixed = self.stages.batch_size
        first = 0
        with self.stages.using(index, weights):
            while first < total:
                # What comes out may be far wider than what goes in, so one image goes first.
                known = all(stage in self._widths for stage in passed)
                size = fixed or _images_at_once(widest, limit=128 if known else 1)
                rows = slice(first, min(first + size, total))
                batch = {value: array[rows] for value, array in live.items()}
                if fixed:
                    batch = {value: _filled(array, fixed) for value, array in batch.items()}
                made = self.stages.run(index, batch, last)
                count = rows.stop - rows.start
                yield rows, {value: array[:count] for value, array in made.items()}
                if len(passed) == 1:
                    widest = max(widest, *map(_width, made.values()), 1)
                    self._widths[index] = widest
                first = rows.stop

    def gather(self, site: Site, fit_runs: Sequence[FitRun]) -> None:
        """Stream the patches of a site into the moments of these fit runs."""
        gather_moments(site, self.clean, fit_runs, **self._looking_at(site))

    def site_data(self, site: Site, fit_run: FitRun, moments: Sequence[Moments]) -> SiteData:
        """Tell what a block may be fitted to: the moments gathered, and single patches of a run."""

        def sample(taps: Float) -> Sample:
            return self.sample(site, fit_run, taps)

        return SiteData(
            site=site,
            stats=[part.statistics() for part in moments],
            blocks=self.blocks(site),
            sample=sample if site.calls == 1 else None,
        )

    def sample(self, site: Site, fit_run: FitRun, taps: Float) -> Sample:
        """Apply depthwise kernels (T, kh, kw, C) to a run's patches; give the targets too."""
        T, C = taps.shape[0], taps.shape[3]
        kernels = taps.reshape(T, -1, C).transpose(2, 1, 0).astype(np.float32)  # (C, k², T)
        numbers, inner, targets = [], [], []
        looking = self._looking_at(site)
        for image, (seen,) in stream_patches(site, self.clean, [fit_run], **looking):
            actual, aims = seen
            parts = [
                np.matmul(part.reshape(len(part), -1, site.spec.taps).swapaxes(0, 1), some)
                for part, some in zip(actual, (kernels[b] for b in looking["blocks"]), strict=True)
            ]  # each (C, P, T)
            made = np.concatenate(parts).transpose(1, 2, 0)
            numbers.append(image)
            inner.append(np.ascontiguousarray(made).reshape(len(made), T * C))
            targets.append(sum(aims[1:], aims[0]))
        held_out = np.concatenate(numbers) >= (1 - SAMPLE_HELD_OUT) * self.fitting
        return Sample(np.concatenate(inner), np.concatenate(targets), held_out)

    def rows(self, site: Site, fit_run: FitRun) -> tuple[Array, Array]:
        """Return what a dense layer gets in a run, (P, D), and what it should give, (P, N)."""
        looking = self._looking_at(site) | {"blocks": [slice(0, site.spec.in_channels)]}
        pieces = [seen for _, (seen,) in stream_patches(site, self.clean, [fit_run], **looking)]
        x, aims = zip(*((actual[0], aim[0]) for actual, aim in pieces), strict=True)
        return np.concatenate(x), np.concatenate(aims)

    def _looking_at(self, site: Site) -> dict[str, Any]:
        """Tell how patches of a site are looked at."""

        def batches(width: int) -> list[slice]:
            size = _images_at_once(max(width, _width(self.clean.live[site.reads])))
            return [
                slice(first, min(first + size, self.fitting))
                for first in range(0, self.fitting, size)
            ]

        return {
            "blocks": self.blocks(site),
            "batches": batches,
            "most": _BATCH,
            "images": self.fitting,
            "patches": self.settings.patches,
            "rng": self.rng,
        }

    def fits_at_once(self, site: Site) -> int:
        """Tell how many fits to the moments of a site the memory has room for, at least one."""
        return fits_at_once(site, self.blocks(site), moment_share(self.settings), self.sets)

    def blocks(self, site: Site) -> list[slice]:
        """Return the input channels that are fitted together."""
        return channel_blocks(site, moment_share(self.settings), self.sets)

    def _weights(self, index: int, fit_run: FitRun) -> Weights | None:
        """Get the site's weights in this fit run; a shared layer changes at its last call."""
        site = self.stages.sites[index]
        return fit_run.weights.get(site.name) if site is not None else None


_BATCH = 8 << 20
"""Values of one tensor that a batch may have: 32 MiB, whatever the memory, since sums in other
batches are rounded otherwise."""


def moment_share(settings: FitSettings) -> int:
    """Tell how much of the memory the moments of one layer may take: two thirds."""
    return settings.memory * 2 // 3


def _width(array: Array) -> int:
    """Values per image."""
    return int(np.prod(array.shape[1:], dtype=np.int64))


def _images_at_once(width: int, limit: int = 128) -> int:
    return int(np.clip(_BATCH // max(width, 1), 1, limit))


def _filled(array: Array, size: int) -> Array:
    """Return a batch with its last image repeated up to the only size the model takes."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


@contextmanager
def room_for(stages: Stages, settings: FitSettings, sets: int = 1) -> Iterator[Store]:
    """Room for activations: what the largest layer's moments leave of the memory.

    Args:
        stages: The network.
        settings: See `FitSettings`.
        sets: How many fit runs have moments of their own.
    """
    share = moment_share(settings)
    sites = [site for site in stages.sites if site is not None]
    sizes = [site_bytes(site, len(channel_blocks(site, share, sets)), sets) for site in sites]
    store = Store(settings.memory - min(max(sizes, default=0), share))
    try:
        yield store
    finally:
        store.close()
