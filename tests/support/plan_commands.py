"""The digits network on disk, and plans of it by commands."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
from click.testing import Result
from commands import call
from onnx_twin import onnx_twin

from dsconvert.converter.core.types import Plan

PLAN = "plan model.onnx -o plan.json --calibration data.npz --overwrite"


MACS = f"{PLAN} --target-macs 0.5x"


def filled(digits, digits_cnn, place: Path) -> Path:
    """Write the digits network in both formats, data with labels and without."""
    images, labels = digits
    digits_cnn.save(place / "model.keras")
    onnx.save(onnx_twin(digits_cnn), place / "model.onnx")
    other = onnx_twin(digits_cnn)
    other.doc_string = "the same names in another file"
    onnx.save(other, place / "other.onnx")
    old = onnx_twin(digits_cnn)
    old.opset_import[0].version = 11  # which has all its operators, and means the same by them
    onnx.save(old, place / "opset11.onnx")
    np.savez(place / "data.npz", x=images[:80])
    np.savez(place / "test.npz", x=images[1200:1500], y=labels[1200:1500])
    np.savez(place / "few.npz", x=images[:5])
    return place


def done(arguments: str, folder: Path) -> Result:
    result = call(arguments, folder)
    assert result.exit_code == 0, result.output
    return result


def refused(arguments: str, folder: Path, code: int, *parts: str) -> None:
    result = call(arguments, folder)
    assert isinstance(result.exception, SystemExit), result.output
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr


def read_plan(path: Path) -> Plan:
    return msgspec.json.decode(path.read_bytes(), type=Plan)


def planned(record: dict) -> Plan:
    return msgspec.convert(record["plan"], Plan)
