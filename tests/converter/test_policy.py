"""Costs against numbers worked out by hand, and plans."""

from dataclasses import dataclass

import msgspec
import pytest
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.converter.core.fitting.cost import (
    affordable_orders,
    conv_macs,
    conv_params,
    pair_macs,
    pair_params,
)
from dsconvert.converter.core.planning.policy import Policy, make_plan, replay_plan
from dsconvert.converter.core.types import Choice, ConvSpec, LayerPlan, Plan, Reason


def conv(name="conv", channels=3, filters=64, size=(32, 32), **more):
    more = {"kernel_size": (3, 3), "padding": "same", "input_sizes": (size,)} | more
    return ConvSpec(name=name, in_channels=channels, out_channels=filters, **more)


class TestCost:
    def test_first_layer_of_a_colour_network(self):
        spec = conv()

        assert conv_params(spec) == 1_792  # 3·3·3·64 + 64
        assert pair_params(spec, "depthwise-first", 1, bias=True) == 27 + 192 + 64
        assert conv_macs(spec) == 1_728 * 1_024
        assert pair_macs(spec, "depthwise-first", 1) == (27 + 192) * 1_024

    @pytest.mark.parametrize("kernel", [(3, 3), (1, 3), (5, 5)])
    def test_one_pair_costs_one_over_n_plus_one_over_k2(self, kernel):
        spec = conv(channels=16, filters=40, kernel_size=kernel)
        ratio = pair_macs(spec, "depthwise-first", 1) / conv_macs(spec)

        assert ratio == pytest.approx(1 / 40 + 1 / (kernel[0] * kernel[1]), rel=1e-12)
        assert pair_macs(spec, "depthwise-first", 3) / conv_macs(spec) == pytest.approx(3 * ratio)

    def test_pointwise_first_runs_its_pointwise_on_the_whole_input(self):
        spec = conv(channels=4, filters=6, size=(8, 8), strides=(2, 2))

        assert conv_macs(spec) == 9 * 4 * 6 * 16
        assert pair_macs(spec, "depthwise-first", 2) == 2 * 16 * 4 * (9 + 6)
        assert pair_macs(spec, "pointwise-first", 2) == 2 * (64 * 4 * 6 + 16 * 6 * 9)
        assert pair_params(spec, "pointwise-first", 2, bias=False) == 2 * (9 * 6 + 4 * 6)

    def test_valid_padding_dilation_and_groups(self):
        spec = conv(channels=4, filters=6, size=(9, 8), padding="valid", dilation=(2, 1), groups=2)

        assert conv_macs(spec) == 9 * 2 * 6 * (9 - 4) * (8 - 2)
        assert conv_params(spec) == 9 * 2 * 6 + 6

    def test_calls_of_a_shared_layer_add_up(self):
        spec = conv(input_sizes=((8, 8), (4, 4)))

        assert conv_macs(spec) == 1_728 * (64 + 16)
        assert pair_macs(spec, "pointwise-first", 1) == (192 + 576) * (64 + 16)

    def test_free_sizes_have_no_macs(self):
        spec = conv(input_sizes=((8, 8), None))

        assert conv_macs(spec) is None
        assert pair_macs(spec, "depthwise-first", 1) is None
        assert pair_macs(spec, "pointwise-first", 1) is None

    @pytest.mark.parametrize(
        ("spec", "both"),
        [
            (conv(channels=16, filters=16), True),  # the same cost
            (conv(channels=16, filters=8), True),  # cheaper: the depthwise has fewer channels
            (conv(channels=8, filters=16), False),
            (conv(channels=16, filters=16, strides=(2, 2)), False),  # a pointwise on four times
            (conv(channels=12, filters=12, size=(5, 5), padding="valid"), False),  # 25 against 9
            (conv(channels=12, filters=12, size=None, padding="valid"), True),  # a large picture
        ],
    )
    def test_orders_that_cost_no_more(self, spec, both):
        expected = ("depthwise-first", "pointwise-first") if both else ("depthwise-first",)

        assert affordable_orders(spec, 1) == expected
        assert affordable_orders(spec, 4) == expected


@dataclass
class Found:
    """A convolution as a backend finds it."""

    name: str
    spec: ConvSpec | None = None
    reason: Reason | None = None
    stem: bool = False


def network():
    return [
        Found("stem", conv("stem"), stem=True),
        Found("block1/conv", conv("block1/conv", 64)),
        Found("block1/one", conv("block1/one", 64), Reason(code="pointwise", text="1×1")),
        Found("block2/conv", conv("block2/conv", 64)),
        Found("conv1d", None, Reason(code="rank", text="not two-dimensional")),
    ]


class TestPlan:
    def chosen(self, **policy):
        return list(make_plan(network(), Policy(**policy)).chosen)

    def test_default_is_all_but_stem_and_refused(self):
        plan = make_plan(network(), Policy(pairs=2, order="pointwise-first"), "ab12")

        assert plan.source_sha256 == "ab12"
        assert [layer.name for layer in plan.layers] == [found.name for found in network()]
        assert plan.chosen == {
            name: Choice(pairs=2, order="pointwise-first")
            for name in ("block1/conv", "block2/conv")
        }
        codes = [layer.reason.code for layer in plan.layers if layer.reason is not None]
        assert codes == ["stem", "pointwise", "rank"]

    def test_include_and_exclude_are_globs(self):
        assert self.chosen(include=("block1/*",)) == ["block1/conv"]
        assert self.chosen(exclude=("*2*",)) == ["block1/conv"]
        assert self.chosen(include=("block*",), exclude=("block1/conv",)) == ["block2/conv"]

    def test_stem_must_be_named(self):
        assert self.chosen(include=("*",)) == ["block1/conv", "block2/conv"]
        assert self.chosen(include=("stem",)) == ["stem"]
        assert self.chosen(include=("stem", "block*")) == ["stem", "block1/conv", "block2/conv"]

    def test_reasons_say_what_and_how_many(self):
        plan = make_plan(network(), Policy(include=("block*",), exclude=("*2/*",)))
        reasons = {layer.name: layer.reason for layer in plan.layers}
        stem = make_plan(network(), Policy()).layers[0].reason

        assert "3 input channels" in stem.text
        assert "--include stem" in stem.text
        assert reasons["block2/conv"] == Reason(code="excluded", text="excluded by '*2/*'")
        assert reasons["stem"].code == "not-included"
        assert reasons["block1/one"].code == "pointwise"  # the backend's reason comes first

    @pytest.mark.parametrize("policy", [{"include": ("blok*",)}, {"exclude": ("Stem",)}])
    def test_pattern_that_matches_nothing_is_refused(self, policy):
        with pytest.raises(InputError, match="block1/conv, block1/one") as caught:
            make_plan(network(), Policy(**policy))

        assert repr(next(iter(policy.values()))[0]) in caught.value.message
        assert "dsconvert inspect" in caught.value.words.hint

    def test_no_pairs_are_refused(self):
        with pytest.raises(InputError, match="at least 1, got 0"):
            make_plan(network(), Policy(pairs=0))

    def test_model_without_convolutions_has_an_empty_plan(self):
        assert make_plan([], Policy()).layers == ()
        with refuses("no-such-layer"):
            make_plan([], Policy(include=("x",)))

    def test_plan_survives_json(self):
        plan = make_plan(network(), Policy(exclude=("block2/*",)), "ab12")

        assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan

    @pytest.mark.parametrize(
        ("name", "pairs", "message"),
        [
            ("block9", 1, "rewrites 'block9'; the model has: stem, block1/conv"),
            ("block1/one", 1, "'block1/one', which cannot be: 1×1"),
            ("block1/conv", 0, "'block1/conv': pairs must be at least 1, got 0"),
        ],
    )
    def test_plan_of_another_model_is_refused(self, name, pairs, message):
        layer = LayerPlan(name=name, spec=None, choice=Choice(pairs=pairs))

        with pytest.raises(InputError, match=message):
            replay_plan(Plan(layers=(layer,)), network())

    def test_a_plan_for_no_layer_of_the_model_is_refused_where_it_rewrites_none(self):
        layers = tuple(LayerPlan(name=name, spec=None) for name in "abcde")
        with refuses("no-such-layer") as refused:
            replay_plan(Plan(layers=layers), network())
        assert "the plan is for a, b, c and 2 more; the model has: stem, " in refused.value.message
        with refuses("not-a-plan"):
            replay_plan(Plan(layers=()), network())
        assert replay_plan(Plan(layers=()), []).layers == ()
        left_alone = LayerPlan(name="block1/conv", spec=None)
        assert replay_plan(Plan(layers=(left_alone, *layers)), network()).chosen == {}

    def test_a_plan_that_says_two_things_of_a_layer(self):
        one, other = (
            LayerPlan(name="block1/conv", spec=None, choice=choice)
            for choice in (Choice(pairs=1), None)
        )
        for layers in ((one, other), (other, one)):
            with refuses("choice-not-possible"):
                replay_plan(Plan(layers=layers), network())
        assert "block1/conv" in replay_plan(Plan(layers=(one, one)), network()).chosen

    def test_own_plan_is_replayed_as_it_was(self):
        plan = make_plan(network(), Policy(include=("stem", "block*")), "ab12")

        assert replay_plan(plan, network()) == plan

    def test_edited_plan_is_completed(self):
        layer = LayerPlan(name="block2/conv", spec=None, choice=Choice(pairs=3))
        plan = replay_plan(Plan(layers=(layer,)), network())

        assert plan.chosen == {"block2/conv": Choice(pairs=3)}
        assert [layer.spec for layer in plan.layers] == [found.spec for found in network()]
        reasons = [layer.reason and layer.reason.code for layer in plan.layers]
        assert reasons == ["unplanned", "unplanned", "pointwise", None, "rank"]
