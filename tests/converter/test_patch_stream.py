"""What a layer is fitted to: all its calls, every batch, and in blocks where it is too wide."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from numerics import convolve
from numpy_network import (
    FITTED,
    PIXELS,
    Network,
    assert_same_factors,
    classifier,
    fit_strategies,
    layer,
    shared_network,
    smooth_images,
    statistics,
)

from dsconvert.base.errors import InputError
from dsconvert.converter.core.fitting.fit import FitOptions, fit
from dsconvert.converter.core.fitting.linear_block import best_fit
from dsconvert.converter.core.fitting.patches import gather
from dsconvert.converter.core.network import patch_stream, stage_runner
from dsconvert.converter.core.network.fit_state import FitSettings, FitStrategy
from dsconvert.converter.core.network.layer_statistics import observe_network
from dsconvert.converter.core.network.patch_stream import channel_blocks, moment_bytes
from dsconvert.converter.core.types import Choice

CLEAN, SEQUENTIAL = FitStrategy(), FitStrategy(sequential=True)


@pytest.fixture(scope="module")
def images():
    return smooth_images()


def test_observing_shows_the_moments_of_each_convolution(images):
    network = shared_network()
    seen = []
    every = FitSettings(patches=len(images) * PIXELS)
    observe_network(network, [images], every, lambda site, stats: seen.append((site, stats)))
    (site, (stats,)) = seen[0]
    values = network.values(images)
    both = statistics(
        site,
        np.concatenate([values[0], values[2]]).astype(np.float32),
        np.concatenate([values[1], values[3]]),
    )

    assert len(seen) == 1
    assert stats.count == both.count == 2 * len(images) * PIXELS
    np.testing.assert_allclose(stats.cov, both.cov, atol=1e-4)
    np.testing.assert_allclose(stats.cross, both.cross, atol=1e-4)


def test_a_fixed_batch_is_kept_to(images):
    network = classifier()
    free = fit_strategies(network, images, SEQUENTIAL)
    network.batch_size = 15  # of which neither 40 nor 10 nor 50 is a multiple
    fixed = fit_strategies(network, images, SEQUENTIAL)

    for name in "ab":
        assert_same_factors(fixed[SEQUENTIAL].factors[name], free[SEQUENTIAL].factors[name])


@pytest.mark.parametrize("sets", [1, 4])
@pytest.mark.parametrize("sizes", [[6], [3, 3], [2, 2, 2], [1] * 6])
def test_blocks_are_as_few_as_fit_into_memory(sizes, sets):
    wide = layer("a", 1, (3, 3, 6, 4))
    enough = moment_bytes(9 * sizes[0], blocks=len(sizes), sets=sets)
    blocks = channel_blocks(wide, enough, sets)

    assert [block.stop - block.start for block in blocks] == sizes
    assert [block.start for block in blocks] == np.cumsum([0, *sizes[:-1]]).tolist()
    if len(sizes) < 6:
        assert len(channel_blocks(wide, enough - 1, sets)) > len(sizes)


def test_positions_of_few_large_images_come_in_pieces(images, monkeypatch):
    """No batch of patches has more values than it may, and the fit is the same."""
    network = Network({"a": layer("a", 1, (3, 3, 4, 12))}, [("a", 0)])
    sizes = []

    def seen(x, spec, where):
        sizes.append(len(where[0]) * spec.taps * spec.in_channels)
        return gather(x, spec, where)

    monkeypatch.setattr(patch_stream, "gather", seen)
    whole = fit_strategies(network, images, SEQUENTIAL)
    most = 36 * PIXELS // 3  # a third of one image's
    sizes.clear()
    monkeypatch.setattr(stage_runner, "_BATCH", most)
    pieces = fit_strategies(network, images, SEQUENTIAL)

    assert max(sizes) <= most
    assert_same_factors(pieces[SEQUENTIAL].factors["a"], whole[SEQUENTIAL].factors["a"])


@pytest.mark.parametrize("pairs", [1, 9])
def test_layer_too_wide_for_its_memory_is_fitted_in_blocks(images, pairs):
    network = Network({"a": layer("a", 1, (3, 3, 4, 12))}, [("a", 0)])
    a, choices = network.layers["a"], {"a": Choice(pairs=pairs)}
    # Two thirds of it take the moments of twice two channels of nine taps, and not of four.
    memory = moment_bytes(18, blocks=2) * 3 // 2
    little = FitSettings(patches=FITTED * PIXELS, memory=memory)
    fit_runs = fit_strategies(network, images, SEQUENTIAL, settings=little, choices=choices)
    factors = fit_runs[SEQUENTIAL].factors["a"]
    y = network.values(images[:FITTED])[1]
    rewritten = network.values(images[:FITTED], fit_runs[SEQUENTIAL].weights)[1]

    assert factors.order == "depthwise-first"
    assert factors.notes == ("fitted in 2 blocks of channels: too wide for one covariance",)
    np.testing.assert_allclose(rewritten.mean((0, 1, 2)), y.mean((0, 1, 2)), atol=1e-5)
    for block in (slice(0, 2), slice(2, 4)):
        part = replace(a, spec=msgspec.structs.replace(a.spec, in_channels=2))
        x = images[:FITTED, ..., block]
        share = convolve(x, a.kernel[:, :, block], a.spec)
        stats = statistics(part, x, share)
        own = fit(stats, a.kernel[:, :, block], "depthwise-first", pairs)
        np.testing.assert_allclose(factors.kernel()[:, :, block], own.kernel(), atol=1e-3)
    if pairs == 9:
        assert factors.data_error < 1e-3

    with pytest.raises(InputError, match="a: a pointwise-first fit of 4 channels"):
        fit_strategies(
            network,
            images,
            CLEAN,
            settings=little,
            choices={"a": Choice(pairs=1, order="pointwise-first")},
        )


def test_auto_takes_the_lower_error(images):
    network = Network({"a": layer("a", 1, (3, 3, 4, 4))}, [("a", 0)])
    a, values = network.layers["a"], network.values(images[:FITTED])
    stats = statistics(a, values[0], values[1])
    errors = {
        order: fit(stats, a.kernel, order, 1).data_error
        for order in ("depthwise-first", "pointwise-first")
    }

    assert best_fit(stats, a, Choice(pairs=1), FitOptions()).order == min(errors, key=errors.get)
    for order in errors:
        assert best_fit(stats, a, Choice(pairs=1, order=order), FitOptions()).order == order
