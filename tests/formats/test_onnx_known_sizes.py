"""What a graph computes from sizes that are known."""

from __future__ import annotations

import numpy as np
from onnx_nets import graph, node

from dsconvert.formats.onnx import known_sizes
from dsconvert.formats.onnx.graph import OnnxGraph


def test_sizes_are_looked_for_once(monkeypatch):
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s second", "t"),
        node("Add", "t second", "a"),
        node("Mul", "t t", "b"),
        node("Cast", "a", "y", to=1),
    ]
    model = graph(nodes, ("n", 4, 8), "y", second=np.array([1]))
    inferred, calls = known_sizes.inferred, []

    def counted(*given):
        calls.append(given)
        return inferred(*given)

    monkeypatch.setattr(known_sizes, "inferred", counted)
    read = OnnxGraph(model)
    found = [known_sizes.sized_constant_of(read, name) for name in ("a", "b")]
    np.testing.assert_array_equal(found, [[5], [16]])
    assert len(calls) == len(known_sizes._BATCHES)
