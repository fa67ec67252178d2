"""Sizes in the file beside an .onnx file, as ``size_threshold=0`` writes them.

ONNX Runtime reads sizes in the model's own file alone, so that it takes no such file itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_nets import floats, graph, node
from refusals import refuses

import dsconvert as ds
from dsconvert.deploy.runtimes.registry import open_runtime

IMAGES = floats(12, 3, 8, 8, seed=5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A network that is enlarged, cut and flattened by sizes in its initialisers."""
    sizes = {
        "larger": np.array([1, 8, 12, 12]),
        "start": np.array([1, 1]),
        "end": np.array([11, 11]),
        "axes": np.array([2, 3]),
        "flat": np.array([1, 8]),
    }
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "r"),
        onnx.helper.make_node("Resize", ["r", "", "", "larger"], ["u"], "up", mode="nearest"),
        node("Conv", "u v", "c", pads=[1, 1, 1, 1]),
        node("Slice", "c start end axes", "s"),
        node("ReduceMean", "s", "m", axes=[2, 3]),
        node("Reshape", "m flat", "y"),
    ]
    weights = {"w": floats(8, 3, 3, 3), "v": floats(8, 8, 3, 3, seed=1)}
    model = graph(nodes, [1, 3, 8, 8], "y", **weights, **sizes)
    onnx.save(model, tmp_path / "inside.onnx")
    (tmp_path / "net").mkdir()
    onnx.save(
        model,
        tmp_path / "net" / "net.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return tmp_path / "net" / "net.onnx"


def test_what_is_made_of_it_loads(path, tmp_path):
    (expected,) = open_runtime(tmp_path / "inside.onnx").predict([IMAGES])

    ds.rewrite(path, output=tmp_path / "full.onnx", options=ds.RewriteOptions(pairs=9))
    (rewritten,) = open_runtime(tmp_path / "full.onnx").predict([IMAGES])
    np.testing.assert_allclose(rewritten, expected, rtol=1e-3, atol=1e-4)

    int8 = ds.ExportOptions(quantize="int8")
    exported = ds.export(path, tmp_path / "int8.onnx", int8, calibration=IMAGES)
    assert exported.fidelity[0].sqnr_db > 20
    imported = ds.import_onnx(path).model
    assert imported.output_shape[-1] == 8


def test_the_file_itself_is_refused_with_what_mends_it(path, monkeypatch):
    with refuses("does-not-load") as refused:
        open_runtime(path)
    monkeypatch.chdir(path.parent)
    program = refused.value.hint.partition('python -c "')[2].removesuffix('"')
    exec(program)
    assert open_runtime("new.onnx").predict([IMAGES])[0].shape == (12, 8)


@pytest.mark.parametrize(
    "call", [lambda path: open_runtime(path), lambda path: ds.inspect(path)], ids=["run", "read"]
)
def test_without_the_other_file_that_is_named(path, call):
    (path.parent / "weights.bin").unlink()
    with refuses("external-data-missing") as refused:
        call(path)
    assert "weights.bin, which is not there" in refused.value.message
