"""Networks that are only timed have the operators of the files that `export` writes."""

from collections import Counter

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from refusals import refuses

from dsconvert.deploy.exporting import timed
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.timed import write_timed
from dsconvert.deploy.runtimes.registry import open_runtime

IMAGES = np.random.default_rng(0).uniform(0, 1, (12, 14, 14, 3)).astype(np.float32)


@pytest.fixture
def exported(monkeypatch):
    """Count the exports that a timed file takes."""
    taken = []

    def counted(*args, **kwargs):
        taken.append(args)
        return export(*args, **kwargs)

    monkeypatch.setattr(timed, "export", counted)
    return taken


def residual(size=14):
    """A network of what is rewritten, what is folded, and what needs another form."""
    x = given = keras.Input((size, size, 3))
    for dilation in (1, 2):
        x = keras.layers.Conv2D(8, 3, padding="same", dilation_rate=dilation)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Add()([x, keras.layers.Conv2D(8, 1)(given)])
    x = keras.layers.UnitNormalization()(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(given, [keras.layers.Dense(5, activation="softmax")(x), x])


def operators(path):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    (graph,) = model.subgraphs
    return Counter(
        (model.operatorCodes[op.opcodeIndex].builtinCode, *map(tuple, _shapes(graph, op)))
        for op in graph.operators
    )


def _shapes(graph, op):
    return [graph.tensors[i].shape for i in (*op.inputs, *op.outputs)]


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_the_operators_are_those_of_an_export(quantize, exported, tmp_path):
    keras.utils.set_random_seed(0)
    model = residual()
    whole, quick = tmp_path / "export.tflite", tmp_path / "timed.tflite"
    export(model, whole, quantize=quantize, calibration=IMAGES, gate=False)
    write_timed(model, quick, quantize, [IMAGES])
    assert not exported
    assert operators(quick) == operators(whole)


def test_it_computes_what_the_model_does(exported, tmp_path):
    keras.utils.set_random_seed(0)
    model, path = residual(), tmp_path / "timed.tflite"
    write_timed(model, path, "none", [IMAGES])
    outputs = open_runtime(path).predict([IMAGES[:1]])
    for ours, theirs in zip(outputs, model.predict(IMAGES[:1], verbose=0), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not exported


def free():
    given = keras.Input((None, None, 3))
    return keras.Model(given, keras.layers.Conv2D(4, 3)(given))


def of_two():
    given = [keras.Input((4,)), keras.Input((3,))]
    return keras.Model(given, keras.layers.Dense(2)(keras.layers.Concatenate()(given)))


def recurrent():
    given = keras.Input((6, 3))
    return keras.Model(given, keras.layers.LSTM(4)(given))


def of_joined_samples():
    given = keras.Input(batch_shape=(2, 4))
    return keras.Model(given, given - keras.ops.mean(given, axis=0))


@pytest.mark.parametrize(
    ("model", "shapes", "quantize"),
    [
        (free, [(14, 14, 3)], "none"),
        (of_two, [(4,), (3,)], "none"),
        (recurrent, [(6, 3)], "int8"),
        (of_joined_samples, [(4,)], "none"),
    ],
    ids=["free sizes", "two inputs", "a loop in int8", "joined samples"],
)
def test_what_needs_an_export_gets_one(model, shapes, quantize, exported, tmp_path):
    path = tmp_path / "timed.tflite"
    arrays = [np.ones((8, *shape), np.float32) for shape in shapes]
    write_timed(model(), path, quantize, arrays)
    assert exported
    open_runtime(path)


def test_what_cannot_be_converted_is_refused_as_by_export(tmp_path):
    words = keras.Input((4,), dtype="int64")
    found = keras.layers.IntegerLookup(vocabulary=[1, 2, 3])(words)
    with refuses("not-convertible"):
        write_timed(keras.Model(words, found), tmp_path / "x.tflite", "none", [np.ones((8, 4))])
