"""Names in .tflite files: short, different, and still telling the layer."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.improve import OFF
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.formats.layer_names import layer_name, operator_layer
from dsconvert.formats.tflite.stats import read_tflite
from dsconvert.formats.tflite.tensor_names import shorten


def graph(names, inputs=(), outputs=(), made=()):
    tensors = [SimpleNamespace(name=name.encode()) for name in names]
    operators = [SimpleNamespace(outputs=[index]) for index in made]
    return SimpleNamespace(
        tensors=tensors, inputs=list(inputs), outputs=list(outputs), operators=operators
    )


def renamed(*names, **ends):
    model = SimpleNamespace(subgraphs=[graph(names, **ends)])
    shorten(model)
    return [tensor.name.decode() for tensor in model.subgraphs[0].tensors]


FUSED = "functional_2_1/functional_1_1/relu_1/Relu;functional_2_1/functional_1_1/norm_1/add"
CONV = ";functional_2_1/functional_1_1/conv_1/convolution"


def test_what_it_ends_in_and_the_operation_with_weights_stay():
    assert renamed(FUSED + CONV) == ["relu_1/Relu;conv_1/convolution"]
    assert renamed(CONV[1:] + ";a/b;c/d") == ["conv_1/convolution"]
    assert renamed("functional_1/dense_1/BiasAdd") == ["dense_1/BiasAdd"]
    assert renamed("plain") == ["plain"]


def test_names_stay_different_and_tell_their_layer():
    names = [FUSED + CONV, FUSED + ";x/y" + CONV, FUSED + CONV]
    short = renamed(*names)
    assert len({*short}) == 3
    assert [layer_name(name) for name in short] == [layer_name(name) for name in names]


def test_what_an_operator_makes_has_the_name_itself():
    assert renamed("a/b", "functional_1/a/b") == ["a/b", "a/b1"]
    assert renamed("a/b", "functional_1/a/b", made=[1]) == ["a/b1", "a/b"]


def test_inputs_and_outputs_keep_theirs():
    names = ["functional_1/a;b", "functional_1/a", FUSED]
    assert renamed(*names, inputs=[0], outputs=[2]) == ["functional_1/a;b", "a", FUSED]
    assert renamed("a", "functional_1/a", outputs=[0]) == ["a", "a1"]


class TestNamesOfTheSource:
    """Keras' own names: TensorFlow calls the layer conv2d "conv2d_1", and conv2d_1 "conv2d_1_2"."""

    LAYERS = ("conv2d", "conv2d_1", "conv2d_2", "re_lu", "re_lu_1", "inner")

    def made(self, *names):
        model = SimpleNamespace(subgraphs=[graph(names)])
        shorten(model, self.LAYERS)
        return [tensor.name.decode() for tensor in model.subgraphs[0].tensors]

    def test_the_number_of_the_call_goes_and_that_of_the_layer_stays(self):
        names = (
            "re_lu_1/Relu;conv2d_1/convolution",
            "re_lu_1_2/Relu;conv2d_1_2/convolution",
            "functional_1/inner_1/conv2d_2_1/BiasAdd",
        )
        short = self.made(*names)
        assert short[0] == "re_lu/Relu;conv2d/convolution"
        assert short[1] == "re_lu_1/Relu;conv2d_1/convolution"
        assert list(map(operator_layer, short)) == ["conv2d", "conv2d_1", "inner/conv2d_2"]

    def test_names_without_numbers_of_calls_stay(self):
        names = ["conv2d/convolution", "conv2d_1/convolution", "re_lu_1/Relu"]
        assert self.made(*names) == names

    def test_in_a_file(self, tmp_path):
        layers = keras.layers
        x = start = layers.Input((8, 8, 3), name="image")
        for name in ("conv", "conv_1", "conv_2"):
            x = layers.Conv2D(4, 3, padding="same", name=name)(x)
            x = layers.ReLU(name=name.replace("conv", "relu"))(x)
        path = tmp_path / "model.tflite"
        export(keras.Model(start, x), path, gate=False)
        found = [operator_layer(op.name) for op in read_tflite(path, [(1, 8, 8, 3)]).ops]
        assert found[:2] == ["conv", "conv_1"]  # the last one is called as the output is


def test_exported_file(tmp_path):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = start = layers.Input((8, 8, 3), name="image")
    for name in ("one", "two"):
        x = layers.Conv2D(4, 3, name=name)(x)
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    model = keras.Model(start, layers.Dense(2, name="scores")(layers.Flatten()(x)))
    images = np.random.default_rng(0).normal(size=(30, 8, 8, 3)).astype(np.float32)
    path = tmp_path / "model.tflite"
    export(model, path, quantize="int8", calibration=images, improvement=OFF)
    graph = schema.ModelT.InitFromPackedBuf(path.read_bytes()).subgraphs[0]
    ends = {*graph.inputs, *graph.outputs}
    names = [t.name.decode() for i, t in enumerate(graph.tensors) if i not in ends]
    assert len({*names}) == len(names)
    assert max(map(len, names)) < 60
    assert not any("functional" in name for name in names)
    assert {"one", "two"} < {layer_name(name) for name in names}
    runtime = open_runtime(path)
    assert (runtime.input_names, runtime.output_names) == (("image",), ("scores",))
