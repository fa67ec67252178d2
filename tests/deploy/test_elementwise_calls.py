"""Functions of one number that a format has no operator for are in its files all the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from int8_noise import int8_noise_db

from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.runtimes.registry import open_runtime

DOMAINS = {
    "arctan": (-9, 9), "tan": (-1.5, 1.5), "sinh": (-9, 9), "cosh": (-9, 9), "arcsin": (-1, 1),
    "arccos": (-1, 1), "arcsinh": (-9, 9), "arccosh": (1.001, 9), "arctanh": (-0.99, 0.99),
    "erf": (-9, 9), "log1p": (-0.9, 9), "expm1": (-9, 2),
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_all_of_them(suffix, tmp_path):
    inputs = {name: keras.Input((64,), name=f"of_{name}") for name in DOMAINS}
    outputs = [getattr(keras.ops, name)(x) for name, x in inputs.items()]
    model = keras.Model(list(inputs.values()), outputs)
    near = np.concatenate([np.zeros(1), np.geomspace(1e-9, 1e-3, 15)])
    values = []
    for low, high in DOMAINS.values():
        small = near if low < 0 else low + near
        values.append(np.concatenate([np.linspace(low, high, 48), small])[None].astype(np.float32))
    export(model, tmp_path / f"m.{suffix}", verification=values)

    runtime = open_runtime(tmp_path / f"m.{suffix}")
    names = [f"of_{name}" for name in DOMAINS]
    fed = [values[names.index(info.name)] for info in runtime.inputs]
    got = dict(zip(runtime.output_names, runtime.predict(fed), strict=True))
    for name, output, value in zip(DOMAINS, model.output_names, values, strict=True):
        wanted = getattr(np, name, None)
        expected = keras.ops.erf(value) if wanted is None else wanted(value.astype(np.float64))
        np.testing.assert_allclose(got[output], expected, rtol=2e-5, atol=2e-6, err_msg=name)


def test_erf_in_int8_divides_by_nothing(tmp_path):
    image = keras.Input((64,))
    model = keras.Model(image, keras.ops.erf(image))
    values = np.random.default_rng(0).uniform(-3, 3, (40, 64)).astype(np.float32)
    values[:, 0] = 0
    assert int8_noise_db(model, values, tmp_path / "m.tflite") < -32


@pytest.mark.parametrize("kind", ["softplus", "mish", "log_sigmoid", "selu", "celu"])
def test_in_int8_no_exponential_hides_small_values(kind, tmp_path):
    image = keras.Input((64,))
    model = keras.Model(image, keras.layers.Activation(kind)(image))
    values = np.random.default_rng(0).normal(0, 3, (40, 64)).astype(np.float32)
    assert int8_noise_db(model, values, tmp_path / "m.tflite") < -32
