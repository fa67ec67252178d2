"""Arguments of the Python API that are no such thing: errors with a code, as for files."""

from __future__ import annotations

import numpy as np
import pytest
from conv_stacks import conv_stack
from refusals import refuses

import dsconvert as ds
from dsconvert.workflows.data_for import as_data

IMAGES = np.random.default_rng(0).normal(size=(12, 8, 16, 16)).astype(np.float32)


@pytest.fixture
def net(tmp_path):
    return conv_stack(tmp_path / "net.onnx", [3])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (IMAGES + 1j, "not-numbers"),
        (np.array([["a"]]), "not-numbers"),
        ([[1, 2], [3]], "inputs-missing"),
        ([[[1, 2], [3]]], "not-numbers"),
        (IMAGES[:0], "no-samples"),
        ([IMAGES, IMAGES], "inputs-missing"),
        (list(IMAGES), "inputs-missing"),
        ({"other": IMAGES}, "inputs-missing"),
        (3, "not-a-data-source"),
        (np.float32(3), "not-numbers"),
        (b"images.npz", "not-a-data-source"),
        (ds.Data((IMAGES + 1j,)), "not-numbers"),
        (ds.Data((IMAGES,), labels=np.arange(3)), "counts-differ"),
    ],
)
def test_samples_that_are_none(net, data, code):
    with refuses(code):
        ds.evaluate(net, data, reference=net)


def test_samples_by_the_names_of_the_inputs():
    left, right = np.ones((4, 2)), np.zeros((4, 2))

    data = as_data(
        {"right": right, "left image": left},
        split="test",
        input_names=["left_image", "right"],
        input_shapes=[(None, 2)] * 2,
    )

    np.testing.assert_array_equal(data.inputs, [left, right])


@pytest.mark.parametrize(
    "call",
    [
        lambda net: ds.load(None),
        lambda net: ds.load([net]),
        lambda net: ds.load_data(None, split="test"),
        lambda net: ds.export(net, None),
        lambda net: ds.export(net, "out.onnx", {"quantize": "int8"}),
        lambda net: ds.rewrite(net, options={}),
        lambda net: ds.rewrite(net, plan=3),
        lambda net: ds.plan(net, calibration=IMAGES, goals={"macs": "0.5x"}),
        lambda net: ds.profile(None),
        lambda net: ds.profile([net, 3]),
        lambda net: ds.compare([net], [net]),
        lambda net: ds.compare(None, None),
        lambda net: ds.report(3),
    ],
)
def test_arguments_of_another_class(net, call):
    with refuses("wrong-type"):
        call(net)
