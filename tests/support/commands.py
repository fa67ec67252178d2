"""Commands run within the test's own process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from dsconvert.cli import main

_FILES = (".keras", ".npz", ".tflite", ".onnx", ".h5", ".json", ".txt", "_model")


def call(arguments: str, folder: Path) -> Result:
    """Run a command; words that end as files do, or as a SavedModel here, are in the folder."""
    words = [str(folder / w) if w.endswith(_FILES) else w for w in arguments.split()]
    return CliRunner().invoke(main, words)
