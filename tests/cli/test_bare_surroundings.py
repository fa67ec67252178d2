"""A locale of ASCII, and no home: commands work as they do elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from conv_stacks import conv_stack

from dsconvert.cli import main

PROGRAM = "from dsconvert.cli.supervisor import main; main()"


def test_locale_c_and_no_home(tmp_path):
    path = conv_stack(tmp_path / "net.onnx", [3, 3], channels=16)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(12, 16, 16, 16)))
    kept = {
        name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TMPDIR") if name in os.environ
    }
    words = ["plan", path, "-o", tmp_path / "ü.json", "--target-macs", "0.8x", "--calibration",
             tmp_path / "d.npz"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        capture_output=True, check=False, env=kept | {"LC_ALL": "C", "LANG": "C"}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ü.json").is_file()


def test_names_in_utf8_where_the_locale_is_ascii(tmp_path):
    """Python would read their bytes one by one, and ONNX Runtime opens no such name."""
    conv_stack(tmp_path / "ü.onnx", [3], channels=4)
    surroundings = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    for words in ("rewrite ü.onnx -o ö.onnx", "verify ü.onnx ö.onnx --min-sqnr 0"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words.split()],
            capture_output=True, check=False, env=surroundings, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_a_user_without_an_entry(tmp_path, monkeypatch):
    """As in a container: no HOME, and no name for the user's number."""
    path = conv_stack(tmp_path / "net.onnx", [3], channels=16)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(12, 16, 16, 16)))

    def nobody(*_):
        raise RuntimeError("Could not determine home directory.")

    for name in ("HOME", "DSCONVERT_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    for words in (
        ["plan", path, "-o", tmp_path / "p.json", "--target-macs", "0.8x", "--calibration",
         tmp_path / "d.npz"],
        ["profile", path, "--runs", "3", "--min-seconds", "0"],
        ["devices"],
        ["doctor"],
    ):  # fmt: skip
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code in (0, 1), (words[0], result.stderr)


def test_a_nul_character_in_a_recipe_is_refused(tmp_path, monkeypatch):
    """In a path the system would refuse it by a ValueError, where an OSError is awaited."""
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.toml"
    for text in (
        'model = "a\\u0000b"\n',
        'model = "a.onnx"\n[rewrite]\noutput = "a\\u0000b.onnx"\n',
    ):
        recipe.write_text(text)
        assert CliRunner().invoke(main, ["rewrite", "--recipe", str(recipe)]).exit_code == 2, text
