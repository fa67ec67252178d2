"""Plans carried out: as they were made, and as someone with an editor left them."""

from __future__ import annotations

import keras
import msgspec
import numpy as np
import onnxruntime
import pytest
from keras import layers
from onnx_twin import onnx_twin

from dsconvert.base import fidelity
from dsconvert.base.errors import InputError
from dsconvert.converter.core.planning.goals import Goals
from dsconvert.converter.core.planning.limits import parse_limit
from dsconvert.converter.core.types import ORDERS, Choice, Plan
from dsconvert.converter.plan import search_space
from dsconvert.converter.rewrite import rewrite

DW, PW = ORDERS
KINDS = ("keras", "onnx")


@pytest.fixture(scope="module")
def models(digits_cnn):
    return {"keras": digits_cnn, "onnx": onnx_twin(digits_cnn)}


@pytest.fixture(scope="module")
def images(digits):
    x = digits[0][:100]
    return {"keras": x, "onnx": np.ascontiguousarray(x.transpose(0, 3, 1, 2))}


@pytest.fixture(scope="module")
def plans(models, images):
    """Half the MACs, of each kind: both layers that are no stem change."""
    found = {
        kind: search_space(models[kind], calibration=images[kind], most_pairs=2) for kind in KINDS
    }
    goals = Goals(macs=parse_limit("0.5x", "macs"))
    made = {kind: each.plan(goals) for kind, each in found.items()}
    assert all(set(plan.chosen) == {"middle", "last"} for plan in made.values())
    return made


def run(model, x):
    """The outputs for images of the model's own layout."""
    if isinstance(model, keras.Model):
        return model.predict(x, verbose=0)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize("kind", KINDS)
class TestReplay:
    def test_exactly_the_planned_macs_and_parameters(self, kind, models, images, plans):
        plan = plans[kind]
        report = rewrite(models[kind], plan=plan, calibration=images[kind]).report
        assert report.macs_before == plan.before.macs
        assert report.params_before == plan.before.params
        assert report.macs_after == plan.after.macs
        assert report.params_after == plan.after.params
        assert plan.after.bytes == 4 * plan.after.params

    def test_after_json_the_same_model(self, kind, models, images, plans):
        plan = plans[kind]
        read = msgspec.json.decode(msgspec.json.encode(plan), type=Plan)
        assert read == plan
        first, second = (rewrite(models[kind], plan=each) for each in (plan, read))
        np.testing.assert_array_equal(
            run(first.model, images[kind]), run(second.model, images[kind])
        )

    def test_harm_of_one_layer_is_near_what_was_planned(self, kind, models, images, plans):
        """The rewrite fits longer and chooses its strategy, so it is at least about as good."""
        plan = edited(plans[kind], keep=["last"])
        made = rewrite(models[kind], plan=plan, calibration=images[kind]).model
        output_error = fidelity.output_error(
            [run(models[kind], images[kind])], [run(made, images[kind])]
        )
        (layer,) = (layer for layer in plan.layers if layer.choice is not None)
        assert 0 < output_error < 1.5 * layer.effect.output_error

    def test_a_choice_removed(self, kind, models, plans):
        plan = edited(plans[kind], keep=["last"])
        made = rewrite(models[kind], plan=plan)
        assert [*made.report.rewritten] == ["last"]
        codes = {layer.name: layer.reason and layer.reason.code for layer in made.plan.layers}
        assert codes == {"stem": "stem", "middle": "unplanned", "last": None}

    def test_a_layer_removed_is_left_alone(self, kind, models, plans):
        plan = plans[kind]
        short = msgspec.structs.replace(plan, layers=plan.layers[-1:])
        made = rewrite(models[kind], plan=short)
        assert [layer.name for layer in made.plan.layers] == ["stem", "middle", "last"]
        assert [*made.plan.chosen] == ["last"]

    def test_another_number_of_pairs(self, kind, models, plans):
        plan = edited(plans[kind], keep=["last"], pairs=3)
        report = rewrite(models[kind], plan=plan).report
        assert {row.name: row.pairs for row in report.layers if row.pairs} == {"last": 3}

    def test_an_unknown_layer(self, kind, models, plans):
        plan = edited(plans[kind], rename={"last": "lost"})
        with pytest.raises(InputError) as caught:
            rewrite(models[kind], plan=plan)
        assert "the plan rewrites 'lost'; the model has: stem, middle, last." in (
            caught.value.message
        )

    @pytest.mark.parametrize("pairs", [0, -1])
    def test_fewer_than_one_pair(self, kind, models, plans, pairs):
        plan = edited(plans[kind], keep=["last"], pairs=pairs)
        with pytest.raises(InputError, match=f"'last'.*got {pairs}"):
            rewrite(models[kind], plan=plan)

    def test_a_multiplier_is_written_as_one_depthwise_convolution(
        self, kind, models, images, plans
    ):
        plan = edited(plans[kind], keep=["last", "middle"], pairs=2, lowering="multiplier")
        summed = edited(plan, lowering="sum")
        made, other = (rewrite(models[kind], plan=each).model for each in (plan, summed))
        assert deep_kernels(made) == [(16, 2), (24, 2)]
        assert deep_kernels(other) == [(16, 1)] * 2 + [(24, 1)] * 2
        np.testing.assert_allclose(run(made, images[kind]), run(other, images[kind]), atol=1e-4)

    def test_a_multiplier_pointwise_first_is_a_sum(self, kind, models, plans):
        plan = edited(plans[kind], keep=["last"], pairs=2, order=PW, lowering="multiplier")
        made = rewrite(models[kind], plan=plan).model
        assert deep_kernels(made) == [(32, 1)] * 2


def deep_kernels(model):
    """(channels, outputs per channel) of each depthwise convolution."""
    if isinstance(model, keras.Model):
        return [
            tuple(layer.kernel.shape[2:])
            for layer in model.layers
            if isinstance(layer, layers.DepthwiseConv2D)
        ]
    held = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        if node.op_type == "Conv" and group > 1:
            found.append((group, held[node.input[1]][0] // group))
    return found


def edited(plan, keep=None, rename=None, **choice):
    """A plan as someone with an editor leaves it."""
    changed = []
    for layer in plan.layers:
        if layer.choice is not None and keep is not None and layer.name not in keep:
            layer = msgspec.structs.replace(layer, choice=None)
        elif layer.choice is not None or (keep is not None and layer.name in keep):
            old = layer.choice
            if old is None or (choice and old.block != "linear"):  # edits of pairs
                old = Choice(pairs=1, order=DW)
            layer = msgspec.structs.replace(
                layer,
                name=(rename or {}).get(layer.name, layer.name),
                choice=msgspec.structs.replace(old, **choice),
            )
        changed.append(layer)
    return msgspec.structs.replace(plan, layers=tuple(changed))


def test_a_layer_that_cannot_be_rewritten(plans):
    model = keras.Sequential(
        [keras.Input((8, 8, 8)), layers.Conv2D(4, 1, name="thin"), layers.Conv2D(4, 3, name="c")]
    )
    plan = edited(plans["keras"], rename={"last": "thin", "middle": "c"})
    with pytest.raises(InputError) as caught:
        rewrite(model, plan=plan)
    assert "the plan rewrites 'thin', which cannot be: its kernel is 1×1" in caught.value.message


@pytest.mark.parametrize("normed", [False, True])
def test_the_bias_that_a_fit_finds_is_counted(normed):
    """Where no BatchNormalization takes it, a convolution without a bias gets one."""
    keras.utils.set_random_seed(2)
    steps = [layers.Conv2D(8, 3, use_bias=False, name="bare")]
    steps += [layers.BatchNormalization()] if normed else []
    model = keras.Sequential([keras.Input((6, 6, 8)), *steps, layers.GlobalAveragePooling2D()])
    noise = np.random.default_rng(0).normal(size=(30, 6, 6, 8)).astype(np.float32)
    plan = search_space(model, calibration=noise, most_pairs=1).plan(Goals(max_error=10.0))
    report = rewrite(model, plan=plan, calibration=noise).report
    assert report.rewritten == ("bare",)
    assert report.params_after == plan.after.params
