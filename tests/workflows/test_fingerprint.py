"""What a run depends on: where it changed, no result of before is taken for one of now."""

from __future__ import annotations

import onnx
import pytest
from conv_stacks import conv_stack

import dsconvert as ds
from dsconvert.workflows.optimize.ledger import fingerprint


def test_weights_in_another_file(tmp_path):
    path = tmp_path / "net.onnx"
    model = onnx.load(conv_stack(path, [3]))
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    before = ds.load(path).sha256
    weights = bytearray((tmp_path / "weights").read_bytes())
    weights[8] ^= 1
    (tmp_path / "weights").write_bytes(weights)

    assert ds.load(path).sha256 != before


@pytest.mark.parametrize("source", ["d-*.tar", "d-{0..1}.tar", "my_data:images", "."])
def test_data(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    for name in ("d-0.tar", "d-1.tar", "my_data.py"):
        (tmp_path / name).write_text("before")
    before = fingerprint(source)
    assert fingerprint(source) == before

    for name in ("d-1.tar", "my_data.py"):
        (tmp_path / name).write_text("afterwards")

    assert fingerprint(source) != before
