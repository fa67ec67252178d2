"""The search for the last plan that passes a costly test."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.converter.core.planning.accuracy_search import cheapest_within

drops = st.lists(st.floats(-0.5, 1), min_size=1, max_size=70)
allowances = st.floats(0, 1)


def search(losses, allowed):
    """The result, and the plans in the order in which they were tested; plan i loses losses[i]."""
    tested = []

    def drop(plan):
        tested.append(plan)
        return losses[plan]

    return cheapest_within(range(len(losses)), drop, allowed), tested


@given(drops, allowances)
def test_the_last_one_that_passes_if_losses_rise(losses, allowed):
    losses = sorted(losses)
    found, _ = search(losses, allowed)

    passing = [plan for plan, lost in enumerate(losses) if lost <= allowed]
    assert found.passed == bool(passing)
    if passing:
        assert found.plan == passing[-1]


@given(drops, allowances)
def test_what_failed_is_never_returned_as_passed(losses, allowed):
    found, tested = search(losses, allowed)

    assert found.drop == losses[found.plan]
    assert found.passed == (found.drop <= allowed)
    assert found.tried == tuple((plan, losses[plan]) for plan in tested)
    if found.passed:
        # Nothing that was tested and is cheaper passed.
        assert all(losses[plan] > allowed for plan in tested if plan > found.plan)
    else:
        assert found.drop == min(losses[plan] for plan in tested)
        assert min(tested) == 0


@given(drops, allowances)
def test_few_tests_and_none_twice(losses, allowed):
    _, tested = search(losses, allowed)
    assert len(tested) == len(set(tested)) <= math.log2(len(losses)) + 1


def test_nothing_passes():
    found, tested = search([0.2, 0.3, 0.4, 0.5], 0.1)
    assert (found.plan, found.drop, found.passed) == (0, 0.2, False)
    assert tested[-1] == 0


def test_the_least_bad_need_not_be_the_first():
    found, _ = search([0.3, 0.2, 0.9], 0.1)
    assert (found.plan, found.passed) == (1, False)


def test_a_drop_that_is_no_number_does_not_pass():
    found, _ = search([0.0, math.nan, math.nan], 0.1)
    assert (found.plan, found.passed) == (0, True)
    assert not search([math.nan], 0.1)[0].passed


@pytest.mark.parametrize("lost", [0.0, 0.1])
def test_one_plan(lost):
    found, tested = search([lost], 0.1)
    assert (found.plan, found.passed, tested) == (0, True, [0])
