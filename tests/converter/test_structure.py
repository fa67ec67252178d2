"""Plain rewrites: the structure of each layer, and a budget for the network."""

from __future__ import annotations

import keras
import msgspec
import numpy as np
import pytest
from block_form import CONV_64
from click.testing import CliRunner
from keras import layers
from keras_checks import conv, images, model_of, norm, outputs
from refusals import refuses

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.converter.core.fitting.cost import pair_macs
from dsconvert.converter.core.fitting.styles import STRUCTURES, block_style
from dsconvert.converter.core.planning.limits import parse_limit
from dsconvert.converter.core.types import Choice, Plan
from dsconvert.converter.rewrite import rewrite

AUTO = block_style("auto")


def network():
    """A stem, a layer that is a block of eight channels, and one that is a pair."""
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3))
    x = conv(16, activation="relu", name="stem")(image)
    x = layers.ReLU()(norm()(conv(16, name="a", use_bias=False)(x)))
    x = conv(24, strides=4, activation="relu", name="b")(x)
    model = keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    rng = np.random.default_rng(0)
    block = [rng.normal(size=shape) for shape in ((16, 8), (3, 3, 8), (8, 16))]
    kernel = np.einsum("cr,abr,rn->abcn", *block) / 8
    model.get_layer("a").kernel.assign(kernel)
    pair = rng.normal(size=(3, 3, 16)), rng.normal(size=(16, 24))
    model.get_layer("b").kernel.assign(np.einsum("abc,cn->abcn", *pair) / 8)
    return model


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def data():
    x = images(80, 12, 12, 3)
    return x + 0.7 * np.roll(x, 1, axis=1) + 0.5 * np.roll(x, 1, axis=2)


def errors(report):
    return [row.data_error for row in report.layers if row.data_error is not None]


class TestAuto:
    @pytest.mark.parametrize(("name", "kind"), [("a", "three-factor"), ("b", "linear")])
    def test_each_layer_becomes_what_has_the_lower_error(self, model, data, name, kind):
        """The first layer that is rewritten has the same error by every strategy."""
        auto, pairs, block = (
            rewrite(model, calibration=data, block=one, include=[name]).report
            for one in STRUCTURES.values()
        )
        (row,) = (row for row in auto.layers if row.block)
        assert row.block == kind
        (lower,) = {"three-factor": errors(block), "linear": errors(pairs)}[kind]
        (higher,) = {"three-factor": errors(pairs), "linear": errors(block)}[kind]
        assert row.data_error == lower < higher

    def test_without_data_the_weights_decide(self, model):
        made = {name: rewrite(model, block=block) for name, block in STRUCTURES.items()}
        for row, pair, block in zip(
            *(made[name].report.layers[1:] for name in ("auto", "pairs", "block")), strict=True
        ):
            assert row.weight_error == min(pair.weight_error, block.weight_error)
            budget = pair_macs(made["pairs"].plan.layers[1].spec, "depthwise-first", 1)
            assert row.name != "a" or row.macs_after <= budget

    def test_a_plan_keeps_the_open_choice_and_replays_it(self, model, data):
        made = rewrite(model, calibration=data, block="auto", seed=1)
        choice = made.plan.chosen["a"]
        assert choice == Choice(block="auto", channels=8)
        text = msgspec.json.encode(made.plan)
        again = rewrite(model, calibration=data, plan=msgspec.json.decode(text, type=Plan), seed=1)
        assert again.report == made.report
        np.testing.assert_array_equal(outputs(made.model, data)[0], outputs(again.model, data)[0])

    def test_an_order_asks_for_pairs(self, model, data):
        made = rewrite(model, calibration=data, block="auto", order="depthwise-first")
        assert {row.order for row in made.report.layers if row.block} == {"depthwise-first"}

    def test_random_starts_are_pairs(self, model):
        made = rewrite(model, method="random", block="auto")
        assert {row.block for row in made.report.layers} == {None, "linear"}

    def test_what_is_open_has_no_cost_but_a_most(self):
        with pytest.raises(InputError, match="definite"):
            AUTO.written(Choice(block="auto", channels=32))
        choice = Choice(block="auto", channels=40)
        assert AUTO.macs(CONV_64, choice) == 64 * 40 * (64 + 9 + 64)
        assert AUTO.macs(CONV_64, Choice(block="auto", channels=24)) == 64 * 64 * (9 + 64)
        assert AUTO.params(CONV_64, choice, bias=True) == 40 * (64 + 9 + 64) + 64
        assert AUTO.text(choice) == "1 × auto or three-factor R = 40"

    @pytest.mark.parametrize("choice", [{"pairs": 0}, {"channels": 0}])
    def test_it_refuses_what_either_refuses(self, choice):
        with pytest.raises(InputError, match="at least 1, got 0"):
            AUTO.check(Choice(block="auto", **choice))


class TestBudget:
    @pytest.mark.parametrize("block", STRUCTURES.values())
    @pytest.mark.parametrize("share", [0.45, 0.5, 0.7])
    def test_the_network_keeps_it_and_nothing_larger_would(self, model, block, share):
        limit = parse_limit(f"{share}x", "macs")
        made = rewrite(model, block=block, macs=limit)
        before = made.report.macs_before
        assert made.report.macs_after <= share * before
        # As a whole it is filled up to one step of one layer.
        steps = [
            block_style(block).macs(layer.spec, Choice(block="three-factor", channels=8))
            if block == "three-factor"
            else pair_macs(layer.spec, "depthwise-first", 1)
            for layer in made.plan.layers
            if layer.choice
        ]
        if block != "auto":
            assert made.report.macs_after > share * before - sum(steps)
        assert made.plan.goal == (f"MACs ≤ {share}x",)

    def test_an_amount(self, model):
        half = rewrite(model, macs=parse_limit("0.5x", "macs")).report
        same = rewrite(model, macs=parse_limit(str(half.macs_before / 2), "macs")).report
        assert same.macs_after == half.macs_after

    def test_what_no_pair_keeps_is_a_block(self):
        assert AUTO.within(CONV_64, 64 * 64 * 73) == Choice(block="auto", channels=32)
        assert AUTO.within(CONV_64, 64 * 64 * 72) == Choice(block="three-factor", channels=32)
        assert AUTO.within(CONV_64, 64 * 137 * 3) == Choice(block="three-factor", channels=3)
        assert AUTO.within(CONV_64, 0) == Choice(block="three-factor", channels=1)
        assert AUTO.within(CONV_64, 1e12) == Choice(block="auto", pairs=9, channels=64 * 9)

    def test_one_too_small_is_refused_with_the_least(self, model):
        with refuses("budget-too-small") as caught:
            rewrite(model, macs=parse_limit("0.01x", "macs"))
        assert caught.value.code == "budget-too-small"

    def test_free_sizes_are_refused(self):
        free = model_of(conv(8, name="a"), shape=(None, None, 6))
        with pytest.raises(InputError) as caught:
            rewrite(free, macs=parse_limit("0.5x", "macs"))
        assert caught.value.code == "free-size"


class TestWords:
    def test_the_command_line_takes_the_better_of_both(self, tmp_path, monkeypatch, model, data):
        monkeypatch.chdir(tmp_path)
        model.save("m.keras")
        np.savez("x.npz", x=data)
        args = ["rewrite", "m.keras", "--calibration", "x.npz", "--macs", "0.5x"]
        args += ["--refine", "0", "--json"]
        done = CliRunner().invoke(main, args)
        assert done.exit_code == 0, done.output
        report = msgspec.json.decode(done.stdout)["report"]
        assert report["macs_after"] <= report["macs_before"] / 2
        assert {row["block"] for row in report["layers"][1:]} <= {"linear", "three-factor"}

    def test_pairs_are_what_they_were(self, model, data):
        before = rewrite(model, calibration=data)
        options = ds.RewriteOptions(structure="pairs", pairs=1)
        after = ds.rewrite(model, calibration=data, options=options, refine=0)
        assert after.report == before.report

    @pytest.mark.parametrize(
        "options",
        [
            {"macs": "0.5x", "pairs": 2},
            {"macs": "0.5x", "channels": 8},
            {"structure": "pairs", "block": "linear"},
        ],
    )
    def test_what_excludes_each_other_is_refused(self, model, options):
        with pytest.raises(InputError) as caught:
            ds.rewrite(model, options=ds.RewriteOptions(**options))
        assert caught.value.code == "options-exclude-each-other"

    def test_an_unknown_structure(self, model):
        with pytest.raises(InputError) as caught:
            ds.rewrite(model, options=ds.RewriteOptions(structure="tucker"))
        assert caught.value.code == "unknown-structure"

    def test_a_plan_says_it_all(self, model):
        plan = rewrite(model).plan
        with pytest.raises(InputError) as caught:
            ds.rewrite(model, plan=plan, options=ds.RewriteOptions(structure="auto"))
        assert caught.value.code == "plan-and-options"
