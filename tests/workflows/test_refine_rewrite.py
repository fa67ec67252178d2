"""Refinement: distillation on the calibration images, kept only where it helps."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras_checks import conv, images, model_of, norm, outputs, residual
from onnx_twin import onnx_twin

import dsconvert as ds
from dsconvert.base import fidelity
from dsconvert.base.errors import InputError
from dsconvert.base.predictor import at_once
from dsconvert.converter.backends.keras.composed import ComposedModel
from dsconvert.converter.rewrite import rewrite
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.models.training import refine as ds_refine
from dsconvert.workflows import plan as plan_workflow
from dsconvert.workflows import refine as workflow

WAYS = {
    "depthwise first": {"pairs": 2, "order": "depthwise-first"},
    "pointwise first": {"pairs": 2, "order": "pointwise-first"},
    "one pair": {"pairs": 1},
    "block": {"block": "three-factor", "channels": 4},
}


def strided():
    """Strides, dilation, no padding, with and without bias, norm and activation."""
    image = keras.Input((12, 12, 6))
    x = conv(8, strides=2, activation="relu", name="a")(image)
    x = layers.ReLU()(norm()(layers.Conv2D(8, 3, dilation_rate=2, use_bias=False, name="b")(x)))
    return keras.Model(image, layers.Flatten()(layers.Conv2D(5, 2, name="c")(x)))


class TestComposed:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize(("build", "convolutions"), [(strided, 3), (residual, 4)])
    def test_it_computes_what_the_model_computes(self, way, build, convolutions):
        keras.utils.set_random_seed(0)
        model = build()
        made = rewrite(model, **WAYS[way]).model
        run = ComposedModel(made, model)
        x = images(3, *model.inputs[0].shape[1:])
        assert run.blocks == convolutions
        (got,), features = run.run([x])
        (expected,) = outputs(made, x)
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())
        # The convolutions' outputs, and the sums of the residual network.
        assert len(features) == convolutions + (0 if build is strided else 2)

    @pytest.mark.parametrize("build", [strided, residual])
    def test_its_features_are_those_of_the_original(self, build):
        """As many pairs as a kernel has taps leave no error: every feature is the same."""
        keras.utils.set_random_seed(0)
        model = build()
        made = rewrite(model, pairs=9).model
        x = images(3, *model.inputs[0].shape[1:])
        _, ours = ComposedModel(made, model).run([x])
        _, theirs = ComposedModel(model, model, student=made).run([x])
        assert len(ours) >= 3
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())

    def test_no_features_of_what_was_renamed(self):
        """A layer whose name no longer tells what it stands for is compared with nothing."""
        keras.utils.set_random_seed(0)
        model = model_of(conv(8, name="a"), conv(8, name="b"), conv(8, name="c"), shape=(8, 8, 8))
        made = rewrite(model, pairs=1, order="depthwise-first").model
        x = images(2, 8, 8, 8)
        for name, count in (("b_", 2), ("new", 1)):
            for layer in made.layers:
                layer.name = layer.name.replace("b_", name)
            for run in (ComposedModel(made, model), ComposedModel(model, model, student=made)):
                assert len(run.run([x])[1]) == count

    @pytest.mark.parametrize("way", WAYS)
    def test_its_gradients_are_those_of_the_layers(self, way):
        keras.utils.set_random_seed(0)
        model = strided()
        made = rewrite(model, **WAYS[way]).model
        run = ComposedModel(made, model)
        variables = [v.value for layer in made.layers for v in layer.trainable_weights]
        x = images(3, 12, 12, 6)
        found = []
        for compute in (lambda: run.run([x])[0][0], lambda: made(x, training=False)):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.sin(compute()))
            found.append(tape.gradient(loss, variables))
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max() + 1e-6)

    def test_a_multiplier(self):
        model = strided()
        plan = rewrite(model, pairs=2, order="depthwise-first").plan
        import msgspec

        deep = [
            msgspec.structs.replace(
                layer, choice=msgspec.structs.replace(layer.choice, lowering="multiplier")
            )
            for layer in plan.layers
        ]
        made = rewrite(model, plan=msgspec.structs.replace(plan, layers=tuple(deep))).model
        run = ComposedModel(made, model)
        x = images(3, 12, 12, 6)
        assert run.blocks == 3
        np.testing.assert_allclose(run.run([x])[0][0], outputs(made, x)[0], atol=1e-4)

    def test_wide_convolutions_in_bfloat16(self):
        """Eight bits of mantissa: a relative error of 2⁻⁹ in each of the factors."""
        keras.utils.set_random_seed(0)
        model = model_of(conv(64, name="wide"), conv(64, name="wider"), shape=(8, 8, 64))
        made = rewrite(model, pairs=2).model
        x = images(2, 8, 8, 64)
        for one, original in ((made, model), (model, model)):
            run = ComposedModel(one, original, half=True)
            (got,), _ = run.run([x])
            (expected,) = outputs(one, x)
            error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
            assert 1e-5 < error < 0.02
            assert got.dtype == "float32"

    def test_separable_layers_of_the_original_stay_as_they_are(self):
        model = model_of(
            layers.DepthwiseConv2D(3, use_bias=False, name="d"), layers.Conv2D(5, 1, name="p")
        )
        assert ComposedModel(model, model).blocks == 0


class TestWorkflow:
    def test_both_errors_are_told_with_how_to_repeat_it(self, digits_cnn, digits):
        small = ds.rewrite(digits_cnn, calibration=digits[0][:200], refine="150steps")
        done = small.record.refined
        assert done.steps == 150
        assert done.held_out_images == 40
        assert done.error_before == pytest.approx(small.report.trials[0].output_error, rel=1e-3)
        text = str(small)
        assert f"{done.error_before:.4g} → {done.error_after:.4g}" in text
        assert "--refine 150steps" in text
        error = fidelity.output_error(
            [digits_cnn.predict(digits[0][200:300], verbose=0)],
            [small.model.predict(digits[0][200:300], verbose=0)],
        )
        plain = ds.rewrite(digits_cnn, calibration=digits[0][:200], refine=0)
        assert plain.record.refined is None
        assert error < fidelity.output_error(
            [digits_cnn.predict(digits[0][200:300], verbose=0)],
            [plain.model.predict(digits[0][200:300], verbose=0)],
        )

    def test_keras_models_with_images_are_refined_by_default(
        self, digits_cnn, digits, monkeypatch, caplog
    ):
        monkeypatch.setattr(workflow, "DEFAULT", "3steps")
        assert ds.rewrite(digits_cnn, calibration=digits[0][:50]).record.refined.steps == 3
        assert "refine=0 leaves it out" in caplog.text
        assert ds.rewrite(digits_cnn).record.refined is None

    def test_onnx_models_only_when_asked_for(self, digits_cnn, digits, tmp_path):
        proto = onnx_twin(digits_cnn)
        x = np.ascontiguousarray(digits[0][:200].transpose(0, 3, 1, 2))
        plain = ds.rewrite(proto, calibration=x)
        assert plain.record.refined is None
        path = tmp_path / "small.onnx"
        small = ds.rewrite(proto, calibration=x, output=path, refine="150steps")
        done = small.record.refined
        assert done.kept
        assert [node.name for node in small.model.graph.node] == [
            node.name for node in plain.model.graph.node
        ]
        expected = digits_cnn.predict(digits[0][:200], verbose=0)
        held_out = np.random.default_rng(0).permutation(200)[160:]
        size = at_once([x], 64)
        assert size >= 40
        (got,) = open_runtime(path).predict((x[held_out],))
        error = fidelity.output_error([expected[held_out]], [got])
        assert error == pytest.approx(done.error_after, rel=1e-3)

    def test_labels_beside_scores(self):
        image = keras.Input((8, 8, 3))
        scores = conv(4, name="scores")(conv(6, activation="relu", name="first")(image))
        model = keras.Model(image, [scores, keras.ops.argmax(scores, axis=-1)])
        x = images(40, 8, 8, 3)
        small = ds.rewrite(model, calibration=x, refine="1steps")
        assert small.record.refined.steps == 1
        assert [str(tensor.dtype) for tensor in small.model.outputs] == ["float32", "int32"]

    def test_labels_of_nothing_are_no_hindrance_to_a_rewrite(self):
        image, words = keras.Input((8, 8, 3)), keras.Input((5,), dtype="int32")
        made = conv(4)(conv(6)(image))
        model = keras.Model([image, words], [made, keras.ops.argmax(words, axis=-1)])
        x = [images(40, 8, 8, 3), np.zeros((40, 5), np.float32)]
        small = ds.rewrite(model, calibration=x)
        assert small.report.rewritten
        assert small.record.refined is None

    def test_mobilenet_blocks_are_left_to_fine_tuning(self, digits_cnn, digits, caplog):
        options = ds.RewriteOptions(block="mobilenet")
        small = ds.rewrite(digits_cnn, calibration=digits[0][:50], options=options, refine=60)
        assert small.record.refined is None
        assert "not refined: MobileNet blocks need fine-tuning" in caplog.text

    @pytest.mark.parametrize(
        ("wish", "code"), [("soon", "not-a-time"), ("-3", "not-a-time"), (9, None)]
    )
    def test_what_cannot_be_is_refused_at_once(self, digits_cnn, wish, code):
        with pytest.raises(InputError) as caught:
            ds.rewrite(digits_cnn, refine=wish)
        assert caught.value.code == (code or "no-images-to-refine-on")


class TestPlan:
    """`plan` with an accuracy to keep judges networks as `rewrite` leaves them."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch):
        monkeypatch.setattr(workflow, "DEFAULT", "3steps")
        monkeypatch.setattr(plan_workflow, "_STEPS", 2)

    @pytest.fixture
    def planned(self, digits_cnn, digits, tmp_path):
        images, labels = digits
        self.test = tmp_path / "test.npz"
        self.calibration = images[:80]
        np.savez(self.test, x=images[1200:1500], y=labels[1200:1500])

        def plan(wish):
            return ds.plan(
                digits_cnn,
                calibration=self.calibration,
                goals=ds.Goals(macs="0.5x"),
                accuracy=ds.AccuracyGoal("99%", self.test, wish),
                options=ds.PlanOptions(max_pairs=1),
            )

        return plan

    def test_what_is_lost_is_what_the_rewritten_and_refined_network_loses(
        self, planned, digits_cnn
    ):
        made = planned("60steps")
        dropped = made.dropped
        assert (dropped.refined.steps, dropped.refined.kept) == (60, True)
        told = " ".join(str(made).split())
        assert "of refinement; rewrite --refine 60steps" in told
        small = ds.rewrite(
            digits_cnn, plan=made, calibration=self.calibration, refine="60steps"
        ).model
        found = ds.evaluate(small, self.test).top1.value
        assert dropped.lost == pytest.approx(dropped.original - found)

    def test_keras_models_for_the_default_time(self, planned):
        assert planned(None).dropped.refined.steps == 3

    def test_not_at_all_if_that_is_asked_for(self, planned):
        made = planned(0)
        assert made.dropped.refined is None
        assert "judged as fitted" in str(made)

    def test_an_interrupt_ends_the_search(self, planned, monkeypatch):
        def interrupted(model, *_arguments, **_options):
            return model, ds_refine.Refinement(
                steps=1,
                seconds=1,
                error_before=1,
                error_after=None,
                kept=False,
                held_out_images=1,
                interrupted=True,
            )

        monkeypatch.setattr(workflow, "refined", interrupted)
        with pytest.raises(KeyboardInterrupt):
            planned(None)
