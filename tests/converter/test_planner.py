"""From a model, images and a target to what plans are chosen from, and back into a model."""

from __future__ import annotations

from collections import Counter

import keras
import msgspec
import numpy as np
import pytest
from fake_target import DW, NOISE, PW, FakeCosts, by_macs, flat
from keras import layers
from onnx_twin import onnx_twin
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.converter.core.network.sensitivity import measure_effects
from dsconvert.converter.core.planning.goals import Goals
from dsconvert.converter.core.planning.limits import parse_limit
from dsconvert.converter.core.types import Choice, Figure
from dsconvert.converter.plan import search_space
from dsconvert.converter.rewrite import rewrite

KINDS = ("keras", "onnx")


@pytest.fixture(scope="module")
def models(digits_cnn):
    return {"keras": digits_cnn, "onnx": onnx_twin(digits_cnn)}


@pytest.fixture(scope="module")
def images(digits):
    x = digits[0][:100]
    return {"keras": x, "onnx": np.ascontiguousarray(x.transpose(0, 3, 1, 2))}


@pytest.fixture(scope="module")
def timed(models, images):
    """The search_space of each kind on the same target."""
    return {
        kind: search_space(
            models[kind], calibration=images[kind], costs=FakeCosts(by_macs), network_cost=0.4
        )
        for kind in KINDS
    }


def half(resource="macs"):
    return Goals(**{resource: parse_limit("0.5x", resource)})


def rows(found):
    return {layer.name: layer for layer in found.layers}


class TestCandidates:
    @pytest.mark.parametrize("kind", KINDS)
    def test_only_what_is_faster_by_more_than_the_noise(self, kind, models, images):
        costs = flat(1.0, dw1=0.5, dw2=0.94, multiplier2=0.97, pw1=0.99, pw2=0.951)
        found = search_space(
            models[kind], calibration=images[kind], costs=costs, include=["middle"]
        )
        left = {c.choice: c.cost for c in rows(found)["middle"].candidates}
        assert set(left) == {
            Choice(pairs=1, order=DW),
            Choice(pairs=2, order=DW),
            Choice(pairs=2, order=PW),
        }
        assert left[Choice(pairs=2, order=DW)] == Figure(
            value=0.94, ratio_low=0.94 * (1 - NOISE), ratio_high=0.94 * (1 + NOISE), faster=True
        )
        assert rows(found)["middle"].cost.value == 1.0
        assert (found.target, found.unit, found.resource) == ("a fake clock", "ms", "cost")

    @pytest.mark.parametrize(("multiplier", "lowering"), [(0.4, "multiplier"), (0.8, "sum")])
    def test_the_cheaper_lowering_wins(self, models, images, multiplier, lowering):
        costs = flat(1.0, dw2=0.6, multiplier2=multiplier)
        found = search_space(
            models["keras"], calibration=images["keras"], costs=costs, include=["middle"]
        )
        (candidate,) = rows(found)["middle"].candidates
        assert candidate.choice == Choice(pairs=2, order=DW, lowering=lowering)
        assert candidate.cost.value == min(0.6, multiplier)

    def test_a_lowering_that_only_seems_faster_does_not_hide_one_that_is(self, models, images):
        class Noisy(FakeCosts):
            def _figure(self, block, choice):
                figure = super()._figure(block, choice)
                if choice.lowering == "multiplier":
                    figure = msgspec.structs.replace(figure, faster=False)
                return figure

        costs = Noisy(flat(1.0, dw2=0.6, multiplier2=0.5).cost)
        found = search_space(
            models["keras"], calibration=images["keras"], costs=costs, include=["middle"]
        )
        (candidate,) = rows(found)["middle"].candidates
        assert candidate.choice.lowering == "sum"

    def test_single_pairs_and_pointwise_first_are_asked_for_once(self, models, images):
        costs = FakeCosts(by_macs)
        search_space(models["keras"], calibration=images["keras"], costs=costs, include=["last"])
        ((_, asked),) = costs.asked
        assert Counter((c.order, c.lowering) for c in asked if c.block == "linear") == {
            (DW, "sum"): 4,
            (DW, "multiplier"): 3,
            (PW, "sum"): 4,
        }

    def test_most_pairs(self, models, images):
        found = search_space(models["keras"], calibration=images["keras"], most_pairs=2)
        pairs = {c.choice.pairs for layer in found.layers for c in layer.candidates}
        assert pairs == {1, 2}

    def test_no_gain_is_told_with_both_figures(self, models, images):
        costs = flat(0.04, dw1=0.05)
        found = search_space(
            models["keras"], calibration=images["keras"], costs=costs, include=["middle"]
        )
        reason = rows(found)["middle"].reason
        assert reason.code == "no-gain"
        assert reason.text == (
            "nothing is faster: 1 × depthwise-first takes 0.05 ms against 0.04 (1.19 to 1.31 of it)"
        )
        plan = found.plan(Goals())
        assert not plan.chosen
        assert "nothing is worth rewriting" in plan.notes

    def test_a_target_that_runs_no_choice(self, models, images):
        costs = FakeCosts(lambda block, choice: 1.0 if choice is None else None)
        found = search_space(
            models["keras"], calibration=images["keras"], costs=costs, include=["middle"]
        )
        assert rows(found)["middle"].reason.text == "the target runs none of its choices"

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_stem_is_a_candidate_only_where_it_was_measured(self, kind, models, images, timed):
        assert rows(timed[kind])["stem"].candidates
        untimed = search_space(models[kind], calibration=images[kind], most_pairs=1)
        assert rows(untimed)["stem"].reason.code == "stem"
        named = search_space(models[kind], calibration=images[kind], most_pairs=1, include=["stem"])
        assert rows(named)["stem"].candidates

    def test_include_and_exclude(self, models, images):
        found = search_space(
            models["keras"],
            calibration=images["keras"],
            costs=FakeCosts(by_macs),
            include=["middle", "st*"],
            exclude=["s*"],
        )
        reasons = {name: layer.reason and layer.reason.code for name, layer in rows(found).items()}
        assert reasons == {"stem": "excluded", "middle": None, "last": "not-included"}

    def test_everything_excluded(self, models, images):
        for kind in KINDS:
            costs = FakeCosts(by_macs)
            found = search_space(models[kind], calibration=images[kind], costs=costs, exclude=["*"])
            assert not found.plan(Goals()).chosen
            assert not costs.asked

    def test_a_pattern_that_matches_nothing(self, models, images):
        with pytest.raises(InputError, match="no convolution matches 'conv9'"):
            search_space(models["keras"], calibration=images["keras"], include=["conv9"])

    def test_no_images(self, models):
        with refuses("needs-calibration"):
            search_space(models["keras"], calibration=None)

    def test_outputs_that_are_not_finite_are_no_candidates(self, monkeypatch, models, images):
        def broken(*args, **kwargs):
            effects = measure_effects(*args, **kwargs)
            return {
                (name, choice): msgspec.structs.replace(effect, output_error=np.inf)
                if choice.pairs == 1 or name == "last"
                else effect
                for (name, choice), effect in effects.items()
            }

        monkeypatch.setattr("dsconvert.converter.plan.measure_effects", broken)
        found = search_space(models["keras"], calibration=images["keras"], most_pairs=2)
        assert {c.choice.pairs for c in rows(found)["middle"].candidates} == {2}
        assert rows(found)["last"].reason.code == "unusable"
        assert found.plan(Goals(max_error=1.0)).chosen


@pytest.fixture(scope="module")
def shared():
    """One convolution on 8×8 and on 4×4, another one on 4×4."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 8))
    twice = layers.Conv2D(8, 3, padding="same", activation="relu", name="twice")
    x = layers.MaxPooling2D()(twice(image))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="once")(twice(x))
    return keras.Model(image, layers.GlobalAveragePooling2D()(x))


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).normal(size=(40, 8, 8, 8)).astype(np.float32)


class TestCalls:
    def test_costs_of_all_calls_are_summed(self, shared, noise):
        costs = FakeCosts(by_macs)
        found = search_space(shared, calibration=noise, costs=costs, network_cost=1.0)
        sizes = [block.input_size for block, _ in costs.asked]
        assert sizes == [(8, 8), (4, 4), (4, 4)]
        row, once = rows(found)["twice"], rows(found)["once"]
        assert row.cost.value == pytest.approx(5 * once.cost.value)
        assert row.macs == 5 * once.macs
        assert row.params == once.params
        by_choice = {c.choice: c for c in once.candidates}
        for candidate in row.candidates:
            alone = by_choice[candidate.choice]
            assert candidate.cost.value == pytest.approx(5 * alone.cost.value)
            assert candidate.macs == 5 * alone.macs

    def test_every_call_must_be_faster(self, shared, noise):
        def cost(block, choice):
            small = block.input_size == (4, 4)
            return 1.0 if choice is None else 1.2 if small and choice.pairs == 1 else 0.5

        found = search_space(shared, calibration=noise, costs=FakeCosts(cost), most_pairs=2)
        assert {c.choice.pairs for c in rows(found)["twice"].candidates} == {2}
        (figure,) = {c.cost for c in rows(found)["twice"].candidates}
        assert (figure.value, figure.ratio_low) == (1.0, 0.5 * (1 - NOISE))

    def test_replayed(self, shared, noise):
        found = search_space(shared, calibration=noise)
        plan = found.plan(half())
        report = rewrite(shared, plan=plan, calibration=noise).report
        assert (report.macs_after, report.params_after) == (plan.after.macs, plan.after.params)


class TestCache:
    def count(self, monkeypatch):
        """How many stages each measurement runs, by wrapping the backend's stages."""
        recorded = []

        def counted(stages, *args, **kwargs):
            recorded.append(0)
            run = stages.run

            def counting(*them):
                recorded[-1] += 1
                return run(*them)

            monkeypatch.setattr(stages, "run", counting)
            return measure_effects(stages, *args, **kwargs)

        monkeypatch.setattr("dsconvert.converter.plan.measure_effects", counted)
        return recorded

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_second_time_nothing_is_measured(self, kind, monkeypatch, models, images, tmp_path):
        runs = self.count(monkeypatch)

        def again(**changed):
            given = {"source_sha256": "abc", "cache": tmp_path, "most_pairs": 1} | changed
            return search_space(models[kind], calibration=images[kind], **given)

        first, second = again(), again()
        assert first.layers == second.layers
        assert runs[0] > 0 == runs[1]
        again(seed=1)
        again(source_sha256="abd")
        again(source_sha256="")
        again(most_pairs=2)  # one pair is known
        assert all(runs[2:])

    def test_without_a_hash_of_the_model_nothing_is_kept(self, models, images, tmp_path):
        search_space(models["keras"], calibration=images["keras"], cache=tmp_path, most_pairs=1)
        assert not [*tmp_path.iterdir()]

    def test_other_images_are_measured_anew(self, monkeypatch, models, images, tmp_path):
        runs = self.count(monkeypatch)
        for x in (images["keras"], images["keras"] * np.float32(0.9)):
            search_space(
                models["keras"], calibration=x, cache=tmp_path, source_sha256="a", most_pairs=1
            )
        assert all(runs)


class TestTwins:
    def test_the_same_plan_from_the_same_costs(self, timed):
        for goals in (half(), half("latency"), half("params"), Goals(), Goals(max_error=0.1)):
            first, second = (timed[kind].plan(goals) for kind in KINDS)
            assert first.chosen
            assert first.chosen == second.chosen
            # A block's fit is cut short, where rounding still decides on the way.
            assert first.after.output_error == pytest.approx(second.after.output_error, rel=0.3)
            assert first.after.cost == pytest.approx(second.after.cost)

    def test_effects_are_alike(self, timed):
        first, second = (rows(timed[kind]) for kind in KINDS)
        for name, layer in first.items():
            assert [c.choice for c in layer.candidates] == [
                c.choice for c in second[name].candidates
            ]
            for a, b in zip(layer.candidates, second[name].candidates, strict=True):
                # A block's fit is cut short, where rounding still decides on the way.
                pairs = a.choice.channels is msgspec.UNSET
                assert a.effect.output_error == pytest.approx(
                    b.effect.output_error, rel=1e-2 if pairs else 0.3, abs=1e-6
                )
                assert a.effect.data_error == pytest.approx(
                    b.effect.data_error, rel=1e-3 if pairs else 0.1
                )
                assert a.macs == b.macs
