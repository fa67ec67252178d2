"""Labels in memory are read as those of a file are: in every form that classes come in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_nets import floats, graph, node
from refusals import refuses

import dsconvert as ds

CLASSES = np.array([0, 2, 1, 1, 2, 0, 1, 2])
IMAGES = floats(8, 4, seed=1)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """A linear classifier of 3 classes."""
    return graph([node("MatMul", "x w", "y")], ["n", 4], "y", w=floats(4, 3, seed=2))


@pytest.mark.parametrize(
    "labels",
    [
        CLASSES.astype(np.uint64),
        CLASSES.astype(np.float32),
        CLASSES[:, None],
        np.eye(3)[CLASSES],
        np.eye(3, dtype=bool)[CLASSES],
        CLASSES.astype(object),
    ],
    ids=["uint64", "float", "(n, 1)", "one-hot", "one-hot of bool", "objects"],
)
def test_classes(model, labels):
    expected = ds.evaluate(model, ds.Data((IMAGES,), labels=CLASSES)).top1
    assert expected.total == len(CLASSES)
    assert ds.evaluate(model, ds.Data((IMAGES,), labels=labels)).top1 == expected


@pytest.mark.parametrize(
    ("labels", "code", "told"),
    [
        (CLASSES - 1, "labels-out-of-range", "from -1 to 1"),
        (
            CLASSES.astype(np.uint64) + np.uint64(2**63),
            "labels-out-of-range",
            f"from {2**63} to {2**63 + 2}",
        ),
        (CLASSES + 0.5, "no-class-labels", "got 0.5"),
        (np.array(list("abcabcab")), "not-numbers", "<U1"),
        (np.array(list("abcabcab"), object), "not-numbers", "<U1"),
        (np.array(3), "not-numbers", "shape ()"),
        (CLASSES[None], "counts-differ", "[8, 1]"),
    ],
    ids=["negative", "huge", "fractions", "texts", "objects", "one", "one row"],
)
def test_what_is_no_class(model, labels, code, told):
    with refuses(code) as refused:
        ds.evaluate(model, ds.Data((IMAGES,), labels=labels))
    assert told in refused.value.message
