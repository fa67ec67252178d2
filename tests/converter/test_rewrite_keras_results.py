"""The report counts what the new model holds, and the new model needs nothing but Keras."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers
from keras_checks import images, model_of, outputs

from dsconvert.converter.backends.keras.cost import model_macs
from dsconvert.converter.core.types import ORDERS
from dsconvert.converter.rewrite import rewrite


class TestReport:
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("pairs", [1, 2])
    def test_counts_are_those_of_the_model(self, order, pairs):
        model = model_of(
            layers.Conv2D(8, 3, name="a"),
            layers.Conv2D(6, 1, name="one"),
            layers.Conv2D(7, (1, 3), strides=2, use_bias=False, name="b"),
        )
        result = rewrite(model, pairs=pairs, order=order)
        report = result.report

        assert report.params_before == sum(w.size for w in model.get_weights())
        assert report.params_after == sum(w.size for w in result.model.get_weights())
        assert sum(layer.params_before for layer in report.layers) == report.params_before
        assert sum(layer.params_after for layer in report.layers) == report.params_after
        # Every weight of every layer of this model is used once per output position.
        for made, macs in ((model, report.macs_before), (result.model, report.macs_after)):
            weights = [
                np.prod(layer.output.shape[1:3]) * sum(w.size for w in layer.get_weights()[:1])
                for layer in made.layers
                if layer.weights
            ]
            assert macs == model_macs(made) == sum(weights)
        assert sum(layer.macs_before for layer in report.layers) == report.macs_before
        assert sum(layer.macs_after for layer in report.layers) == report.macs_after

    def test_dense_and_other_convolutions_count(self):
        model = model_of(
            layers.DepthwiseConv2D(3, name="dw"),  # 9·6 on 6×6
            layers.Conv2DTranspose(4, 2, strides=2, name="up"),  # 4·6·4 per input position
            layers.SeparableConv2D(5, 3, name="sep"),  # 9·4 + 4·5 on 10×10
            layers.Dense(2),  # 5·2 on 10×10
            layers.GlobalMaxPooling2D(),
            layers.Dense(3),
        )

        expected = 54 * 36 + 96 * 36 + 56 * 100 + 10 * 100 + 6
        assert model_macs(model) == expected
        for layer in model.layers:
            layer.trainable = False
        assert model_macs(model) == expected

    def test_free_sizes_have_no_macs(self):
        model = model_of(layers.Conv2D(5, 3), shape=(None, None, 6))
        report = rewrite(model).report

        assert report.macs_before is report.macs_after is report.layers[0].macs_after is None
        assert report.params_after < report.params_before


def test_saved_models_load_where_dsconvert_is_not(tmp_path):
    image = keras.Input((8, 8, 6), name="image")
    inner = model_of(layers.Conv2D(6, 3, padding="same", activation="relu"))
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, dtype="mixed_bfloat16")(inner(image)))
    x = layers.Conv2D(5, 3, activation=layers.ReLU(6.0), name="map")(x)
    model = keras.Model(image, [layers.GlobalMaxPooling2D(name="top")(x), x])
    x = images(20, 8, 8, 6)
    rewritten = rewrite(model, pairs=2, calibration=x).model
    paths = [tmp_path / "model.keras", tmp_path / "model.h5"]
    for path in paths:
        rewritten.save(path)
    np.savez(tmp_path / "data.npz", x, *outputs(rewritten, x))
    code = f"""
        import sys
        import keras
        import numpy as np

        x, *expected = np.load({str(tmp_path / "data.npz")!r}).values()
        for path in {[str(path) for path in paths]!r}:
            model = keras.models.load_model(path, compile=False)
            assert model.output_names == ["top", "map"], model.output_names
            for output, reference in zip(model(x), expected, strict=True):
                np.testing.assert_allclose(output, reference, rtol=1e-6, atol=1e-6)
        assert not any(name.startswith("dsconvert") for name in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
