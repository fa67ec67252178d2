"""Divisions by what int8 rounds to 0, at which LiteRT ends, stay in float in .tflite files."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from dsconvert.base.errors import GateFailed
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.improve import Improvement
from dsconvert.deploy.verification.gate import Verdict

FAILED = Verdict((), ("an output differs",))
X = np.random.default_rng(0).normal(size=(40, 10, 10, 3)).astype(np.float32)


def network():
    """Divide what a convolution gives by what another one does, with nothing in many places."""
    keras.utils.set_random_seed(0)
    image = keras.Input((10, 10, 3))
    x = layers.Conv2D(8, 3, activation="relu")(image)
    gate = layers.Conv2D(8, 1, activation="relu")(x)
    far = layers.Conv2D(4, 1, activation="softplus")(x)  # no divisor near 0
    sums = layers.Conv2D(4, 3)(x / (gate + 1e-2)), layers.Conv2D(4, 3)(x[..., :4] / (far + 2.0))
    return keras.Model(image, sums[0] + sums[1])


@pytest.mark.parametrize("quantize", ["int8", "int8-float-io"])
def test_only_what_makes_a_small_divisor_is_in_float(quantize, tmp_path):
    done = export(network(), tmp_path / "m.tflite", quantize=quantize, calibration=X)
    assert done.fidelity[0].sqnr_db > 25
    assert any("3 operators in float (Add, Conv_2D, Div)" in note for note in done.notes)


@pytest.mark.parametrize("wish", [Improvement(keep_float=1), Improvement(report=True)])
def test_a_file_that_does_not_run_is_refused_by_its_own_name(wish, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "dsconvert.deploy.exporting.tflite_candidates.dividing", lambda path, samples: []
    )
    with pytest.raises(GateFailed, match=r"m\.tflite was not kept.*\(DIV\)"):
        export(network(), tmp_path / "m.tflite", quantize="int8", calibration=X, improvement=wish)


@pytest.mark.parametrize(("count", "told"), [(0, "--keep-float auto"), (1, "did not help enough")])
def test_layers_in_float_are_not_advised_twice(count, told, tmp_path, monkeypatch):
    monkeypatch.setattr("dsconvert.deploy.exporting.export.judge", lambda *a, **k: FAILED)
    wish = Improvement(equalize="off", correct_biases=False, keep_float=count)
    with pytest.raises(GateFailed) as refused:
        export(network(), tmp_path / "m.tflite", quantize="int8", calibration=X, improvement=wish)
    assert told in refused.value.words.hint
