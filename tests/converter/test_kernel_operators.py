"""What a rewrite makes of each operator with weights; docs/onnx-ops.md is its table."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
from kernel_operators import GRAPHS, both_ways, kernel_graph, rewritten
from onnx_native import assert_same_outputs, images

PAGE = (Path(__file__).parents[2] / "docs" / "onnx-ops.md").read_text()
TABLE = {
    name: (told, again)
    for name, told, again in re.findall(
        r"^\| (.+?) \| (.+?) \| (.*?) ?\|$", PAGE.split("<!-- table: rewrite -->")[1], re.MULTILINE
    )
}
PLAIN = [name for name, (told, _) in TABLE.items() if told == "rewritten"]


@pytest.mark.parametrize("name", GRAPHS)
def test_the_table_says_what_becomes_of_it(name, tmp_path):
    assert TABLE[name] == both_ways(name, tmp_path), "python benchmarks/onnx_coverage.py rewrite"


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_rewritten_computes_the_same(name, tmp_path):
    model = kernel_graph(name)
    onnx.save(model, tmp_path / "graph.onnx")
    _, result = rewritten(tmp_path / "graph.onnx")

    assert result is not None
    assert sum(node.op_type == "Conv" for node in result.graph.node) > 1
    size = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert_same_outputs(model, result, images(*size))
