"""What is exported computes what the model computes, or is not kept."""

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import keras
import msgspec
import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from refusals import refuses

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.records import Artifact
from dsconvert.deploy.runtimes.registry import open_runtime

SHARED = Path(os.environ.get("DSCONVERT_SHARED", Path(__file__).parents[3] / "shared"))


def build_cnn(dilation: int = 1, size: int | None = 16) -> keras.Model:
    """Depthwise layers, batch normalisation with statistics, two outputs out of name order."""
    keras.utils.set_random_seed(0)
    image = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, dilation_rate=dilation)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.Conv2D(64, 1)(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    zeta = layers.Dense(10, activation="softmax", name="zeta")(x)
    alpha = layers.Dense(1, name="alpha")(layers.Dense(64, activation="relu")(x))
    model = keras.Model(image, [zeta, alpha])
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def cnn():
    return build_cnn()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(48, 16, 16, 3)).astype(np.float32)


def tflite_ops(path) -> Counter:
    operations = Interpreter(str(path))._get_ops_details()
    return Counter(op["op_name"] for op in operations if op["op_name"] != "DELEGATE")


def onnx_ops(path) -> Counter:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx"])
def test_float32_files_compute_what_the_model_computes(cnn, images, tmp_path, name):
    artifact = export(cnn, tmp_path / name, verification=images)
    expected = [np.asarray(output) for output in cnn(images, training=False)]
    runtime = open_runtime(tmp_path / name)

    assert runtime.input_names == ("image",)
    assert runtime.output_names == ("zeta", "alpha")
    for output, reference in zip(runtime.predict([images]), expected, strict=True):
        # A dozen layers in another order of additions: a dozen float32 roundings of 6e-8.
        np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-6)
    assert [fidelity.name for fidelity in artifact.fidelity] == ["zeta", "alpha"]
    assert all(fidelity.relative_error < 1e-5 for fidelity in artifact.fidelity)
    assert (artifact.verified_on, artifact.samples) == ("verification data", 48)


def test_artifact_describes_the_file(cnn, tmp_path):
    path = tmp_path / "model.tflite"
    artifact = export(cnn, path, source_sha256="ab" * 32)
    content = path.read_bytes()

    assert artifact.sha256 == hashlib.sha256(content).hexdigest()
    assert (artifact.size_bytes, artifact.source_sha256) == (len(content), "ab" * 32)
    assert artifact.verified_on == "random inputs"
    assert artifact.tools["keras"] == keras.__version__
    encoded = msgspec.json.encode(artifact)
    assert encoded.startswith(b'{"schema":"dsconvert.artifact/1"')
    assert msgspec.json.decode(encoded, type=Artifact) == artifact
    assert [p.name for p in tmp_path.iterdir()] == ["model.tflite"]


@pytest.mark.parametrize("dilation", [1, 2])
def test_tflite_fuses_activations_and_normalisation(dilation, tmp_path):
    export(build_cnn(dilation), tmp_path / "model.tflite")

    assert tflite_ops(tmp_path / "model.tflite") == {
        "CONV_2D": 2,
        "DEPTHWISE_CONV_2D": 1,
        "MEAN": 1,
        "FULLY_CONNECTED": 3,
        "SOFTMAX": 1,
    }


def test_onnx_folds_normalisation_and_transposes_once(cnn, tmp_path):
    export(cnn, tmp_path / "model.onnx")
    graph = onnx_ops(tmp_path / "model.onnx")

    assert graph["Conv"] == 3
    assert graph["Transpose"] == 1  # NHWC in, NCHW inside
    assert not {"BatchNormalization", "Mul"} & set(graph)
    proto = onnx.load(tmp_path / "model.onnx")
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 17)]
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize(
    ("quantize", "dtype", "most_bytes", "least_db"),
    [
        ("float16", "float32", 0.75, 50.0),
        ("dynamic", "float32", 0.75, 25.0),
        ("int8", "int8", 0.75, 25.0),
    ],
)
def test_quantized_files_are_smaller_and_close(
    tmp_path, images, quantize, dtype, most_bytes, least_db
):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Conv2D(64, 3, activation="relu"), layers.Conv2D(64, 3)]
    )
    full = export(model, tmp_path / "full.tflite")
    artifact = export(model, tmp_path / "small.tflite", quantize=quantize, calibration=images)

    assert artifact.size_bytes < most_bytes * full.size_bytes
    assert {info.dtype for info in (*artifact.inputs, *artifact.outputs)} == {dtype}
    assert least_db < artifact.fidelity[0].sqnr_db < 100
    assert (artifact.verified_on, artifact.samples) == ("calibration data", 32)


def test_sequential_that_was_never_built_takes_its_shape_from_the_data(images, tmp_path):
    def unbuilt():
        return keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])

    with refuses("model-not-built"):
        export(unbuilt(), tmp_path / "model.onnx")
    artifact = export(unbuilt(), tmp_path / "model.onnx", verification=images)
    assert artifact.inputs[0].shape == (None, 16, 16, 3)


def test_subclassed_model_can_be_exported(images, tmp_path):
    class Twice(keras.Model):
        def call(self, x):
            return 2 * x

    export(Twice(), tmp_path / "model.tflite", verification=images)
    (doubled,) = open_runtime(tmp_path / "model.tflite").predict([images])
    np.testing.assert_array_equal(doubled, 2 * images)


def test_mixed_precision_model_is_exported_in_float32(tmp_path):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = build_cnn()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    artifact = export(model, tmp_path / "model.tflite")

    assert "DEQUANTIZE" not in tflite_ops(tmp_path / "model.tflite")
    assert "CAST" not in tflite_ops(tmp_path / "model.tflite")
    assert artifact.inputs[0].dtype == "float32"
    assert any("float32" in note for note in artifact.notes)
    assert model.layers[1].compute_dtype == "float16"  # the user's model is as it was


def test_double_precision_is_exported_in_float32(tmp_path):
    image = keras.Input((6, 6, 3), dtype="float64")
    model = keras.Model(image, layers.Conv2D(2, 3, dtype="float64")(image))
    for name in ("m.tflite", "m.onnx"):
        artifact = export(model, tmp_path / name)
        assert artifact.outputs[0].dtype == "float32"
        assert artifact.fidelity[0].relative_error < 1e-5


def test_places_of_the_largest_in_onnx(tmp_path):
    image = keras.Input((4, 4, 3))
    found = [keras.ops.argmax(image, axis=-1), keras.ops.argmin(image, axis=1)]
    export(keras.Model(image, found), tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    largest, least = open_runtime(tmp_path / "m.onnx").predict([x])
    np.testing.assert_array_equal(largest, x.argmax(axis=-1))
    np.testing.assert_array_equal(least, x.argmin(axis=1))


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx"])
def test_free_height_and_width_stay_free(name, tmp_path):
    model = build_cnn(size=None)
    artifact = export(model, tmp_path / name)
    runtime = open_runtime(tmp_path / name)

    assert artifact.inputs[0].shape[1:] == (None, None, 3)
    assert any("free sizes" in note for note in artifact.notes)
    for height, width in ((20, 12), (8, 32)):
        x = np.random.default_rng(2).normal(size=(3, height, width, 3)).astype(np.float32)
        for output, reference in zip(runtime.predict([x]), model(x, training=False), strict=True):
            np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-6)


def test_free_sizes_of_a_dilated_model_are_fixed_to_the_data(images, tmp_path):
    model = build_cnn(dilation=2, size=None)
    with pytest.raises(InputError, match="2 arrays where the model has 1 input"):
        export(model, tmp_path / "fixed.tflite", verification=[images, images])
    free = export(model, tmp_path / "free.tflite")
    fixed = export(model, tmp_path / "fixed.tflite", verification=images)

    assert any("dilated" in note for note in free.notes)
    assert fixed.inputs[0].shape == (1, 16, 16, 3)
    assert "SPACE_TO_BATCH_ND" not in tflite_ops(tmp_path / "fixed.tflite")


def test_nothing_is_printed(cnn, tmp_path, capfd):
    export(cnn, tmp_path / "model.tflite")
    export(cnn, tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


class TestRefusals:
    """Unusable input is refused, the cheap checks first, and nothing is written."""

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("model.tflite", {"quantize": "int8"}, "needs calibration data"),
            ("model.tflite", {"quantize": "int4"}, "allows none, float16, dynamic, int8"),
            ("model.tflite", {"quantize": "int16x8"}, "int16x8 quantization needs calibration"),
            ("model.onnx", {"quantize": "int8"}, "needs calibration data"),
            ("model.onnx", {"quantize": "int16x8"}, r"\.onnx allows none, float16"),
            ("model.onnx", {"allow_flex": True}, "allow_flex=True is for .tflite files"),
            ("model.tflite", {"keep_io": False}, "keep_io=False is for float16 .onnx files"),
            ("model.tflite", {"calibration_method": "entropy"}, "is for int8 .onnx files"),
            ("model.onnx", {"calibration_method": "mean"}, "no calibration method 'mean'"),
            ("model.bin", {}, r"must end in \.tflite or \.onnx"),
            ("model.onnx", {"format": "tflite"}, r"must end in \.tflite"),
            ("missing/model.onnx", {}, "does not exist"),
            ("there.onnx", {}, "exists already"),
            ("model.onnx", {}, "only a keras.Model can be exported, got object"),
        ],
    )
    def test_before_the_model_is_read(self, tmp_path, name, options, message):
        (tmp_path / "there.onnx").touch()
        with pytest.raises(InputError) as refused:
            export(object(), tmp_path / name, **options)
        assert re.search(message, refused.value.message)
        assert [p.name for p in tmp_path.iterdir()] == ["there.onnx"]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (np.zeros((4, 8, 8, 3)), "has shape 4×8×8×3, allowed is n×16×16×3"),
            (np.full((4, 16, 16, 3), np.nan), "NaN"),
            (np.zeros((0, 16, 16, 3)), "empty"),
            ([np.zeros((4, 16, 16, 3))] * 2, "2 arrays where the model has 1 input"),
            (np.full((4, 16, 16, 3), "x"), "no numbers"),
        ],
    )
    def test_data_that_does_not_fit(self, cnn, tmp_path, data, message):
        with pytest.raises(InputError, match=message):
            export(cnn, tmp_path / "model.tflite", quantize="int8", calibration=data)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["m.tflite", "m.onnx"])
    def test_operation_that_the_format_lacks_is_named(self, tmp_path, name):
        import tensorflow as tf

        class Special(layers.Layer):
            def call(self, x):
                return tf.math.digamma(x)

        x = keras.Input((4,))
        with pytest.raises(InputError, match="Digamma"):
            export(keras.Model(x, Special()(x)), tmp_path / name)
        assert not list(tmp_path.iterdir())

    def test_failed_gate_leaves_the_old_file(self, tmp_path, images):
        """Calibrated on inputs of a hundredth of the size, every activation saturates."""
        x = keras.Input((16, 16, 3))
        model = keras.Model(x, layers.Conv2D(8, 3)(x))
        path = tmp_path / "model.tflite"
        path.write_bytes(b"old")
        with pytest.raises(GateFailed, match=r"SQNR [\d.]+ dB; at least 10 dB"):
            export(
                model,
                path,
                quantize="int8",
                calibration=images / 100,
                verification=images,
                overwrite=True,
            )
        assert path.read_bytes() == b"old"


def test_int8_keeps_the_accuracy_of_a_real_model(tmp_path):
    """ResNet-8 of MLPerf Tiny: arg max within half a point of the float model's 86.66 %."""
    model_file = SHARED / "models/keras/mlperf_tiny_resnet8_cifar10.h5"
    data_file = SHARED / "data/cifar10.npz"
    if not (model_file.exists() and data_file.exists()):
        pytest.skip("the shared models and data are not here")
    model = keras.saving.load_model(model_file, compile=False)
    with np.load(data_file) as data:
        train, test = data["x_train"][:500].astype(np.float32), data["x_test"].astype(np.float32)
        labels = data["y_test"].ravel()
    accuracy = {}
    for quantize in ("none", "int8"):
        path = tmp_path / f"{quantize}.tflite"
        export(model, path, quantize=quantize, calibration=train)
        (scores,) = open_runtime(path).predict([test])
        accuracy[quantize] = np.mean(scores.argmax(axis=1) == labels)
    assert accuracy["none"] == pytest.approx(0.8666, abs=5e-5)
    assert accuracy["int8"] > accuracy["none"] - 0.005


def test_layers_that_keep_their_state_are_named(tmp_path):
    steps = keras.Input(batch_shape=(2, 4, 3))
    model = keras.Model(steps, layers.LSTM(2, stateful=True, name="kept")(steps))
    for name in ("m.tflite", "m.onnx"):
        with refuses("not-convertible") as refused:
            export(model, tmp_path / name)
        assert "kept" in refused.value.message


def test_what_is_behind_a_lookup_is_exported_as_the_refusal_says(tmp_path):
    words = keras.Input((4,), dtype="int64")
    lookup = layers.IntegerLookup(vocabulary=[1, 2, 3])
    x = layers.Flatten()(layers.Embedding(8, 4)(lookup(words)))
    model = keras.Model(words, layers.Dense(2)(x))
    behind = keras.Model(lookup.output, model.output)
    for suffix in ("tflite", "onnx"):
        with refuses("not-convertible") as refused:
            export(model, tmp_path / f"m.{suffix}")
        assert "keras.Model(lookup.output, model.output)" in refused.value.words.hint
        assert export(behind, tmp_path / f"m.{suffix}").fidelity


class Rows(layers.Layer):
    """Divides by the number of rows, which it has to know."""

    def call(self, x):
        return x / float(x.shape[1])

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_sizes_that_onnx_cannot_leave_free(tmp_path):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, Rows()(layers.Conv2D(2, 3, strides=2)(image)))
    with refuses("free-sizes") as refused:
        export(model, tmp_path / "m.onnx")
    assert "input_size" in refused.value.hint
    data = np.random.default_rng(0).normal(size=(4, 9, 7, 3)).astype(np.float32)
    fixed = export(model, tmp_path / "m.onnx", verification=data)
    assert fixed.inputs[0].shape[1:] == (9, 7, 3)


def test_a_file_of_which_a_runtime_foresees_wrong_sizes_has_no_time(tmp_path):
    from onnx import TensorProto, helper, numpy_helper

    from dsconvert.deploy.exporting.speed import time_ratio

    value, coordinates = helper.make_tensor_value_info, "half_pixel_symmetric"
    scales = numpy_helper.from_array(np.array([1, 1, 1.3, 1.3], np.float32), "scales")
    resize = helper.make_node(
        "Resize", ["x", "", "scales"], ["y"], coordinate_transformation_mode=coordinates
    )
    graph = helper.make_graph(
        [resize],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3, 9, 10])],
        [value("y", TensorProto.FLOAT, ["n", 3, 11, 12])],  # of 9 · 1.3 and 10 · 1.3, rounded
        [scales],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]), path)
    assert time_ratio(path, path, [np.zeros((1, 3, 9, 10), np.float32)]) is None
