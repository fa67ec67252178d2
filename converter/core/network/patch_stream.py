"""Streaming a site's patches into moments, for the clean network and for those that drifted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from dsconvert.base.predictor import Array

from ..fitting.moments import Moments
from ..fitting.patches import Index, gather, output_size, sample_positions
from ..stages import Site
from .fit_state import FitRun

_SOLVING = 2
"""Matrices of the size of one covariance that solving for a kernel takes besides."""


def moment_bytes(features: int, *, blocks: int = 1, sets: int = 1) -> int:
    """Tell the memory that gathering and fitting moments takes at its worst moment.

    Args:
        features: D, the length of a patch of one block of channels.
        blocks: In how many blocks the channels are.
        sets: How many fit runs have moments of their own. One set is fitted to at a time, from
            a regularised copy.
    """
    return 8 * features**2 * ((sets + 1) * blocks + _SOLVING)


def row_bytes(rows: int, features: int) -> int:
    """Tell the memory that a refit from rows takes: them and systems of their number, thrice.

    Args:
        rows: How many there are.
        features: The length of one.
    """
    return 8 * rows * (3 * features + 3 * rows)


def channel_blocks(site: Site, memory: int, sets: int = 1) -> list[slice]:
    """The input channels in as few blocks as fit into memory: one, unless the layer is very wide.

    Each block is fitted to its own share of the output, as if it were a convolution of its own.

    Args:
        site: The layer.
        memory: Bytes for its moments.
        sets: How many fit runs have moments of their own.
    """
    channels = site.spec.in_channels
    count = 1
    while count < channels and site_bytes(site, count, sets) > memory:
        count += 1
    size = -(-channels // count)
    return [slice(first, min(first + size, channels)) for first in range(0, channels, size)]


def site_bytes(site: Site, blocks: int, sets: int) -> int:
    """Tell the memory that the moments of a site take in so many blocks: see `moment_bytes`."""
    features = site.spec.taps * -(-site.spec.in_channels // blocks)
    return moment_bytes(features, blocks=blocks, sets=sets)


def fits_at_once(site: Site, blocks: Sequence[slice], memory: int, sets: int = 1) -> int:
    """Tell how many fits to the same moments have room, at least one: each solves by itself.

    Args:
        site: The layer.
        blocks: Its input channels as `channel_blocks` gives them.
        memory: As there.
        sets: As there.
    """
    each = 8 * max(_widths(site, blocks)) ** 2 * _SOLVING
    return 1 + max(0, memory - site_bytes(site, len(blocks), sets)) // each


def drifts(fit_run: FitRun, site: Site, clean: FitRun) -> bool:
    """Tell whether the fit run fits this site to inputs of its own."""
    return (fit_run.strategy.sequential or site.role != "conv") and fit_run.live is not clean.live


def gather_moments(
    site: Site,
    clean: FitRun,
    fit_runs: Sequence[FitRun],
    *,
    blocks: Sequence[slice],
    batches: Callable[[int], Iterable[slice]],
    most: int,
    images: int,
    patches: int | None,
    rng: np.random.Generator,
) -> None:
    """Stream the patches of all fit runs into their moments, at the same positions.

    Lanes that have not drifted share one set of moments.

    Args:
        site: The layer to look at.
        clean: The fit run of the untouched network, which gives the outputs to aim at.
        fit_runs: Whose ``moments`` are filled; a shared layer adds to those of its earlier calls.
        blocks: Input channels that are looked at together.
        batches: Rows of the live values for a number of values per image, ``images`` together.
        most: Values of patches at once.
        images: How many images there are.
        patches: How many patches to take; None chooses by the layer's size.
        rng: Draws the positions.
    """
    widths = _widths(site, blocks)

    def fresh() -> list[Moments]:
        return [Moments(width, site.spec.out_channels) for width in widths]

    common = fresh()
    for fit_run in fit_runs:
        if site.calls == 1 and not drifts(fit_run, site, clean):
            fit_run.moments[site.name] = common
        else:
            fit_run.moments.setdefault(site.name, fresh())
    groups = {id(fit_run.moments[site.name]): fit_run for fit_run in fit_runs}
    for _, seen in stream_patches(
        site,
        clean,
        list(groups.values()),
        blocks=blocks,
        batches=batches,
        most=most,
        images=images,
        patches=patches,
        rng=rng,
    ):
        for fit_run, (actual, aims) in zip(groups.values(), seen, strict=True):
            for moments, part, aim in zip(fit_run.moments[site.name], actual, aims, strict=True):
                moments.update(part, aim)


Seen = tuple[list[Array], list[Array]]
"""Patches (P, D) and outputs to aim at (P, N), per block of channels."""
_Where = tuple[Index, Index, Index]


def stream_patches(
    site: Site,
    clean: FitRun,
    fit_runs: Sequence[FitRun],
    *,
    blocks: Sequence[slice],
    batches: Callable[[int], Iterable[slice]],
    most: int,
    images: int,
    patches: int | None,
    rng: np.random.Generator,
) -> Iterator[tuple[Index, Iterator[Seen]]]:
    """Yield the patches of several fit runs at the same positions, batch by batch.

    The outputs to aim at are those of the untouched layer: each block's own share of them, the
    bias and what a shortcut has lost in the first.

    Args:
        site: See `gather_moments`, as for the others.
        clean: As there.
        fit_runs: Whose patches are wanted.
        blocks: As there.
        batches: As there.
        most: As there.
        images: As there.
        patches: As there.
        rng: As there.

    Yields:
        The number of each patch's image, (P,), and what each fit run has there, one after the
        other: those of all would lie in memory together.
    """
    widths = _widths(site, blocks)
    kernel = site.kernel.transpose(2, 0, 1, 3).astype(np.float32)
    kernels = [
        kernel[block].reshape(width, -1) for block, width in zip(blocks, widths, strict=True)
    ]
    frames, *size = images_of(clean.live[site.reads][:1], site).shape[:3]
    wanted = patches or _enough(max(widths))
    per_image = max(1, -(-wanted // (images * frames)))
    for rows in batches(per_image * frames * sum(widths)):
        x = images_of(clean.live[site.reads][rows], site)
        where = sample_positions(rng, len(x), output_size(site.spec, (size[0], size[1])), per_image)
        for some in _pieces(where, most // sum(widths)):
            seen = _by_block(gather(x, site.spec, some), blocks)
            targets = [part @ weights for part, weights in zip(seen, kernels, strict=True)]
            if site.bias is not None:
                targets[0] += site.bias
            each = _of_each(site, clean, fit_runs, blocks, rows, some, (seen, targets))
            yield rows.start + some[0] // frames, each


def _of_each(
    site: Site,
    clean: FitRun,
    fit_runs: Sequence[FitRun],
    blocks: Sequence[slice],
    rows: slice,
    where: _Where,
    untouched: Seen,
) -> Iterator[Seen]:
    """Yield what each fit run has at some positions; ``untouched`` is what the clean one has."""
    for fit_run in fit_runs:
        if not drifts(fit_run, site, clean):
            yield untouched
            continue
        drifted = images_of(fit_run.live[site.reads][rows], site)
        first, *rest = untouched[1]
        aims = [first + _owed(fit_run, clean, site, rows, where), *rest]
        yield _by_block(gather(drifted, site.spec, where), blocks), aims


def _pieces(where: _Where, most: int) -> Iterator[_Where]:
    """Yield the positions, at most so many at a time."""
    most = max(most, 1)
    for first in range(0, len(where[0]), most):
        image, row, column = (axis[first : first + most] for axis in where)
        yield image, row, column


def _widths(site: Site, blocks: Sequence[slice]) -> list[int]:
    """Return the length of a patch of each block of channels."""
    return [site.spec.taps * (block.stop - block.start) for block in blocks]


def images_of(array: Array, site: Site) -> Array:
    """Return the array as (n, H, W, C): features (n, F) become a 1×1 image.

    Several images or rows of features of one sample, (n, k, …), are images of their own.
    """
    if array.ndim in (3, 5):
        array = array.reshape(-1, *array.shape[2:])
    if array.ndim == 2:
        return array[:, None, None, :]
    return array.transpose(0, 2, 3, 1) if site.channels_first else array


def _by_block(patches: Array, blocks: Sequence[slice]) -> list[Array]:
    """Patches (P, C, k²) as one (P, D) per block of channels."""
    return [patches[:, block].reshape(len(patches), -1) for block in blocks]


def _owed(fit_run: FitRun, clean: FitRun, site: Site, rows: slice, where: _Where) -> Array | float:
    """Return what the other side of the sum has lost, in units of this site's output."""
    if site.beside is None or not fit_run.strategy.shortcuts:
        return 0.0
    expected = images_of(clean.live[site.beside][rows], site)[where]
    lost = expected - images_of(fit_run.live[site.beside][rows], site)[where]
    if site.norm is None:
        return lost
    gain = site.norm.gain
    usable = np.abs(gain) > 1e-3 * np.max(np.abs(gain))
    return np.asarray(lost * np.where(usable, 1 / np.where(usable, gain, 1.0), 0.0))


def _enough(features: int) -> int:
    """Patches for a layer: several per unknown, as many as 10¹¹ multiplications allow."""
    affordable = int(1e11 / features**2)
    return int(np.clip(affordable, max(8192, 2 * features), 32768))
