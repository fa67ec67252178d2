"""Without data a float16 file may pass on images of 0 … 255 where noise says too little."""

from __future__ import annotations

import onnx
import pytest
from onnx_graphs import run
from onnx_nets import floats, graph, node

from dsconvert.base.errors import GateFailed
from dsconvert.deploy.exporting import random_ranges
from dsconvert.deploy.exporting.export import export


def for_bright_images(folder):
    """What a pattern adds is taken away again, but for its rounding: more than numbers around 0."""
    path = folder / "bright.onnx"
    kernel, pattern = floats(4, 3, 3, 3), floats(1, 3, 12, 12, seed=1, scale=200)
    first = graph([node("Conv", "x w", "y")], ["n", 3, 12, 12], "y", w=kernel)
    (added,) = run(first, [pattern])
    model = graph(
        [node("Add", "x pattern", "a"), node("Conv", "a w", "b"), node("Sub", "b added", "y")],
        ["n", 3, 12, 12],
        "y",
        w=kernel,
        pattern=pattern,
        added=added,
    )
    onnx.save(model, path)
    return path


def test_amplified_rounding_is_judged_on_another_range(tmp_path):
    artifact = export(for_bright_images(tmp_path), tmp_path / "half.onnx", quantize="float16")
    assert artifact.failures == ()
    (told,) = [note for note in artifact.notes if "random images of 0 … 255" in note]
    assert "on numbers around 0" in told


def test_what_is_more_than_rounding_stays_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(random_ranges, "_ROUNDING_DB", 60.0)
    with pytest.raises(GateFailed):
        export(for_bright_images(tmp_path), tmp_path / "half.onnx", quantize="float16")
