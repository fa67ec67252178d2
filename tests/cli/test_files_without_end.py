"""Own files that are devices, pipes, folders or without bounds: refused in words, never awaited."""

from __future__ import annotations

import errno
import os

import pytest
from click.testing import CliRunner
from conv_stacks import conv_stack

from dsconvert.base import files
from dsconvert.cli import main

COMMANDS = {
    "plan": "rewrite net.onnx -o out.onnx --plan odd",
    "recipe": "inspect net.onnx --recipe odd",
    "run": "compare odd odd",
    "report": "report odd",
    "labels": "export net.onnx -o out.tflite --labels odd",
    "devices": "devices",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model; a pipe that nobody writes to, a file that never ends, a folder, and deep lists."""
    place = tmp_path_factory.mktemp("odd")
    conv_stack(place / "net.onnx", [3], channels=4)
    os.mkfifo(place / "pipe")
    (place / "endless").symlink_to("/dev/zero")
    (place / "folder").mkdir()
    (place / "deep").write_text(f'{{"x": {"[" * 90_000}')
    (place / "deep.toml").write_text(f"x = {'[' * 90_000}")
    return place


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder", "deep", "deep.toml"])
@pytest.mark.parametrize("name", COMMANDS)
def test_refused_in_words(name, kind, folder, monkeypatch):
    monkeypatch.chdir(folder)
    if kind.startswith("deep") and name == "labels":
        pytest.skip("text of one line")
    if name == "devices":
        monkeypatch.setenv("DSCONVERT_DEVICES", str(folder / kind))
    result = CliRunner().invoke(main, COMMANDS[name].replace("odd", kind).split())
    assert result.exit_code == 2, result.output
    assert "Error: " in result.stderr
    assert not (folder / "out.onnx").exists()


def test_a_file_of_more_bytes_than_any_plan(tmp_path):
    path = tmp_path / "plan.json"
    path.write_bytes(bytes(11))
    assert files.read_whole(path, 11) == bytes(11)
    with pytest.raises(OSError, match="more than 10 bytes") as caught:
        files.read_whole(path, 10)
    assert caught.value.errno == errno.EFBIG
