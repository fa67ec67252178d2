"""Recipes: read by every command, wrong in all places at once, and written with every setting."""

from __future__ import annotations

import json
import re
import tomllib

import click
import numpy as np
import pytest
from click.testing import CliRunner
from conv_stacks import conv_stack

from dsconvert.cli import main
from dsconvert.cli.recipe import SHARED, defaults_for, faults, key_of, settings_of

BAD = """
modle = "x"
data = "d.npz"
threads = 0
[optimise]
x = 1
[plan]
target_latncy = "0.5x"
max_pairs = "many"
labels = "yes"
[export]
quantize = "int9"
[preprocessing]
scale = "abc"
stdd = 1
channels_first = 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    conv_stack(folder / "m.onnx", [3, 3])
    rng = np.random.default_rng(0)
    np.savez(folder / "d.npz", x=rng.integers(0, 255, (40, 8, 16, 16), dtype=np.uint8))
    return folder


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_reads_recipes(command, tmp_path):
    options = {key_of(param) for param in main.commands[command].params}
    assert "recipe" in options
    keys = [key_of(param) for param in main.commands[command].params]
    assert len(keys) == len(set(keys))
    path = tmp_path / "bad.toml"
    path.write_text(BAD)
    result = call(command, "--recipe", path)
    assert result.exit_code == 2
    assert "faults" in result.stderr


def test_all_faults_are_told_at_once_with_what_was_meant(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(BAD)
    said = call("inspect", "--recipe", path).stderr
    for wrong, meant in {
        "modle": "model",
        "optimise": "optimize",
        "plan.target_latncy": "target_latency",
        "preprocessing.stdd": "std",
    }.items():
        assert re.search(rf"{re.escape(wrong)}\W.*did you mean {meant}\?", said)
    for wrong in ("threads", "plan.max_pairs", "plan.labels", "export.quantize"):
        assert f"  {wrong}: " in said
    assert "preprocessing.scale: 'abc'" in said
    assert "preprocessing.channels_first: 1" in said
    assert ": 10 faults" in said


@pytest.mark.parametrize("text", [None, "a = [", "\xff"])
def test_what_is_no_recipe_is_refused(tmp_path, text):
    path = tmp_path / "r.toml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    result = call("inspect", "--recipe", path)
    assert result.exit_code == 2
    assert not isinstance(result.exception, UnicodeError | tomllib.TOMLDecodeError)
    assert str(path) in result.stderr


def test_data_are_what_each_command_calls_them():
    said = {"data": "d.npz", "seed": 3, "preprocessing": {"mean": [0.5, 0.4, 0.3]}}
    of = {name: defaults_for(command, said) for name, command in main.commands.items()}
    assert of["plan"] == {"calibration": "d.npz", "seed": "3", "mean": "0.5,0.4,0.3"}
    assert of["finetune"]["data"] == "d.npz"
    assert "data" not in of["devices"]


def test_the_command_line_wins_and_a_table_wins_over_the_top(place):
    path = place / "r.toml"
    path.write_text(
        f'model = "{place / "m.onnx"}"\ndata = "{place / "d.npz"}"\nthreads = 2\n'
        '[preprocessing]\nscale = "1/255"\n'
        '[optimize]\nthreads = 3\nmax_drop = "2%"\ntarget_latency = "0.7x"\n'
        f'formats = "onnx-int8"\noutput = "{place / "run"}"\ndry_run = true\n'
    )
    result = call("optimize", "--recipe", path, "--target-latency", "0.6x", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["target_latency"], found["max_drop"]) == ("0.6x", "2%")
    assert "export-original-int8.onnx" in [stage["stage"] for stage in found["stages"]]
    context = main.commands["optimize"].make_context("optimize", ["--recipe", str(path)], main_())
    assert (context.params["threads"], context.params["scale"]) == (3, "1/255")


def main_() -> click.Context:
    return click.Context(main, info_name="dsconvert")


def test_files_come_from_a_recipe_too(place):
    path = place / "files.toml"
    path.write_text(
        f'[profile]\nfiles = ["{place / "m.onnx"}"]\nruns = 3\nmin_seconds = 0\nwarmup = 0\n'
    )
    result = call("profile", "--recipe", path, "--json")
    assert result.exit_code == 0, result.output
    (measured,) = json.loads(result.stdout)
    assert measured["path"] == str(place / "m.onnx")


@pytest.fixture(scope="module")
def written(place):
    path = place / "recipe.toml"
    result = call("init", place / "m.onnx", "-o", path, "--data", "d.npz", "--scale", "1/255")
    assert result.exit_code == 0, result.output
    return path


class TestInit:
    def test_it_is_a_recipe_without_faults(self, written, place):
        found = tomllib.loads(written.read_text())
        assert found["model"] == str(place / "m.onnx")
        assert found["preprocessing"] == {"scale": "1/255"}
        assert list(faults(found, main.commands, main_())) == []

    def test_every_setting_is_in_it_and_defaults_are_right(self, written):
        """Each line of a setting is uncommented; empty texts stand for "not given"."""
        setting = re.compile(r"^# (\w+ = (?!\"\"|\[\]).+)$", re.MULTILINE)
        text = written.read_text()
        opened = tomllib.loads(setting.sub(r"\1", text))
        assert list(faults(opened, main.commands, main_())) == []
        sections = dict(re.findall(r"\n\[(\w+)\]\n((?:.|\n)*?)(?=\n\[|\Z)", text))
        for name, command in main.commands.items():
            shared = {*SHARED, "scale", "mean", "std", "channels_first"}
            for setting_name in set(settings_of(command)) - shared:
                if name != "init":
                    assert re.search(rf"^(# )?{setting_name} = ", sections[name], re.MULTILINE)

    def test_it_overwrites_nothing(self, written, place):
        result = call("init", place / "m.onnx", "-o", written)
        assert result.exit_code == 2
        assert call("init", place / "none.onnx", "-o", place / "x.toml").exit_code == 2
        assert not (place / "x.toml").exists()
