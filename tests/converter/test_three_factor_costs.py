"""What a three-factor block costs, and how many channels a budget allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.converter.core.fitting.cost import block_macs, block_params, channels_within
from dsconvert.converter.core.types import ConvSpec


def spec(strides=(1, 1), sizes=((9, 10),)):
    return ConvSpec(
        name="a",
        kernel_size=(3, 3),
        strides=strides,
        padding="same",
        in_channels=20,
        out_channels=30,
        input_sizes=sizes,
    )


def test_costs_count_the_first_pointwise_at_the_input():
    assert block_macs(spec(), 7) == 90 * 7 * (20 + 9 + 30)
    assert block_macs(spec((2, 2)), 7) == 7 * (90 * 20 + 25 * (9 + 30))
    assert block_macs(spec(sizes=((9, 10), (4, 4))), 7) == (90 + 16) * 7 * (20 + 9 + 30)
    assert block_macs(spec(sizes=(None,)), 7) is None
    assert block_params(spec(), 7, bias=True) == 7 * (20 + 9 + 30) + 30
    assert block_params(spec(), 7, bias=False) == 7 * (20 + 9 + 30)


@given(st.integers(0, 10**6), st.sampled_from([1, 8, 16]), st.sampled_from([1, 2]))
def test_channels_are_the_most_that_fit(budget, multiple, stride):
    conv = spec((stride, stride))
    R = channels_within(conv, budget, multiple)
    assert R % multiple == 0
    assert R == 0 or block_macs(conv, R) <= budget
    assert block_macs(conv, R + multiple) > budget


def test_channels_need_a_known_size():
    with pytest.raises(ValueError, match="free"):
        channels_within(spec(sizes=(None,)), 1000)
