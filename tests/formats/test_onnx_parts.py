"""Parts of a graph: large weights of dense layers are fed, and all else is stored."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_native import Net

from dsconvert.formats.onnx import subgraph
from dsconvert.formats.onnx.graph import OnnxGraph
from dsconvert.formats.onnx.subgraph import Part

RANDOM = np.random.default_rng(0)


def part_of(net, wanted=("y",)):
    graph = OnnxGraph(net.model("y"))
    return Part(graph, graph.nodes_without_constants, graph.input_types, wanted, {})


@pytest.fixture
def dense(monkeypatch):
    """A Gemm and a MatMul whose weights count as large; the MatMul's are added to something too."""
    monkeypatch.setattr(subgraph, "_LARGE", 64)
    net = Net()
    net.constant("w", RANDOM.normal(size=(5, 6)).astype(np.float32))
    net.constant("v", RANDOM.normal(size=(5, 5)).astype(np.float32))
    net.node("GlobalAveragePool", "x", "pooled")
    net.node("Flatten", "pooled", "flat")
    net.node("Gemm", "flat w", "a", transB=1)
    net.node("MatMul", "a v", "b")
    net.node("ReduceSum", "v", "total", keepdims=0)
    net.node("Add", "b total", "y")
    return net


def test_what_dense_layers_alone_read_is_fed(dense, monkeypatch):
    x = RANDOM.normal(size=(3, 6, 4, 4)).astype(np.float32)
    part = part_of(dense)
    assert list(part._fed) == ["w"]
    found = part.run({"x": x})["y"]
    monkeypatch.setattr(subgraph, "_LARGE", 1 << 30)
    stored = part_of(dense)
    assert not stored._fed
    np.testing.assert_allclose(found, stored.run({"x": x})["y"], rtol=1e-5, atol=1e-5)
