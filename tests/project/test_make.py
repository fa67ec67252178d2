"""What `make` does before it makes an environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
MAKE = shutil.which("make")
TARGETS = {"export-tflite": "MODEL", "export-onnx": "MODEL", "profile": "FILES"}

pytestmark = pytest.mark.skipif(MAKE is None, reason="no make here")


def make(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make with no more on the PATH than a system has."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"]} | variables
    return subprocess.run(
        [str(MAKE), "--file", str(MAKEFILE), *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )


def program(folder: Path, name: str) -> Path:
    """A program that says what it was started as and with what."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('#!/bin/sh\necho "$0" "$@"\n')
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(("target", "variable"), TARGETS.items())
def test_what_is_not_given_is_asked_for_first(tmp_path, target, variable):
    result = make(tmp_path, target)
    assert result.returncode == 2
    assert f"make {target} {variable}=" in result.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("target", "variable"), TARGETS.items())
def test_an_active_environment_is_used(tmp_path, target, variable):
    ours = program(tmp_path, "mine/bin/dsconvert")
    result = make(tmp_path, target, f"{variable}=m.onnx", VIRTUAL_ENV=str(tmp_path / "mine"))
    assert result.returncode == 0, result.stderr
    said = result.stdout.splitlines()[-1].split()
    assert said[:3] == [str(ours), target.partition("-")[0], "m.onnx"]
    assert not (tmp_path / ".venv").exists()


def test_a_dsconvert_on_the_path_is_used(tmp_path):
    ours = program(tmp_path, "bin/dsconvert")
    result = make(tmp_path, "profile", "FILES=m.onnx", PATH=f"{ours.parent}:/usr/bin:/bin")
    assert result.stdout.splitlines()[-1].split()[:2] == [str(ours), "profile"]


def test_without_one_the_environment_is_made(tmp_path):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/dev.lock").touch()
    planned = make(tmp_path, "--dry-run", "profile", "FILES=m.onnx").stdout
    assert planned.index("-m venv .venv") < planned.index(".venv/bin/dsconvert profile m.onnx")


def test_a_changed_lock_or_project_is_set_up_anew(tmp_path):
    for number, name in enumerate(["pyproject.toml", "requirements/dev.lock", ".venv/.installed"]):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (number, number))
    assert "venv" not in make(tmp_path, "--dry-run", "setup").stdout
    assert "--upgrade" in make(tmp_path, "--dry-run", "setup", "NEWEST=1").stdout
    for name in ("pyproject.toml", "requirements/dev.lock"):
        os.utime(tmp_path / name, (9, 9))
        assert "--require-hashes" in make(tmp_path, "--dry-run", "setup").stdout
        os.utime(tmp_path / name, (0, 0))
