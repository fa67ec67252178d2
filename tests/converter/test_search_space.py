"""Plans chosen from a prospect, against trying everything, and what they say."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refuses
from search_spaces import (
    SLACK,
    a_limit,
    as_totals,
    candidate,
    everything,
    layer,
    limits,
    networks,
    search_space,
    shares,
    two_layers,
)

from dsconvert.base.errors import InputError
from dsconvert.converter.core.planning.goals import Goals
from dsconvert.converter.core.planning.limits import parse_limit
from dsconvert.converter.core.planning.search_space import SearchSpace
from dsconvert.converter.core.types import Effect, Plan, Reason


class TestGoals:
    @given(networks, shares, shares, shares, shares, st.booleans(), st.none() | st.floats(0, 6))
    def test_the_plan_is_what_trying_everything_finds(
        self, found, latency, macs, params, size, relative, max_error
    ):
        wanted = {"latency": latency, "macs": macs, "params": params, "size": size}
        asked = {name: a_limit(found, name, share, relative) for name, share in wanted.items()}
        amounts = {
            name: limit.of(next(iter(everything(found)))[name])
            for name, limit in asked.items()
            if limit is not None
        }
        if max_error is not None:
            amounts["output_error"] = max_error
        if not amounts:
            return
        whole = [*everything(found)]
        strictly = [t for t in whole if all(t[name] <= most for name, most in amounts.items())]

        try:
            plan = found.plan(Goals(**asked, max_error=max_error))
        except InputError:
            assert not strictly
            return

        got = as_totals(plan)
        slack = {"macs": 1e6, "params": 1e4, "size": 1e4, "latency": 8, "output_error": 0}
        for name, most in amounts.items():
            assert got[name] <= most + SLACK * 4 * max(slack[name], most)
        if strictly:
            first = "latency" if set(amounts) == {"output_error"} else "output_error"
            best = min(t[first] for t in strictly)
            assert got[first] <= best + SLACK * 4 * max(slack[first], best)

    @given(networks, st.floats(0.05, 1.2))
    def test_totals_are_sums_over_the_layers(self, found, share):
        try:
            plan = found.plan(limits(macs=f"{share!r}x"))
        except InputError:
            return

        layers = {each.name: each for each in found.layers}
        taken = [(layers[one.name], one) for one in plan.layers if one.choice is not None]
        assert plan.before == found.before
        assert plan.after.cost == pytest.approx(
            found.before.cost
            - sum(one.cost_before.value - one.cost_after.value for _, one in taken)
        )
        picks = [
            (
                each,
                next(
                    c for c in each.candidates if (c.choice, c.effect) == (one.choice, one.effect)
                ),
            )
            for each, one in taken
        ]
        assert plan.after.macs == found.before.macs - sum(e.macs - c.macs for e, c in picks)
        assert plan.after.params == found.before.params - sum(e.params - c.params for e, c in picks)
        assert plan.after.bytes == plan.after.params * found.bytes_per_weight
        assert plan.after.output_error == pytest.approx(
            sum(one.effect.output_error for _, one in taken)
        )

    def test_least_harm_within_latency(self):
        # 10 ms: the first layer at T = 3 saves 5.5 of them and harms least.
        plan = two_layers().plan(limits(latency="0.5x"))
        assert {name: choice.pairs for name, choice in plan.chosen.items()} == {"first": 3}
        assert plan.after.cost == pytest.approx(4.5)
        assert plan.goal == ("latency ≤ 0.5x",)
        assert plan.notes == ("the least output error predicted to keep the goals",)

    def test_least_time_within_a_harm(self):
        plan = two_layers().plan(Goals(max_error=0.8))
        assert {name: choice.pairs for name, choice in plan.chosen.items()} == {
            "first": 1,
            "second": 3,
        }
        assert plan.goal == ("output error ≤ 0.8",)
        assert plan.notes == ("the least time within the output error",)

    @pytest.mark.parametrize("most", [0.0, 3e-8])
    def test_a_harm_far_below_the_largest_is_kept(self, most):
        """Largest figures must not decide how exactly a limit is kept."""
        options = [candidate(1, 1e-9, 50, 5, 0.5), candidate(2, 4e-8, 40, 4, 0.25)]
        found = search_space([layer("a", 100, 10, [*options, candidate(3, 3.0, 9, 3, 0.1)], 1.0)])
        plan = found.plan(Goals(max_error=most))
        assert [one.choice for one in plan.layers] == [options[0].choice if most else None]

    def test_least_macs_within_a_harm_where_nothing_was_measured(self):
        plan = two_layers(measured=False).plan(Goals(max_error=0.1))
        assert plan.notes == ("the least MACs within the output error",)
        assert [choice.pairs for choice in plan.chosen.values()] == [1]

    def test_size_counts_bytes_of_the_precision(self):
        goals = limits(size="5KB")
        assert two_layers(width=1).plan(goals).after.bytes <= 5000
        with pytest.raises(InputError, match="size ≤ 5KB"):
            two_layers(width=4).plan(goals)

    @pytest.mark.parametrize("goals", [{"size": "100KB", "params": "4k"}, {"size": "16KB"}])
    def test_of_size_and_parameters_the_tighter_one_counts(self, goals):
        assert two_layers().plan(limits(**goals)).after.params <= 4000
        goals["size"], goals["params"] = "16KB", "9k"
        assert two_layers().plan(limits(**goals)).after.params <= 4000

    def test_goals_in_words(self):
        goals = Goals(
            latency=parse_limit("3ms", "latency"),
            macs=parse_limit("50%", "macs"),
            params=parse_limit("50k", "params"),
            size=parse_limit("200KB", "size"),
            max_error=0.25,
        )
        assert goals.words() == (
            "latency ≤ 3ms",
            "MACs ≤ 50%",
            "parameters ≤ 50k",
            "size ≤ 200KB",
            "output error ≤ 0.25",
        )
        assert Goals().words() == ()


class TestUnreachable:
    @pytest.mark.parametrize(
        ("goals", "told"),
        [
            ({"macs": "0.1x"}, "MACs ≤ 0.1x; the least there is: 2.4 M of 12.5 M MACs."),
            ({"latency": "1ms"}, "latency ≤ 1ms; the least there is: 1.75 of 10 ms."),
            ({"params": "1k"}, "parameters ≤ 1k; the least there is: 1.5 k of 9.3 k parameters."),
            ({"size": "5KB"}, "size ≤ 5KB; the least there is: 6 k of 37.2 k bytes."),
            (
                {"macs": "0.1x", "latency": "0.5x"},
                "the least there is: 1.75 of 10 ms, 2.4 M of 12.5 M MACs, each by itself.",
            ),
        ],
    )
    def test_the_least_is_told_in_readable_units(self, goals, told):
        found = two_layers()
        with pytest.raises(InputError) as caught:
            found.plan(limits(**goals))
        assert told in caught.value.message
        assert "dsconvert sweep" in caught.value.words.hint
        with refuses("target-not-reachable"):
            found.sweep(4, limits(**goals))

    def test_harm_and_latency_at_odds(self):
        goals = msgspec.structs.replace(limits(latency="0.2x"), max_error=0.5)
        with pytest.raises(InputError) as caught:
            two_layers().plan(goals)
        assert (
            caught.value.message
            == "within latency ≤ 0.2x the least output error is 1.1; 0.5 is allowed."
        )

    def test_no_harm_is_below_zero(self):
        with pytest.raises(InputError) as caught:
            Goals(max_error=-1.0)
        assert caught.value.code == "not-an-output-error"

    def test_a_time_for_a_target_that_counts_cycles(self):
        found = two_layers(unit="cycles")
        with pytest.raises(InputError, match="a clock gives cycles, and '3ms' is a time") as caught:
            found.plan(limits(latency="3ms"))
        assert "0.5x" in caught.value.hint
        assert found.plan(limits(latency="0.5x")).chosen

    def test_latency_that_was_not_measured(self):
        with refuses("not-measured"):
            two_layers(measured=False).plan(limits(latency="0.5x"))

    def test_macs_of_a_free_image_size(self):
        found = two_layers(free=True)
        with refuses("size-unknown"):
            found.plan(limits(macs="0.5x"))
        assert found.plan(limits(params="0.5x")).after.macs is None


class TestNothingToChange:
    network = search_space([layer("a", 10, 20, ms=1.0, reason=Reason(code="no-gain", text="no"))])

    @pytest.mark.parametrize("goals", [Goals(), Goals(max_error=1.0), limits(macs="1x")])
    def test_the_network_stays_as_it_is(self, goals):
        plan = self.network.plan(goals)
        assert not plan.chosen
        assert plan.after == plan.before
        assert plan.notes == ("nothing is worth rewriting",)
        assert plan.layers[0].reason.code == "no-gain"

    def test_a_limit_below_the_network_is_refused(self):
        with pytest.raises(InputError, match=r"the least there is: 1\.01 k of 1\.01 k MACs"):
            self.network.plan(limits(macs="0.5x"))

    def test_sweep_is_one_plan(self):
        (plan,) = self.network.sweep(5)
        assert plan.after == plan.before


class TestKnee:
    def test_it_is_where_harm_begins_to_rise(self):
        plan = two_layers().plan(Goals())
        assert {name: choice.pairs for name, choice in plan.chosen.items()} == {"first": 1}
        (note,) = plan.notes
        assert note.startswith("no goal was given: the knee of ")
        assert (
            " plans from 9 to 0.75 ms in the layers that can change, of output error 0 to 2.1"
            in note
        )
        assert plan.goal == ()

    def test_macs_are_told_with_their_unit(self):
        (note,) = two_layers(measured=False).plan(Goals()).notes
        assert "from 11.5 M to 1.4 M MACs" in note
        assert note.endswith("than MACs fall")

    def test_params_where_the_image_size_is_free(self):
        found = two_layers(measured=False, free=True)
        assert found.resource == "params"
        assert "from 8.9 k to 1.1 k parameters" in found.plan(Goals()).notes[0]

    def test_harmless_and_cheapest_at_once(self):
        found = search_space([layer("a", 10, 20, [candidate(1, 0.0, 5, 5, 0.25)], ms=1.0)])
        plan = found.plan(Goals())
        assert plan.chosen
        assert plan.notes == (
            "no goal was given: no plan has less output error or saves more time",
        )


class TestSweep:
    @given(networks, st.integers(2, 5))
    def test_costs_fall_and_harm_rises(self, found, points):
        plans = found.sweep(points)
        assert 1 <= len(plans) <= points
        output_errors = [plan.after.output_error for plan in plans]
        assert all(a <= b + 1e-4 for a, b in pairwise(output_errors))
        least = min(everything(found), key=lambda totals: totals["latency"])
        assert plans[-1].after.cost == pytest.approx(least["latency"], abs=SLACK * 4 * 8)

    @given(networks, st.floats(0.3, 1.1), st.floats(0.3, 1.1))
    def test_all_plans_keep_the_goals(self, found, params, output_error):
        goals = msgspec.structs.replace(limits(params=f"{params!r}x"), max_error=output_error)
        try:
            plans = found.sweep(4, goals)
        except InputError:
            return
        for plan in plans:
            assert plan.after.params <= params * found.before.params + SLACK * 4e4
            assert plan.after.output_error <= output_error + SLACK * 16

    def test_goals_are_readable(self):
        assert two_layers().sweep(3)[0].goal == ("time ≤ 10 ms",)
        assert two_layers(unit="cycles").sweep(3)[0].goal == ("cycles ≤ 10",)
        assert two_layers(measured=False).sweep(3)[-1].goal == ("MACs ≤ 2.4 M",)
        assert two_layers(measured=False, free=True).sweep(3)[-1].goal == ("parameters ≤ 1.5 k",)

    def test_only_the_layers_were_measured(self):
        found = two_layers()
        bare = SearchSpace(
            layers=found.layers,
            before=msgspec.structs.replace(found.before, cost=None),
            target="a clock",
            unit="ms",
        )
        assert bare.sweep(2)[0].goal == ("time ≤ 9.5 ms",)
        assert bare.plan(Goals()).after.cost is None


class TestReasons:
    def test_a_layer_without_candidates_keeps_its_reason_and_cost(self):
        plan = two_layers(notes=("a note",)).plan(limits(latency="0.5x"))
        kept = plan.layers[1]
        assert (kept.name, kept.reason.code, kept.choice) == ("kept", "no-gain", None)
        assert kept.cost_before.value == 0.5
        assert plan.notes[0] == "a note"

    def test_a_layer_that_the_plan_keeps_says_what_it_would_harm(self):
        second = two_layers().plan(limits(latency="0.5x")).layers[2]
        assert second.reason.code == "kept"
        assert "its mildest choice, 3 × depthwise-first, would add 0.667 of output error" in (
            second.reason.text
        )

    def test_a_chosen_layer_has_figures_and_no_reason(self):
        first = two_layers().plan(limits(latency="0.5x")).layers[0]
        assert first.reason is None
        assert first.effect == Effect(
            data_error=pytest.approx(0.3), output_error=pytest.approx(0.1 / 3)
        )
        assert (first.cost_before.value, first.cost_after.value) == (7.0, 1.5)


def test_a_plan_survives_json():
    plan = two_layers().plan(limits(latency="0.5x"))
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
