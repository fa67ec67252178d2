"""The integer programme against trying everything."""

import os
from itertools import pairwise, product

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.converter.core.planning.integer_program import (
    TOLERANCE,
    Infeasible,
    Option,
    frontier,
    knee,
    least_cost,
    least_output_error,
    total,
)

figures = st.floats(0, 1e6, allow_nan=False, width=32)
options = st.builds(
    lambda output_error, ms, macs: Option(output_error, {"ms": ms, "macs": macs}),
    st.floats(0, 10, width=32),
    figures,
    figures,
)
networks = st.lists(st.lists(options, min_size=1, max_size=4), min_size=1, max_size=4)
shares = st.floats(-0.2, 1.2)


def everything(layers):
    return list(product(*(range(len(layer)) for layer in layers)))


def budget(layers, resource, share):
    """Between the cheapest choice and the dearest one, or a little outside."""
    sums = [total(layers, chosen, resource) for chosen in everything(layers)]
    return min(sums) + share * (max(sums) - min(sums))


def test_what_the_solver_prints_does_not_reach_stdout(capfd, monkeypatch):
    solve = scipy.optimize.milp

    def talkative(*args, **kwargs):
        os.write(1, b"HighsMipSolverData::transformNewIntegerFeasibleSolution\n")
        return solve(*args, **kwargs)

    monkeypatch.setattr(scipy.optimize, "milp", talkative)
    assert least_output_error([[Option(1.0, {"ms": 1.0}), Option(0.0, {"ms": 2.0})]], {"ms": 1.5})
    assert capfd.readouterr().out == ""


decades = st.floats(-12, 1).map(lambda power: 10.0**power) | st.just(0.0)
of_decades = st.builds(lambda error, ms: Option(error, {"ms": ms}), decades, st.floats(1, 9))
UNTOUCHED = Option(0.0, {"ms": 10.0})


@given(
    st.lists(st.lists(of_decades, max_size=4).map(lambda more: [UNTOUCHED, *more]), min_size=1),
    decades,
)
def test_a_limit_far_below_the_largest_error_is_kept(layers, limit):
    layers = layers[:4]
    chosen = least_cost(layers, "ms", limit)
    assert total(layers, chosen) <= limit * (1 + 2 * TOLERANCE)
    within = [c for c in everything(layers) if total(layers, c) <= limit]
    best = min(total(layers, c, "ms") for c in within)
    assert total(layers, chosen, "ms") <= best + 1e-8


@given(networks, shares, shares)
def test_least_output_error_is_what_trying_everything_finds(layers, ms, macs):
    limits = {"ms": budget(layers, "ms", ms), "macs": budget(layers, "macs", macs)}
    strictly = [
        c for c in everything(layers) if all(total(layers, c, r) <= v for r, v in limits.items())
    ]
    try:
        chosen = least_output_error(layers, limits)
    except Infeasible as error:
        assert not strictly
        for resource, least in error.least.items():
            assert least == pytest.approx(budget(layers, resource, 0), rel=1e-9, abs=1e-9)
        return
    largest = max(o.costs[r] for layer in layers for o in layer for r in limits)
    slack = {r: v + 2e-6 * max(largest, abs(v), 1.0) for r, v in limits.items()}
    assert all(total(layers, chosen, r) <= v for r, v in slack.items())
    if strictly:
        best = min(total(layers, c) for c in strictly)
        assert total(layers, chosen) <= best + 1e-8


@given(networks, shares)
def test_least_cost_is_what_trying_everything_finds(layers, share):
    limit = budget(layers, None, share)
    strictly = [c for c in everything(layers) if total(layers, c) <= limit]
    try:
        chosen = least_cost(layers, "ms", limit)
    except Infeasible:
        assert not strictly
        return
    assert total(layers, chosen) <= limit + 3e-5
    if strictly:
        best = min(total(layers, c, "ms") for c in strictly)
        assert total(layers, chosen, "ms") <= best + 1e-8 * max(1.0, best)


@given(networks, st.integers(2, 6))
def test_frontier_trades_error_for_cost(layers, points):
    found = frontier(layers, "ms", points)

    costs = [total(layers, chosen, "ms") for chosen in found]
    output_errors = [total(layers, chosen) for chosen in found]
    assert len(found) <= points
    # The solver lets a limit be passed by 1e-6 of the largest figure: 1e6 here, four times.
    assert costs[-1] == pytest.approx(budget(layers, "ms", 0), abs=4.0)
    assert output_errors[0] == pytest.approx(budget(layers, None, 0), abs=1e-4)
    assert all(a <= b + 1e-4 for a, b in pairwise(output_errors))


def test_a_limit_that_is_met_exactly():
    """HiGHS' presolve alone calls [0, 1, 2] the best here, of output error 1."""
    layers = [
        [Option(0.0, {"ms": 0.0})],
        [Option(0.0, {"ms": 743784.0}), Option(1.0, {"ms": 0.0})],
        [Option(0.0, {"ms": ms}) for ms in (0.0, 886.0, 0.5)],
    ]
    assert least_output_error(layers, {"ms": 743784.0})[1] == 0
    assert frontier(layers, "ms", 2) == [[0, 0, 0], [0, 1, 0]]


def test_no_layers_keep_what_can_be_kept():
    with pytest.raises(Infeasible):
        least_output_error([], {"ms": -1.0})


def test_no_layers_no_choice():
    assert least_output_error([], {"ms": 0.0}) == []


def test_knee_is_where_the_error_begins_to_rise():
    costs = [10, 8, 6, 4, 2]
    assert knee(costs, [0, 0.1, 0.2, 3, 10]) == 2
    assert knee([5.0], [0.0]) == 0
    assert knee(costs, np.zeros(5)) == 4
