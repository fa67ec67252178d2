"""Damaged files that once ended a command as a bug, or never: `make fuzz` found them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dsconvert.cli import main
from dsconvert.models.loading import h5_files

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
COMMANDS = {
    "output-without-axes.tflite": "verify {0} {0} --samples 2",
    "scalar-output.tflite": "verify {0} {0} --samples 2",
    "times-of-zero.json": "compare {0} {0}",
    "huge-input-verified.onnx": "verify {0} {0} --samples 2",
    "huge-input-exported.onnx": "export {0} -o out.onnx --quantize dynamic",
    "kernel-of-zeros.h5": "rewrite {0} -o out.keras",
    "never-read-to-its-end.h5": "inspect {0}",
    "stride-of-a-thousandth.h5": "inspect {0}",
    "norm-of-too-many-channels.keras": "inspect {0}",
    "bias-of-a-kernel.onnx": "rewrite {0} -o out.onnx",
    "huge-padding.onnx": "inspect {0}",
}


def test_every_file_has_its_command():
    assert {path.name for path in CORPUS.iterdir()} == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_ends_in_words(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(h5_files, "_SECONDS", 1)  # of processor time
    result = CliRunner().invoke(main, COMMANDS[name].format(CORPUS / name).split())
    assert result.exit_code in (0, 1, 2), result.output
    assert result.exit_code == 0 or "Error: " in result.stderr
