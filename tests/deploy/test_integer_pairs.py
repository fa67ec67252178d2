"""Integers that are read with another zero point than they are written with."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import dsconvert as ds
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.improve import OFF
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.deploy.verification.device_outputs import wrong_answer


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """An int8 file that ends in a Reshape, its model and its images."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")(image)
    model = keras.Model(image, keras.layers.Reshape((36,), name="flat")(x))
    images = np.random.default_rng(0).random((60, 8, 8, 3), dtype=np.float32)
    path = tmp_path_factory.mktemp("pairs") / "sound.tflite"
    given = {"calibration": [images], "improvement": OFF, "gate": False}
    export(model, path, quantize="int8-float-io", **given)
    return model, images, path


def moved(content: bytes, steps: int) -> bytes:
    """Move the zero point that the Reshape writes by so many steps."""
    edited = bytearray(content)
    model = schema.Model.GetRootAs(edited)
    graph = model.Subgraphs(0)
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        if code == schema.BuiltinOperator.RESHAPE:
            written = graph.Tensors(int(operator.Outputs(0))).Quantization()
            written.ZeroPointAsNumpy()[:] += steps
            return bytes(edited)
    raise AssertionError("no Reshape")


def test_a_tflite_file(sound, tmp_path):
    model, images, path = sound
    odd = tmp_path / "odd.tflite"
    odd.write_bytes(moved(path.read_bytes(), 8))
    given = {"data": images, "thresholds": ds.Thresholds(min_sqnr_db=5.0)}
    found = ds.verify(model, odd, **given)

    assert ds.verify(model, path, **given).passed
    (one,) = [one for one in found.findings if one.code == "read-otherwise"]
    assert one.severity == "failure"
    assert one.figures["explained"] > 0.5
    assert not found.passed


def test_a_device_that_does_not_denoise(sound):
    """It hands on its input, which is all that the outputs are but for a small correction."""
    _, images, path = sound
    rng = np.random.default_rng(1)
    info = open_runtime(path).outputs[0]
    correction = rng.normal(0, 0.06, images.shape)
    here, there = images - correction, images - rng.normal(0, 0.06, images.shape)

    assert wrong_answer(path, [info], [here], [there]) == ""
    assert "changes in its input" in wrong_answer(path, [info], [here], [there], [images])
    assert wrong_answer(path, [info], [here], [here + 1e-3], [images]) == ""
