"""The Makefile's targets for a model, by their commands."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


class TestMake:
    def test_export_target(self) -> None:
        result = subprocess.run(
            ["make", "-n", "export-tflite", "MODEL=m.h5", "DATA=c.npz", "QUANTIZE=int8"],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            check=True,
        )
        wanted = "dsconvert export m.h5 --format tflite  --quantize int8 --calibration c.npz"
        assert wanted in result.stdout

    @pytest.mark.parametrize("target", ["export-tflite", "export-onnx", "profile"])
    def test_what_is_missing_is_said(self, target: str) -> None:
        result = subprocess.run(
            ["make", target], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        assert result.returncode == 2
        assert f"make {target}" in result.stderr
