"""Three-factor blocks in whole networks: chosen, fitted, written, planned and replayed."""

from __future__ import annotations

import keras
import msgspec
import numpy as np
import pytest
from block_form import CONV_64
from click.testing import CliRunner
from keras import layers
from keras_checks import conv, images, model_of, norm, outputs
from numerics import plan_of
from onnx_native import Net
from onnx_native import outputs as onnx_outputs
from refusals import refuses

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.converter.backends.keras.block_model import block_model as keras_block_model
from dsconvert.converter.backends.onnx.block_model import block_model as onnx_block_model
from dsconvert.converter.balancing import equalized
from dsconvert.converter.core.fitting import three_factor_block
from dsconvert.converter.core.fitting.cost import block_macs, channels_of_pairs, pair_macs
from dsconvert.converter.core.fitting.styles import block_style
from dsconvert.converter.core.fitting.three_factor_fit import fit_three_factors
from dsconvert.converter.core.planning.cost_model import block_of
from dsconvert.converter.core.types import Choice, Plan
from dsconvert.converter.plan import search_space
from dsconvert.converter.rewrite import rewrite
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.runtimes.registry import open_runtime

BLOCK = Choice(block="three-factor", channels=8)
STYLE = block_style("three-factor")


def network():
    """Two convolutions that see correlated inputs, one with a norm behind it."""
    keras.utils.set_random_seed(0)
    image = keras.Input((9, 10, 6))
    x = conv(8, activation="relu", name="a")(image)
    x = layers.ReLU()(norm()(conv(10, strides=2, name="b", use_bias=False)(x)))
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def onnx_network():
    """The same layers with weights of their own, channels first."""
    net = Net()
    net.conv("x", "a", (6, 8), pads=[1] * 4)
    net.node("Relu", "a", "r")
    net.conv("r", "b", (8, 10), pads=[1] * 4, strides=[2, 2], bias=False)
    net.norm("b", "n", 10)
    net.node("Relu", "n", "s")
    net.node("GlobalAveragePool", "s", "y")
    return net.model()


@pytest.fixture(scope="module")
def models():
    x = images(60, 9, 10, 6)
    x = x + 0.5 * np.roll(x, 1, axis=1)
    return {
        "keras": (network(), outputs, x),
        "onnx": (onnx_network(), onnx_outputs, np.ascontiguousarray(x.transpose(0, 3, 1, 2))),
    }


@pytest.mark.parametrize("kind", ["keras", "onnx"])
class TestBothFrameworks:
    def test_it_is_fitted_better_than_the_pairs_of_as_many_macs(self, kind, models):
        model, _, x = models[kind]
        name = "a" if kind == "keras" else rewrite(model).report.layers[0].name
        pair, block = (
            rewrite(model, calibration=x, include=[name], **how).report.layers[0]
            for how in ({}, {"block": "three-factor"})
        )
        assert block.macs_after <= pair.macs_after
        assert block.data_error < pair.data_error
        assert block.text == f"three-factor R = {block.channels}"

    def test_its_layers_are_named_after_the_convolution(self, kind, models):
        model = models[kind][0]
        made = rewrite(model, block="three-factor", channels=8)
        (first, _) = (row.name for row in made.report.layers)
        names = (
            [layer.name for layer in made.model.layers]
            if kind == "keras"
            else [node.name for node in made.model.graph.node]
        )
        assert [n for n in names if n.startswith(f"{first}_")] == [
            f"{first}_{part}" for part in ("in", "dw", "out")
        ]

    def test_wide_ones_compute_what_the_network_computed(self, kind, models):
        model, run, x = models[kind]
        made = rewrite(model, block="three-factor", channels=1000).model
        for expected, got in zip(run(model, x), run(made, x), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())

    def test_a_plan_replays_it_and_the_same_seed_gives_the_same_weights(self, kind, models):
        model, run, x = models[kind]
        made = rewrite(model, calibration=x, block="three-factor", channels=8, seed=3)
        text = msgspec.json.encode(made.plan)
        assert b'"block":"three-factor","channels":8' in text
        again = rewrite(model, calibration=x, plan=msgspec.json.decode(text, type=Plan), seed=3)
        for one, other in zip(run(made.model, x), run(again.model, x), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_a_plan_chooses_among_several_widths(self, kind, models):
        model, _, x = models[kind]
        found = search_space(model, calibration=x)
        for layer in found.layers:
            blocks = [c for c in layer.candidates if c.choice.block == "three-factor"]
            widths = [c.choice.channels for c in blocks]
            assert len(widths) > 1
            assert widths == sorted(widths, reverse=True)
            errors = [c.effect.data_error for c in blocks]
            assert (np.diff(errors) > 0).all()
            assert all(c.macs < layer.macs or c.params < layer.params for c in blocks)


def test_a_fit_to_drifted_inputs_begins_where_the_one_to_clean_inputs_ended(models, monkeypatch):
    model, _, x = models["keras"]
    begun = []

    def watched(stats, kernel, channels, *, start, **options):
        begun.append((kernel.shape[-1], start is not None))
        return fit_three_factors(stats, kernel, channels, start=start, **options)

    monkeypatch.setattr(three_factor_block, "fit_three_factors", watched)
    rewrite(model, calibration=x, block="three-factor", channels=8)
    # Before the first layer nothing has drifted: all strategies share its fit.
    assert begun[:2] == [(8, False), (10, False)]
    assert set(begun[2:]) == {(10, True)}


@pytest.mark.parametrize("kind", ["keras", "onnx"])
def test_both_inner_scales_are_equalized(kind, models):
    """Channels between the layers get one range each, and the outputs stay."""
    model, run, x = models[kind]
    made = rewrite(model, calibration=x, block="three-factor", channels=8).model
    even, (told, *_) = equalized(made, [x])
    assert "4 pairs" in told  # two in each block
    for expected, got in zip(run(made, x), run(even, x), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())
    if kind == "keras":
        inner = [even.get_layer(name).output for name in ("a_in", "a_dw", "b_in", "b_dw")]
        for values in keras.Model(even.inputs, inner)([x]):
            flat = np.asarray(values).reshape(-1, 8)
            width = np.maximum(flat, 0).max(0) - np.minimum(flat, 0).min(0)
            np.testing.assert_allclose(width, width[0], rtol=1e-4)


def test_the_files_that_are_timed_hold_it():
    """What a plan times is what a rewrite writes: three convolutions."""
    block = block_of(msgspec.structs.replace(CONV_64, strides=(2, 2)), (9, 10), "relu")
    drawn = onnx_block_model(block, BLOCK)
    assert [node.op_type for node in drawn.graph.node] == ["Conv", "Conv", "Conv", "Relu"]
    (made,) = onnx_outputs(drawn, images(1, 64, 9, 10))
    assert made.shape == (1, 64, 5, 5)
    timed = keras_block_model(block, [None, BLOCK])
    plain, other = outputs(timed, images(1, 9, 10, 64))
    assert plain.shape == other.shape == (1, 5, 5, 64)
    assert {"block1_in", "block1_dw", "block1_out"} <= {layer.name for layer in timed.layers}


def test_an_open_width_costs_as_much_as_the_pairs():
    made = rewrite(network(), block="three-factor", pairs=2)
    for row in made.report.layers:
        spec = next(layer.spec for layer in made.plan.layers if layer.name == row.name)
        budget = pair_macs(spec, "depthwise-first", 2)
        assert row.channels == channels_of_pairs(spec, 2)
        assert budget - block_macs(spec, 8) < row.macs_after <= budget


def test_channels_of_pairs_are_multiples_where_one_fits():
    assert channels_of_pairs(CONV_64, 1) == 32  # 64·73 / 137 = 34.1
    assert channels_of_pairs(CONV_64, 1, 16) == 32
    assert channels_of_pairs(CONV_64, 0.1) == 3  # fewer than eight
    assert channels_of_pairs(CONV_64, 0.001) == 1
    free = msgspec.structs.replace(CONV_64, input_sizes=(None,))
    assert channels_of_pairs(free, 1) == 32


class TestChoices:
    @pytest.mark.parametrize(
        ("choice", "words"),
        [
            (Choice(block="three-factor", channels=0), "at least 1, got 0"),
            (Choice(block="three-factor", channels=8, pairs=2), "8 channels and 2 pairs"),
            (Choice(block="three-factor", pairs=0), "pairs must be at least 1"),
            (Choice(block="three-factor", channels=8, order="depthwise-first"), "order depthwise"),
            (Choice(block="three-factor", channels=8, lowering="multiplier"), "multiplier"),
        ],
    )
    def test_what_it_cannot_be_is_refused_with_the_layer(self, choice, words):
        with pytest.raises(InputError, match=f"choice for 'a'.*{words}"):
            rewrite(network(), plan=plan_of(["a"], choice))

    def test_an_open_width_has_no_cost(self):
        with pytest.raises(InputError, match="definite width"):
            STYLE.written(Choice(block="three-factor"))

    def test_a_plan_may_leave_the_width_open(self):
        open_width = plan_of(["a"], Choice(block="three-factor", pairs=2))
        made = rewrite(network(), plan=open_width)
        assert made.plan.layers[0].choice == Choice(
            block="three-factor", channels=channels_of_pairs(made.plan.layers[0].spec, 2)
        )

    def test_a_plan_of_pairs_becomes_blocks_of_as_many_macs(self):
        planned = rewrite(network(), pairs=2, order="pointwise-first").plan
        made = rewrite(network(), plan=planned, block="three-factor")
        assert made.plan.chosen == rewrite(network(), pairs=2, block="three-factor").plan.chosen

    def test_only_it_has_a_width(self):
        with refuses("option-not-applicable"):
            rewrite(network(), channels=8)


def test_random_blocks_have_its_shape():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 6, 8))
    made = STYLE.random(kernel, np.ones(8), BLOCK, rng)
    assert made.choice == BLOCK
    np.testing.assert_array_equal(made.bias, np.zeros(8))
    assert made.weight_error == pytest.approx(
        np.linalg.norm(made.kernel() - kernel) / np.linalg.norm(kernel)
    )
    assert np.abs(made.pointwise_in).max() <= np.sqrt(6 / (6 + 8))


def test_the_exported_file_computes_it(tmp_path):
    model, x = network(), images(40, 9, 10, 6)
    made = rewrite(model, calibration=x, block="three-factor").model
    path = tmp_path / "m.tflite"
    export(made, path, allow_random=True)
    got = np.concatenate([open_runtime(path).predict((image[None],))[0] for image in x[:4]])
    np.testing.assert_allclose(got, outputs(made, x[:4])[0], atol=1e-4)


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model_of(conv(8, name="a"), conv(8, name="b")).save("m.keras")
    args = ["rewrite", "m.keras", "--channels", "5"]
    assert CliRunner().invoke(main, args).exit_code == 0
    names = [layer.name for layer in ds.load("m_ds.keras").model.layers]
    assert names[-6:] == ["a_in", "a_dw", "a_out", "b_in", "b_dw", "b"]
    args += ["--structure", "pairs", "-o", "x.keras"]
    assert CliRunner().invoke(main, args).exit_code == 2


@pytest.mark.parametrize("kind", ["keras", "onnx"])
def test_inspect_shows_its_error_beside_that_of_the_pairs(kind, models):
    model, _, x = models[kind]
    found = ds.inspect(model, calibration=x)
    (name,) = (row.name for row in found.convolutions if row.spec.strides == (1, 1))
    (row,) = (row for row in found.convolutions if row.name == name)
    assert [option.pairs for option in row.three_factor] == [1, 2, 3, 4]
    for block, pair in zip(row.three_factor, row.options, strict=True):
        assert block.macs <= pair.macs
        assert block.channels == channels_of_pairs(row.spec, block.pairs)
    errors = [option.data_error for option in row.three_factor]
    assert (np.diff(errors) <= 0).all()
    assert errors[-1] < 0.5 * errors[0]
    fitted = rewrite(
        model, calibration=x, include=[name], block="three-factor", channels=8
    ).report.layers
    same = next(option for option in row.three_factor if option.channels == 8)
    (best,) = (layer.data_error for layer in fitted if layer.block)
    assert same.data_error == pytest.approx(best, rel=0.3)  # a quick fit to all the images
    assert f"{100 * same.data_error:.1f} % (8)" in str(found)
    assert all(row.three_factor == () for row in ds.inspect(model).convolutions)
