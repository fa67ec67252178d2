"""Files are run as they are: any batch, any stored type, without TensorFlow."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from refusals import refuses

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.base.predictor import at_once
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.deploy.runtimes.samples import random_samples
from dsconvert.deploy.runtimes.session import decode, encode
from dsconvert.deploy.runtimes.tensor_info import TensorInfo


def save_onnx(path, nodes, inputs, outputs, initializers=()):
    """Write a small .onnx file; inputs and outputs are (name, type, shape)."""
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [tensor(*v) for v in inputs],
        [
            value
            if isinstance(value, onnx.ValueInfoProto)
            else helper.make_tensor_value_info(*value)
            for value in outputs
        ],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def doubling(tmp_path):
    """y = x + x for a fixed batch of 4."""
    return save_onnx(
        tmp_path / "double.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", TensorProto.FLOAT, [4, 3])],
        [("y", TensorProto.FLOAT, [4, 3])],
    )


@pytest.fixture(scope="module")
def dense_model():
    """A Keras model of one dense layer with known weights, and inputs for it."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,), name="x"), keras.layers.Dense(4, name="y")])
    return model, np.random.default_rng(0).normal(size=(37, 8)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_fixed_batch_is_fed_in_pieces(doubling, batch):
    x = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3)
    (y,) = open_runtime(doubling).predict([x])
    np.testing.assert_array_equal(y, 2 * x)


def test_free_batch_is_fed_in_pieces_that_fit_in_memory(dense_model, tmp_path):
    model, x = dense_model
    export(model, tmp_path / "dense.onnx")
    runtime = open_runtime(tmp_path / "dense.onnx")
    (y,) = runtime.predict([x])
    assert (runtime.batch, y.shape) == (None, (37, 4))
    np.testing.assert_allclose(y, model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_tflite_of_batch_one_takes_any_batch(dense_model, tmp_path, quantize):
    model, x = dense_model
    export(model, tmp_path / "dense.tflite", quantize=quantize, calibration=x)
    runtime = open_runtime(tmp_path / "dense.tflite")
    (y,) = runtime.predict([x])
    assert (runtime.input_names, runtime.output_names) == (("x",), ("y",))
    assert (runtime.input_shapes, runtime.batch, y.dtype) == (((1, 8),), 1, np.float32)
    # int8: half a step at the output, plus half a step of input and weight errors over 8 terms.
    step = runtime.outputs[0].scale or 1e-6
    assert np.abs(y - model(x)).max() < (4 * step if quantize == "int8" else 1e-5)


def test_float16_inputs_are_fed_float16(tmp_path):
    path = save_onnx(
        tmp_path / "half.onnx",
        [helper.make_node("Mul", ["x", "x"], ["y"])],
        [("x", TensorProto.FLOAT16, ["n", 3])],
        [("y", TensorProto.FLOAT16, ["n", 3])],
    )
    runtime = open_runtime(path)
    (y,) = runtime.predict([np.array([[0.1, 1.0, 3.0]], np.float32)])
    assert (runtime.inputs[0].dtype, y.dtype) == ("float16", np.float32)
    np.testing.assert_array_equal(y, np.square(np.float16([[0.1, 1.0, 3.0]])).astype(np.float32))


def test_initializers_listed_as_inputs_are_no_inputs(tmp_path):
    weight = onnx.numpy_helper.from_array(np.full((3,), 5, np.float32), "w")
    path = save_onnx(
        tmp_path / "old.onnx",
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [("w", TensorProto.FLOAT, [3]), ("x", TensorProto.FLOAT, ["n", 3])],
        [("y", TensorProto.FLOAT, ["n", 3])],
        [weight],
    )
    assert open_runtime(path).input_names == ("x",)


def test_prepared_invocation_needs_no_more_inputs(dense_model, tmp_path):
    model, x = dense_model
    for name in ("dense.tflite", "dense.onnx"):
        export(model, tmp_path / name)
        prepared = open_runtime(tmp_path / name).prepare([x[:1]])
        prepared.run()
        np.testing.assert_allclose(prepared.read()[0], model(x[:1]), rtol=1e-5, atol=1e-6)


def test_quantization_rounds_to_nearest_and_saturates():
    info = TensorInfo(name="x", shape=(None,), dtype="int8", scale=0.5, zero_point=-10)
    stored = encode(np.array([0.0, 0.26, 0.24, 1e6, -1e6], np.float32), info)
    np.testing.assert_array_equal(stored, np.array([-10, -9, -10, 127, -128], np.int8))
    np.testing.assert_array_equal(decode(stored[:2], info), np.array([0.0, 0.5], np.float32))


def test_large_samples_are_run_a_few_at_a_time():
    small, image, large = np.zeros((9, 3)), np.zeros((9, 224, 224, 3)), np.zeros((9, 2049, 2049))
    assert at_once([small], 32) == 32
    assert at_once([image], 32) == 27
    assert at_once([image, image], 32) == 13
    assert at_once([large], 32) == 1


def test_outputs_without_a_batch_are_of_one_sample_each(tmp_path):
    """A sum, the places of what is not zero, and a batch behind the time."""
    path = save_onnx(
        tmp_path / "odd.onnx",
        [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("NonZero", ["x"], ["where"]),
            helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0]),
        ],
        [("x", TensorProto.FLOAT, ["n", 3])],
        [
            ("sum", TensorProto.FLOAT, []),
            ("where", TensorProto.INT64, [2, "found"]),
            ("turned", TensorProto.FLOAT, [3, "n"]),
        ],
    )
    x = np.array([[1, 0, 2], [0, 0, 3], [4, 5, 6]], np.float32)
    runtime = open_runtime(path)
    total, where, turned = runtime.predict([x])
    np.testing.assert_array_equal(total, [3, 3, 15])
    np.testing.assert_array_equal(where[:, 1], [[0, 2, -1], [2, -1, -1], [0, 1, 2]])
    np.testing.assert_array_equal(turned, x)
    assert [kind.labels for kind in runtime.output_kinds] == [False, True, False]


def test_state_beside_the_signal_is_one_invocation(tmp_path):
    path = save_onnx(
        tmp_path / "state.onnx",
        [
            helper.make_node("Mul", ["x", "rate"], ["y"]),
            helper.make_node("Add", ["state", "state"], ["after"]),
        ],
        [
            ("x", TensorProto.FLOAT, ["n", "t"]),
            ("state", TensorProto.FLOAT, [2, "n", 4]),
            ("rate", TensorProto.FLOAT, []),
        ],
        [("y", TensorProto.FLOAT, ["n", "t"]), ("after", TensorProto.FLOAT, [2, "n", 4])],
    )
    runtime = open_runtime(path)
    arrays = random_samples(runtime.inputs, 0)
    assert [array.shape for array in arrays] == [(1, 512), (2, 1, 4), ()]
    y, after = runtime.predict(arrays)
    np.testing.assert_allclose(y, arrays[0] * arrays[2], rtol=1e-6)
    np.testing.assert_array_equal(after, 2 * arrays[1])
    assert ds.verify(path, path).passed


class TestRefusals:
    def test_corrupt_files(self, dense_model, doubling, tmp_path):
        export(dense_model[0], tmp_path / "dense.tflite")
        for path in (tmp_path / "dense.tflite", doubling):
            cut = tmp_path / f"cut{path.suffix}"
            cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            with refuses("does-not-load") as refused:
                open_runtime(cut)
            assert "\n" not in str(refused.value)

    @pytest.mark.parametrize(
        ("name", "message", "hint"),
        [
            ("model.keras", "is a Keras model", "dsconvert export"),
            ("model.pb", "no runtime for this format", ""),
            ("model.onnx", "does not exist", ""),
        ],
    )
    def test_other_files(self, tmp_path, name, message, hint):
        with pytest.raises(InputError, match=message) as refused:
            open_runtime(tmp_path / name)
        assert hint in refused.value.words.hint

    def test_sequence_output(self, tmp_path):
        sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
        path = save_onnx(
            tmp_path / "sequence.onnx",
            [helper.make_node("SequenceConstruct", ["x"], ["y"])],
            [("x", TensorProto.FLOAT, [1, 3])],
            [sequence],
        )
        with pytest.raises(InputError, match=r"y is a seq\(tensor\(float\)\); only numeric"):
            open_runtime(path)

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ([np.zeros((4, 5))], "shape 4×5, allowed is n×3"),
            ([np.zeros((4, 3))] * 2, "2 arrays"),
        ],
    )
    def test_inputs_that_do_not_fit(self, doubling, inputs, message):
        with pytest.raises(InputError, match=message):
            open_runtime(doubling).predict(inputs)

    def test_size_that_the_model_cannot_run(self, tmp_path):
        weight = onnx.numpy_helper.from_array(np.zeros((1, 1, 5, 5), np.float32), "w")
        path = save_onnx(
            tmp_path / "conv.onnx",
            [helper.make_node("Conv", ["x", "w"], ["y"])],
            [("x", TensorProto.FLOAT, ["n", 1, "h", "w"])],
            [("y", TensorProto.FLOAT, ["n", 1, "oh", "ow"])],
            [weight],
        )
        with pytest.raises(InputError, match="cannot run on inputs of shape 2×1×3×3"):
            open_runtime(path).predict([np.zeros((2, 1, 3, 3))])

    def test_no_threads(self, doubling):
        with pytest.raises(InputError, match="threads must be 1 or more"):
            open_runtime(doubling, threads=0)


def test_no_file_needs_tensorflow_or_keras(dense_model, tmp_path):
    for name in ("dense.tflite", "dense.onnx"):
        export(dense_model[0], tmp_path / name)
    program = """
import sys
import numpy as np
from dsconvert.deploy.profiling.profile import profile
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.deploy.runtimes.samples import random_samples
frameworks = {"tensorflow", "keras", "onnx", "onnxruntime", "ai_edge_litert", "tf2onnx"}
print(sorted(frameworks & set(sys.modules)))
for path in sys.argv[1:]:
    open_runtime(path).predict([np.zeros((2, 8))])
print(sorted(frameworks & set(sys.modules)))
profile(sys.argv[1:], runs=1, min_seconds=0)
print(sorted(frameworks & set(sys.modules)))
"""
    files = [str(tmp_path / name) for name in ("dense.tflite", "dense.onnx")]
    done = subprocess.run(
        [sys.executable, "-c", program, *files], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "[]",
        "['ai_edge_litert', 'onnx', 'onnxruntime']",  # which tells sizes, where it is installed
        "['ai_edge_litert', 'onnx', 'onnxruntime']",
    ]
