"""One place reads, writes and runs ONNX files: `dsconvert.formats.onnx`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYER = ROOT / "dsconvert" / "formats" / "onnx"
ELSEWHERE = (
    ROOT / "deploy" / "runner",
    ROOT / "deploy" / "runtimes" / "probe.py",
    ROOT / "models" / "loading",
)
"""The runner is for boards, where nothing of dsconvert is installed; a child runs the probe
and imports nothing of it; what is loaded is Keras files, which hold protobuf messages of their
own."""
ONLY_THERE = {"load_model", "save_model", "InferenceSession", "SessionOptions"} | {
    "SerializeToString",
    "ParseFromString",
    "FromString",
}
OF_ONNX = {"load", "save", "load_model_from_string", "load_external_data_for_model"}


def calls(path: Path) -> Iterator[str]:
    """The calls that belong into the layer, whichever way onnx was imported."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        holder = ast.unparse(node.func.value)
        if holder.startswith("keras"):
            continue
        if node.func.attr in ONLY_THERE or (
            holder.split(".")[0] == "onnx" and node.func.attr in OF_ONNX
        ):
            yield f"{holder}.{node.func.attr}"


def sources() -> list[Path]:
    rooms = ("converter", "deploy", "dsconvert", "models")
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def test_the_layer_alone_reads_writes_and_runs_onnx_files():
    found = {
        str(path.relative_to(ROOT)): list(calls(path))
        for path in sources()
        if not any(map(path.is_relative_to, (LAYER, *ELSEWHERE)))
    }
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("name", "count"), [("load_model", 1), ("InferenceSession", 1), ("SerializeToString", 1)]
)
def test_the_layer_does_it_in_one_place(name, count):
    every = [call for path in sorted(LAYER.glob("*.py")) for call in calls(path)]
    assert sum(call.endswith(f".{name}") for call in every) == count
