"""Which widths of a wide layer need no fit, and what is told of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy_network import HELD_OUT, Network, layer, pool, relu, smooth_images

from dsconvert.converter.core.network import between_widths
from dsconvert.converter.core.network.between_widths import between_others, interpolated, takes_long
from dsconvert.converter.core.network.fit_state import FitSettings
from dsconvert.converter.core.network.sensitivity import measure_effects
from dsconvert.converter.core.types import ORDERS, Choice, ConvSpec, Effect


def block(width):
    return Choice(block="three-factor", channels=width)


PAIRS = Choice(pairs=2, order="depthwise-first")


def spec(channels):
    return ConvSpec(name="x", kernel_size=(3, 3), in_channels=channels, out_channels=8)


def test_only_what_takes_long_is_spared():
    assert takes_long(spec(128), 0)
    assert not takes_long(spec(127), 9e9)
    assert takes_long(spec(8), 1e10)


def test_about_every_second_width_is_fitted():
    widths = [1032, 896, 768, 640, 512, 384, 256, 128]
    found = between_others([PAIRS, *map(block, widths)])
    assert found == {
        block(384): (block(256), block(512)),
        block(640): (block(512), block(1032)),
        block(768): (block(512), block(1032)),
        block(896): (block(512), block(1032)),
    }


def test_of_pairs_three_lie_between_two_and_four_of_their_own_order():
    first, second = (
        {pairs: Choice(pairs=pairs, order=order) for pairs in range(1, 5)} for order in ORDERS
    )
    found = between_others([*first.values(), second[3], second[4], block(3)])
    assert found == {first[3]: (first[2], first[4])}


@given(st.sets(st.integers(1, 2000), max_size=12))
def test_the_ends_are_fitted_and_every_other_lies_between_two_that_are(widths):
    found = between_others(list(map(block, widths)))
    fitted = {block(width) for width in widths} - set(found)
    if widths:
        assert {block(min(widths)), block(max(widths))} <= fitted
    for choice, (below, above) in found.items():
        assert {below, above} <= fitted
        assert below.channels < choice.channels < above.channels


def test_errors_fall_by_equal_factors():
    low, high = (
        Effect(data_error=0.4, output_error=0.9),
        Effect(data_error=0.1, output_error=0.1),
    )
    half = interpolated(block(30), block(20), block(40), low, high)
    assert half.data_error == pytest.approx(0.2)
    assert half.output_error == pytest.approx(0.3)
    near = interpolated(block(21), block(20), block(40), low, high)
    assert near.data_error == pytest.approx(0.4 / 4 ** (1 / 20))


@pytest.mark.parametrize("odd", [0.0, math.inf, math.nan])
def test_what_has_no_logarithm_is_told_no_better_than_the_worse_end(odd):
    ends = Effect(data_error=0.4, output_error=odd), Effect(data_error=0.1, output_error=0.1)
    told = interpolated(block(30), block(20), block(40), *ends).output_error
    assert told == 0.1 if odd == 0.0 else not math.isfinite(told)


def network():
    layers = {"a": layer("a", 3, (3, 3, 4, 6))}
    return Network(layers, [("a", 0), (relu, 1), (pool, 2)])


def test_a_wide_layer_is_fitted_at_some_widths_and_told_at_all(monkeypatch):
    images, choices = smooth_images(), {"a": [PAIRS, *map(block, (2, 3, 4, 6))]}
    full = measure_effects(network(), [images], HELD_OUT, choices, FitSettings())
    monkeypatch.setattr(between_widths, "_WIDE", 36)
    recorded = {}

    def record(name, choice, effect):
        recorded[name, choice] = effect

    some = measure_effects(network(), [images], HELD_OUT, choices, FitSettings(), record=record)
    assert set(some) == set(full)
    assert {choice.channels for _, choice in set(some) - set(recorded)} == {3}
    ends = some["a", block(2)], some["a", block(4)]
    assert some["a", block(3)] == interpolated(block(3), block(2), block(4), *ends)
    assert some | {("a", block(3)): full["a", block(3)]} == full
    # What was measured once, for another target, is kept.
    again = measure_effects(network(), [images], HELD_OUT, choices, FitSettings(), known=full)
    assert again == full
    assert np.isfinite([effect.output_error for effect in some.values()]).all()
