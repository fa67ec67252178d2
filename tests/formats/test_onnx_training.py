"""Graphs that were exported in training mode: their samples depend on each other, or on chance."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_native import Net
from refusals import refuses

from dsconvert.formats.onnx.open import open_onnx
from dsconvert.workflows.model_files import open_model


def norm(outputs, opset, **given):
    net = Net()
    net.conv("x", "a")
    net.norm("a", outputs, name="bn", **given)
    net.conv(outputs[0], "y", (8, 4))
    return net.model(opset=opset, ir=4 if opset < 11 else 8)


def dropout(rate, training):
    net = Net()
    net.conv("x", "a")
    net.constant("rate", np.float32(rate))
    net.constant("training", np.array(training))
    net.node("Dropout", "a rate training", "d", name="drop")
    net.conv("d", "y", (8, 4))
    return net.model()


TRAINING = {
    "bn": norm(["n", "m", "v"], 17, training_mode=1),
    "old": norm(["n", "m", "v", "sm", "sv"], 9),
    "drop": dropout(0.5, True),
}
INFERENCE = [norm(["n"], 17), norm(["n"], 9), dropout(0.5, False), dropout(0.0, True)]


@pytest.mark.parametrize("which", TRAINING)
def test_is_refused_by_name(which, tmp_path):
    onnx.save(TRAINING[which], tmp_path / "m.onnx")
    with refuses("training-mode") as caught:
        open_onnx(tmp_path / "m.onnx")
    assert ("drop" if which == "drop" else "bn") in caught.value.message
    with refuses("training-mode"):
        open_model(TRAINING[which])


@pytest.mark.parametrize("model", INFERENCE)
def test_inference_is_read(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx")
    assert not open_onnx(tmp_path / "m.onnx").repairs
