"""What an export says of its file: what it costs, what it leaves alone, what it needs."""

import re

import keras
import pytest
from keras import layers
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.metadata import read_metadata
from dsconvert.deploy.exporting.tflite import unsupported_operation


class TestNotes:
    def test_slow_quantizations_tell_what_they_cost_here(self, digits, digits_cnn, tmp_path):
        images, _ = digits
        for name, quantize in (("m.tflite", "int16x8"), ("m.onnx", "dynamic")):
            artifact = export(digits_cnn, tmp_path / name, quantize=quantize, calibration=images)
            assert any(
                re.search(r"this file takes [\d.]+ times as long as float32 here", note)
                for note in artifact.notes
            )

    def test_tflite_leaves_small_weights_alone_in_dynamic(self, tmp_path):
        x = keras.Input((4,))
        model = keras.Model(x, layers.Dense(3)(x))
        artifact = export(model, tmp_path / "m.tflite", quantize="dynamic")
        assert any("nothing was quantized" in note for note in artifact.notes)

    def test_one_class_for_all_proves_nothing(self, digits, tmp_path):
        images, _ = digits
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Flatten(),
                layers.Dense(5, activation="softmax"),
            ]
        )
        model.layers[-1].bias.assign([9.0, 0, 0, 0, 0])
        for given, told in ((images[:40], True), (images[:40] * 500, False)):
            artifact = export(model, tmp_path / "m.tflite", verification=given, overwrite=True)
            assert any("proves nothing" in note for note in artifact.notes) is told


class Erf(layers.Layer):
    def call(self, x):
        import tensorflow as tf

        return tf.raw_ops.Erf(x=x)  # by this name nothing replaces it


class TestFlex:
    def model(self):
        x = keras.Input((4,), name="x")
        return keras.Model(x, Erf(name="my_special")(layers.Dense(4, name="first")(x)))

    def test_the_layer_is_named_with_what_to_do(self, tmp_path):
        said = r"kernel for Erf, in the layer 'my_special'"
        with pytest.raises(InputError, match=said) as error:
            export(self.model(), tmp_path / "m.tflite")
        assert "--allow-flex" in error.value.words.hint

    def test_what_cannot_be_run_is_not_called_verified(self, tmp_path):
        path = tmp_path / "m.tflite"
        with refuses("needs-flex"):
            export(self.model(), path, allow_flex=True)
        assert not list(tmp_path.iterdir())
        artifact = export(self.model(), path, allow_flex=True, gate=False)
        assert any("Flex delegate" in note for note in artifact.notes)
        assert read_metadata(path).verified_on == "nothing"

    def test_a_model_that_needs_none_has_none(self, digits_cnn, tmp_path):
        artifact = export(digits_cnn, tmp_path / "m.tflite", allow_flex=True)
        assert artifact.fidelity[0].relative_error < 1e-5

    def test_custom_operations_are_beyond_it(self, tmp_path):
        class Source:
            model = self.model()
            free_inputs = ()

        said = 'loc(fused["Roll:", "functional_1/first_1/Roll@f"]): error\nCustom ops: Roll, Fold\n'
        error = unsupported_operation(ValueError(said), Source(), "none")
        assert "no TFLite kernel for Roll, Fold, in the layer 'first'." in error.message
        assert "a kernel of your own" in error.hint
