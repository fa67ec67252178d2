from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("keras")

from contextlib import contextmanager

import keras
from keras import layers

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.base.progress import silent
from dsconvert.converter.backends.keras.fake_quantized import FakeQuantized
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.models.data.datasets import Data
from dsconvert.models.evaluation.keras_predictor import KerasPredictor
from dsconvert.models.training.finetune import finetune
from dsconvert.models.training.network import NetworkPredictor
from dsconvert.models.training.settings import FinetuneSettings

AS_TRAINED = ds.ExportOptions(
    quantize="int8",
    calibration_method="minmax",
    equalize="off",
    correct_biases=False,
    verify=False,
)


def blurred(count, seed):
    """Images (n, 16, 16, 3) with structure, and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
    return (coarse + 0.3 * rng.normal(size=(count, 16, 16, 3))).astype(np.float32)


def network(seed=1, head=None, top=6.0):
    """Norms behind a convolution and behind a sum of pairs, shortcuts, pools and a dense end."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((16, 16, 3))
    y = layers.Conv2D(12, 3, use_bias=False)(layers.ZeroPadding2D(1)(x))
    y = layers.ReLU(max_value=top)(layers.BatchNormalization()(y))

    def pair(y):
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        return layers.Conv2D(16, 1, use_bias=False)(y)

    y = layers.ReLU()(layers.BatchNormalization()(layers.Add()([pair(y), pair(y)])))
    z = layers.Conv2D(16, 3, padding="same", activation="relu")(y)
    y = layers.MaxPooling2D()(layers.ReLU()(layers.Add()([y, z])))
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(20, 3, activation="relu")(y))
    y = layers.Dropout(0.2)(layers.Dense(24, activation="relu")(y))
    model = keras.Model(x, layers.Dense(10, activation=head, name="scores")(y))
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            spread = rng.uniform(0.3, 2, (2, layer.gamma.shape[0]))
            centre = rng.normal(0, 0.3, (2, layer.gamma.shape[0]))
            layer.set_weights([spread[0], centre[0], centre[1], spread[1]])
    kernel, bias = model.get_layer("scores").get_weights()
    model.get_layer("scores").set_weights([8 * kernel, bias])
    return model


def sqnr(expected, given):
    """In dB, of (n, classes)."""
    noise = float(np.sum((expected - given) ** 2, dtype=np.float64))
    return 10 * np.log10(float(np.sum(expected**2, dtype=np.float64)) / max(noise, 1e-30))


class TestAgreement:
    @pytest.mark.parametrize("head", [None, "softmax"])
    def test_the_file_computes_what_was_trained(self, tmp_path, head):
        model, calibration, unseen = network(head=head), blurred(100, 0), blurred(60, 1)
        predictor = NetworkPredictor(FakeQuantized(model, (calibration,)))
        (trained,) = predictor.predict((unseen,))
        path = tmp_path / "model.tflite"
        ds.export(model, path, AS_TRAINED, calibration=(calibration,))
        (given,) = open_runtime(path).predict((unseen,))
        (floats,) = KerasPredictor(model).predict((unseen,))
        assert sqnr(trained, given) >= 50  # bit for bit but for ties
        assert sqnr(floats, given) < sqnr(trained, given) - 3

    def test_float_without_rounding(self):
        model, images = network(), blurred(8, 0)
        values = FakeQuantized(model, (images,))._values([images], rounded=False)
        (expected,) = KerasPredictor(model).predict((images,))
        np.testing.assert_allclose(values[max(values)], expected, atol=2e-5)

    def test_other_layers_are_refused(self):
        x = keras.Input((8, 8, 3))
        model = keras.Model(x, layers.PReLU()(x))
        with pytest.raises(InputError) as refused:
            FakeQuantized(model, (np.zeros((2, 8, 8, 3), np.float32),))
        assert refused.value.code == "not-quantizable"


class TestTraining:
    @pytest.mark.slow
    @pytest.mark.parametrize("head", [None, "softmax"])
    def test_less_is_lost_in_the_file(self, tmp_path, head):
        teacher = network(top=None, head=head)
        student = keras.models.clone_model(teacher)
        student.set_weights(teacher.get_weights())
        norm = next(x for x in student.layers if isinstance(x, layers.BatchNormalization))
        wide = np.ones(12)  # a few channels take the range of all others
        wide[:3] = 30.0
        gamma, beta, mean, variance = norm.get_weights()
        norm.set_weights([gamma * wide, beta * wide, mean, variance])
        for layer in student.layers:
            if isinstance(layer, layers.DepthwiseConv2D):
                kernel = layer.get_weights()[0]
                layer.set_weights([kernel / wide[None, None, :, None]])
        images, unseen = blurred(400, 2), blurred(100, 3)
        (expected,) = KerasPredictor(teacher).predict((unseen,))

        def lost(model, name):
            """The squared relative error of a model's int8 file."""
            ds.export(model, tmp_path / name, AS_TRAINED, calibration=(images,))
            (given,) = open_runtime(tmp_path / name).predict((unseen,))
            return 10 ** (-sqnr(expected, given) / 10)

        before = lost(student, "before.tflite")
        settings = ds.FinetuneSettings(
            epochs=3, quantize="int8", augment=(), learning_rate=4e-3, validation=100
        )
        tuned = ds.finetune(student, teacher, images, settings, output=tmp_path / "tuned.keras")
        errors = [epoch.output_error for epoch in tuned.history]
        assert tuned.best_epoch > 0
        assert errors[tuned.best_epoch] < errors[0]
        assert lost(student, "after.tflite") < before / 2

    @pytest.mark.slow
    def test_goes_on_with_the_same_ranges(self, tmp_path):
        images = blurred(60, 2)
        settings = FinetuneSettings(epochs=2, batch_size=8, validation=12, quantize="int8")

        def run(progress, state):
            teacher, student = network(seed=1), network(seed=2)
            return finetune(
                student,
                teacher,
                Data((images,)),
                settings,
                state=state,
                network=lambda model: FakeQuantized(model, (images,)),
                progress=progress,
            )

        @contextmanager
        def stopping(label, total):
            steps = iter(range(4))

            def advance():
                if label.startswith("Epoch 2") and next(steps) == 2:
                    raise KeyboardInterrupt

            yield advance

        state = tmp_path / "state"
        assert run(stopping, state).interrupted
        whole, resumed = run(silent, None), run(silent, state)
        for mine, theirs in zip(
            resumed.model.get_weights(), whole.model.get_weights(), strict=True
        ):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-5)

    def test_not_in_bfloat16(self):
        with pytest.raises(InputError) as refused:
            ds.FinetuneSettings(quantize="int8", mixed_precision=True)
        assert refused.value.code == "bad-setting"
