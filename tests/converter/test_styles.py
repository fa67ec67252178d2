"""The registry of block styles: one line and one file make a new one, in both frameworks."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import keras
import msgspec
import numpy as np
import pytest
from keras import layers
from keras_checks import conv, outputs
from onnx_native import Net
from onnx_native import images as onnx_images
from onnx_native import outputs as onnx_outputs
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.converter.core.fitting.block_style import Fitted
from dsconvert.converter.core.fitting.cost import output_pixels
from dsconvert.converter.core.fitting.linear_block import LinearBlock, flat
from dsconvert.converter.core.fitting.pairs import Pairs
from dsconvert.converter.core.fitting.styles import STYLES, Entry, all_styles, block_style
from dsconvert.converter.core.planning.policy import Policy
from dsconvert.converter.core.types import Choice, ConvSpec, Depthwise, Factorization, Pointwise
from dsconvert.converter.plan import search_space
from dsconvert.converter.rewrite import rewrite

SPEC = ConvSpec(
    name="c", kernel_size=(3, 3), in_channels=6, out_channels=8, input_sizes=((9, 10), (5, 5))
)


@dataclass(frozen=True, kw_only=True)
class Three(Factorization):
    """1×1 to R channels, depthwise, 1×1: p (C, R), q (kh, kw, R), v (R, N)."""

    p: np.ndarray
    q: np.ndarray
    v: np.ndarray

    @property
    def choice(self) -> Choice:
        return Choice(block="three", channels=self.p.shape[1])

    def kernel(self) -> np.ndarray:
        return np.einsum("cr,abr,rn->abcn", self.p, self.q, self.v)

    def scaled(self, gain: np.ndarray) -> Three:
        return replace(self, v=self.v * gain)

    def branches(self):
        return [
            (Pointwise(self.p, "in"), Depthwise(self.q[..., None]), Pointwise(self.v, "out")),
        ]


class ThreeBlock(LinearBlock):
    """Any pairs, depthwise first, as one block: R = T·C and p the identity, T times over."""

    name, title = "three", "three-factor block"

    def check(self, choice):
        if choice.channels is not msgspec.UNSET and choice.channels < 1:
            raise InputError(f"channels must be at least 1, got {choice.channels}.")

    def settled(self, choice, spec):
        return Choice(block="three", channels=choice.pairs * spec.in_channels)

    def text(self, choice):
        return f"{choice.channels} channels"

    def candidates(self, spec, most):
        return [Choice(block="three", channels=spec.in_channels)]

    def lowerings(self, choice):
        return (choice,)

    def macs(self, spec, choice):
        per_output = choice.channels * (spec.taps + spec.out_channels)
        return sum(
            h * w * spec.in_channels * choice.channels + output_pixels(spec, (h, w)) * per_output
            for h, w in spec.input_sizes
        )

    def params(self, spec, choice, *, bias):
        R = choice.channels
        return R * (spec.in_channels + spec.taps + spec.out_channels) + spec.out_channels * bias

    def fit(self, data, choice, options, start=None):
        pairs = Choice(pairs=choice.channels // data.site.spec.in_channels, order="depthwise-first")
        made = super().fit(data, pairs, options)
        factors = self._three(made.factors)
        return Fitted(factors, flat(factors.kernel()), made.read)

    def from_weights(self, kernel, bias, spec, choice):
        pairs = Choice(pairs=choice.channels // spec.in_channels, order="depthwise-first")
        return self._three(super().from_weights(kernel, bias, spec, pairs))

    def _three(self, pairs: Pairs) -> Three:
        T, C, N = pairs.pointwise.shape
        return Three(
            p=np.tile(np.eye(C), (1, T)),
            q=pairs.depthwise.transpose(1, 2, 0, 3).reshape(*pairs.depthwise.shape[1:3], T * C),
            v=pairs.pointwise.reshape(T * C, N),
            bias=pairs.bias,
            weight_error=pairs.weight_error,
            data_error=pairs.data_error,
        )


@pytest.fixture
def three(monkeypatch) -> None:
    """One line in the registry, and one file."""
    name = "dsconvert.converter.core.fitting.three"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(STYLE=ThreeBlock()))
    monkeypatch.setitem(STYLES, "three", Entry("three", "three factors"))


def keras_model():
    keras.utils.set_random_seed(0)
    image = keras.Input((9, 10, 6))
    y = conv(8, activation="relu", strides=2, name="a")(image)
    y = layers.BatchNormalization(name="norm")(conv(8, name="b", use_bias=False)(y))
    return keras.Model(image, layers.GlobalAveragePooling2D()(layers.ReLU()(y)))


def onnx_model():
    net = Net()
    net.conv("x", "a", (6, 8), pads=[1] * 4, strides=[2, 2])
    net.node("Relu", "a", "r")
    net.conv("r", "b", (8, 8), pads=[1] * 4, bias=False)
    net.norm("b", "n")
    net.node("Relu", "n", "s")
    net.node("GlobalAveragePool", "s", "y")
    return net.model()


MODELS = {
    "keras": (keras_model, outputs, lambda n: onnx_images(n, 6, 9, 10).transpose(0, 2, 3, 1)),
    "onnx": (onnx_model, onnx_outputs, lambda n: onnx_images(n, 6, 9, 10)),
}


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("kind", MODELS)
class TestOneMore:
    @pytest.mark.parametrize("how", ["svd", "data"])
    def test_it_computes_what_its_pairs_compute(self, kind, how):
        build, run, images = MODELS[kind]
        model, x = build(), np.ascontiguousarray(images(40))
        given = {"calibration": x} if how == "data" else {}
        made, pairs = (
            rewrite(model, pairs=2, **choice, **given)
            for choice in ({"block": "three"}, {"order": "depthwise-first"})
        )
        for one, other in zip(run(made.model, x), run(pairs.model, x), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6 * np.abs(other).max())
        assert [row.text for row in made.report.layers] == ["12 channels", "16 channels"]
        assert [row.channels for row in made.report.layers] == [12, 16]
        assert made.report.params_after > pairs.report.params_after

    def test_names(self, kind):
        made = rewrite(MODELS[kind][0](), block="three").model
        if kind == "keras":
            names = [layer.name for layer in made.layers if "_" in layer.name]
        else:
            names = [node.name for node in made.graph.node if "_" in node.name]
        wanted = [f"{layer}_{part}" for layer in "ab" for part in ("in", "dw", "out")]
        assert [name for name in names if name[:2] in ("a_", "b_")] == wanted

    def test_a_plan_chooses_it_and_is_replayed(self, kind):
        build, run, images = MODELS[kind]
        model, x = build(), np.ascontiguousarray(images(40))
        found = search_space(model, calibration=x, most_pairs=1)
        blocks = {c.choice.block for layer in found.layers for c in layer.candidates}
        assert blocks == {"linear", "three-factor", "three"}
        (choice,) = (c.choice for c in found.layers[1].candidates if c.choice.block == "three")
        plan = msgspec.structs.replace(
            rewrite(model, exclude=["a"]).plan,
            layers=(msgspec.structs.replace(rewrite(model).plan.layers[1], choice=choice),),
        )
        text = msgspec.json.encode(plan)
        assert b'"block":"three","channels":8' in text
        read = msgspec.json.decode(text, type=type(plan))
        made = rewrite(model, calibration=x, plan=read)
        assert [row.block for row in made.report.layers] == [None, "three"]
        assert np.isfinite(run(made.model, x)[0]).all()

    def test_it_refuses_what_it_cannot_be(self, kind):
        model = MODELS[kind][0]()
        plan = rewrite(model).plan
        bad = Choice(block="three", channels=0)
        plan = msgspec.structs.replace(
            plan, layers=(msgspec.structs.replace(plan.layers[0], choice=bad), *plan.layers[1:])
        )
        with pytest.raises(InputError, match="choice for 'a': channels must be at least 1"):
            rewrite(model, plan=plan)


class TestRegistry:
    def test_every_entry_is_a_style_of_its_name(self):
        for name, style in zip(STYLES, all_styles(), strict=True):
            assert style.name == name
            assert style.title
            for choice in style.candidates(SPEC, 4):
                style.check(choice)
                assert style.written(choice) == choice
                assert style.settled(choice, SPEC) == choice
                assert style.lowerings(choice)[0] == choice

    def test_unknown_names_are_refused_with_those_known(self):
        model = keras_model()
        with refuses("unknown-block"):
            rewrite(model, block="fancy")
        plan = rewrite(model).plan
        odd = Choice(block="fancy", order="depthwise-first")
        layer = msgspec.structs.replace(plan.layers[0], choice=odd)
        plan = msgspec.structs.replace(plan, layers=(layer, *plan.layers[1:]))
        with refuses("choice-not-possible"):
            rewrite(model, plan=plan)

    def test_a_choice_without_a_width_says_nothing_of_one(self):
        text = msgspec.json.encode(Choice(pairs=2, order="depthwise-first"))
        assert text == (b'{"pairs":2,"order":"depthwise-first","lowering":"sum","block":"linear"}')
        assert Policy(pairs=2).choice == Choice(pairs=2)

    @pytest.mark.parametrize("name", ["linear", "mobilenet"])
    def test_pairs_have_no_width(self, name):
        with pytest.raises(InputError, match="got 8 channels"):
            block_style(name).check(Choice(block=name, channels=8))

    @pytest.mark.parametrize("name", ["linear", "mobilenet"])
    @pytest.mark.parametrize("pairs", [1, 2])
    def test_parameters_are_those_of_the_layers(self, name, pairs):
        """Norms included: what `params` counts is what the branches hold."""
        rng = np.random.default_rng(0)
        choice = Choice(pairs=pairs, order="depthwise-first", block=name)
        style = block_style(name)
        factors = style.random(rng.normal(size=(3, 3, 6, 8)), np.zeros(8), choice, rng)
        assert factors.choice == choice
        held = 8  # the bias
        for branch in factors.branches():
            for part in branch:
                arrays = (
                    [part.kernel]
                    if isinstance(part, Depthwise | Pointwise)
                    else [part.mean, part.variance, part.gamma, part.beta]
                )
                held += sum(array.size for array in arrays)
        assert style.params(SPEC, choice, bias=True) == held
