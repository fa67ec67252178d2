"""plan and rewrite --plan as a user meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from commands import call
from hypothesis import given
from hypothesis import strategies as st
from plan_commands import MACS, PLAN, done, filled, planned, read_plan, refused

from dsconvert.base.files import sha256
from dsconvert.cli import main
from dsconvert.cli.options import as_preprocessing, preprocessing_words
from dsconvert.converter.core.types import Plan
from dsconvert.models.data.preprocess import Preprocessing


@pytest.fixture(scope="module")
def folder(digits, digits_cnn, tmp_path_factory) -> Path:
    return filled(digits, digits_cnn, tmp_path_factory.mktemp("cli_plan"))


@given(
    st.floats(1e-30, 1e30) | st.floats(-1e30, -1e-30),  # what the options take
    st.none() | st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=3).map(tuple),
    st.booleans(),
)
def test_preprocessing_as_options_says_the_same(scale, mean, first):
    wanted = Preprocessing(scale=scale, mean=mean, channels_first=first)
    words = list(preprocessing_words(wanted))
    again = {
        "scale": None,
        "mean": None,
        "std": None,
        "channels_first": "--channels-first" in words,
    }
    for name in ("scale", "mean"):
        if f"--{name}" in words:
            again[name] = words[words.index(f"--{name}") + 1]
    assert (as_preprocessing(**again) or Preprocessing()) == wanted
    assert not preprocessing_words(Preprocessing())


class TestPlan:
    @pytest.mark.parametrize("kind", ["keras", "onnx"])
    def test_json_is_the_whole_result(self, folder, kind):
        command = MACS.replace("model.onnx", f"model.{kind}")
        result = done(f"{command} --json", folder)
        record = json.loads(result.stdout)
        assert record["schema"] == "dsconvert.planned/1"
        assert record["calibration"] == str(folder / "data.npz")
        plan = planned(record)
        assert plan == read_plan(folder / "plan.json")
        assert plan.source_sha256 == sha256(folder / f"model.{kind}")
        assert plan.goal == ("MACs ≤ 0.5x",)
        assert plan.after.macs <= plan.before.macs / 2
        assert (record["timed"], record["dropped"], plan.target) == (None, None, "")
        assert [layer.name for layer in plan.layers] == ["stem", "middle", "last"]
        assert "Trying choices" in result.stderr

    def test_the_table(self, folder):
        lines = done(MACS, folder).stdout.splitlines()
        assert lines[0].split() == ["layer", "becomes", "output", "error", "fit"]
        rows = {line.split()[0]: line for line in lines[1:4]}
        assert "stays: a stem of 1 input channel" in rows["stem"]
        assert " × " in rows["middle"] or "three-factor R = " in rows["middle"]
        assert "%" in rows["middle"]
        assert "the least output error predicted to keep the goals" in lines
        summary = next(line for line in lines if line.startswith("2 of 3: "))
        assert "MACs 341 k → 1" in summary
        assert ", parameters 11," in summary
        assert summary.count("output error") == 1
        assert lines[-1].startswith("next: dsconvert rewrite ")
        assert str(folder / "plan.json") in lines[-1]

    def test_the_command_that_it_names_can_be_used_as_it_stands(self, folder):
        line = done(MACS, folder).stdout.splitlines()[-1]
        _, command = line.split(": dsconvert ", 1)
        words = command.split()
        assert words[:2] == ["rewrite", str(folder / "model.onnx")]
        result = CliRunner().invoke(main, [*words, "-o", str(folder / "named.onnx")])
        assert result.exit_code == 0, result.output
        assert " convolutions rewritten by data" in result.stdout

    def test_the_command_that_it_names_prepares_the_images_in_the_same_way(self, folder):
        wishes = "--scale 1/255 --mean -0.5 --std 0.3 --channels-first"
        line = done(f"{MACS} {wishes}", folder).stdout.splitlines()[-1]
        assert line.endswith(f"--calibration {folder / 'data.npz'} {wishes}")
        words = line.split(": dsconvert ", 1)[1].split()
        result = CliRunner().invoke(main, [*words, "--json", "-o", str(folder / "same.onnx")])
        assert result.exit_code == 0, result.output
        used = json.loads(result.stdout)["preprocessing"]
        assert (used["scale"], used["mean"], used["std"]) == (1 / 255, [-0.5], [0.3])
        assert used["channels_first"]

    def test_the_default_name(self, folder):
        done(MACS.replace("-o plan.json ", ""), folder)
        assert read_plan(folder / "model_plan.json").chosen

    def test_quiet(self, folder):
        assert done(f"{MACS} --quiet", folder).stderr == ""

    def test_max_error(self, folder):
        record = json.loads(done(f"{PLAN} --max-error 0.05 --json", folder).stdout)
        assert record["plan"]["goal"] == ["output error ≤ 0.05"]
        assert 0 < record["plan"]["after"]["harm"] <= 0.05

    def test_several_goals_and_layers(self, folder):
        command = f"{PLAN} --target-params 0.9x --target-size 40KB --exclude middle --max-pairs 2"
        plan = json.loads(done(f"{command} --json", folder).stdout)["plan"]
        assert plan["goal"] == ["parameters ≤ 0.9x", "size ≤ 40KB"]
        assert plan["after"]["bytes"] <= 40_000
        assert plan["layers"][1]["reason"]["code"] == "excluded"
        assert plan["layers"][2]["choice"]["pairs"] <= 2

    def test_a_second_plan_measures_nothing(self, folder):
        done(MACS, folder)
        assert "Trying choices" not in done(f"{PLAN} --target-macs 0.6x", folder).stderr


class TestPlanFile:
    def test_it_is_not_overwritten_unasked(self, folder, tmp_path):
        path = folder / "taken.json"
        path.write_text("mine")
        command = MACS.replace("plan.json", "taken.json")
        refused(
            command.replace(" --overwrite", ""),
            folder,
            2,
            "taken.json exists already",
            "--overwrite",
        )
        assert path.read_text() == "mine"
        done(command, folder)
        assert read_plan(path).chosen

    def test_a_failure_leaves_what_was_there(self, folder, monkeypatch):
        path = folder / "kept.json"
        path.write_text("mine")

        def fails(*args, **kwargs):
            raise OSError("no space left")

        monkeypatch.setattr(msgspec.json, "format", fails)
        result = call(MACS.replace("plan.json", "kept.json"), folder)
        assert result.exit_code == 2, result.output
        assert path.read_text() == "mine"
        assert not [*folder.glob(".kept*")]


class TestRefusals:
    """Exit code 2, a sentence and a hint, nothing on stdout, nothing written."""

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            ("--target-macs 0.5x", ["needs calibration images", "Add --calibration"]),
            ("--calibration few.npz --target-macs 0.5x", ["5 calibration images are too few"]),
            ("--calibration few.npz", ["5 calibration images are too few"]),
            (
                "--calibration data.npz --target-macs lots",
                ["'lots' is no target for macs", "6.25M"],
            ),
            ("--calibration data.npz --target-latency 3", ["'3' is no target for latency", "3ms"]),
            (
                "--calibration data.npz --target-macs 0.01x",
                ["no plan keeps MACs ≤ 0.01x", "the least there is: ", " of 341 k MACs"],
            ),
            ("--calibration data.npz --max-error nan", ["nan", "--max-error"]),
            ("--calibration data.npz --max-error -1", ["-1", "--max-error"]),
            ("--calibration data.npz --max-error inf", ["inf", "--max-error"]),
            ("--calibration data.npz --max-drop 1%", ["needs images with labels", "--labels"]),
            (
                "--calibration data.npz --max-drop 1% --data test.npz",
                ["needs images with labels", "--labels"],
            ),
            (
                "--calibration data.npz --data test.npz --labels",
                ["--data, --labels and --refine are for --max-drop"],
            ),
            (
                "--calibration data.npz --max-drop 1 --data test.npz --labels",
                ["'1' is no drop of top-1", "1%"],
            ),
            (
                "--calibration data.npz --max-drop nan% --data test.npz --labels",
                ["'nan%' is no drop of top-1"],
            ),
            (
                "--calibration data.npz --max-drop 1% --data data.npz --labels --target-macs 1x",
                ["no labels"],
            ),
            ("--calibration data.npz --device ethos-u99", ["unknown device", "ethos-u55-128"]),
            (
                "--calibration data.npz --device ethos-u55-128 --precision float32",
                ["runs int8 .tflite files only"],
            ),
            ("--calibration data.npz --target-macs 0.5x --include conv9", ["'conv9'", "middle"]),
            ("--calibration data.npz -o plan.txt", ["plan.txt", "allowed: .json"]),
        ],
    )
    def test_plan(self, folder, arguments, parts):
        path = folder / "refused.json"
        refused(f"plan model.onnx -o refused.json {arguments}", folder, 2, *parts)
        assert not path.exists()

    def test_images_that_are_too_few_are_refused_before_anything_is_measured(self, folder):
        result = call("plan model.onnx -o refused.json --calibration few.npz", folder)
        assert result.exit_code == 2
        assert "Measuring" not in result.stderr
        assert "Profiling" not in result.stderr

    def test_a_tflite_file(self, folder):
        (folder / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3")
        words = ["plan", str(folder / "model.tflite"), "--calibration", str(folder / "data.npz")]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2
        assert "it cannot be changed any more" in result.stderr


class TestRewrite:
    command = "rewrite model.onnx -o ds.onnx --overwrite --plan plan.json"

    @pytest.fixture(autouse=True)
    def plan(self, folder) -> Plan:
        done(MACS, folder)
        return read_plan(folder / "plan.json")

    @pytest.mark.parametrize("kind", ["onnx", "keras"])
    def test_what_was_planned_is_written(self, folder, plan, kind):
        if kind == "keras":
            done(MACS.replace("model.onnx", "model.keras"), folder)
            plan = read_plan(folder / "plan.json")
        command = self.command.replace(".onnx", f".{kind}")
        result = done(f"{command} --calibration data.npz --refine 0 --json", folder)
        report = json.loads(result.stdout)["report"]
        assert report["macs_after"] == plan.after.macs
        assert report["params_after"] == plan.after.params
        assert "another file" not in result.stderr

    @pytest.mark.parametrize(
        "option", ["--pairs 2", "--order depthwise-first", "--include middle", "--exclude 'st*'"]
    )
    def test_options_that_would_be_ignored(self, folder, option):
        refused(f"{self.command} {option}", folder, 2, "would be ignored", f"Edit {folder}")

    def test_a_plan_that_is_not_there(self, folder):
        command = self.command.replace("plan.json", "none.json")
        refused(command, folder, 2, "none.json: No such file", "dsconvert plan MODEL -o")

    @pytest.mark.parametrize(
        ("old", "new", "place"),
        [
            ('"pairs": ', '"pairs": "x", "y": ', "$.layers[1].choice.pairs"),
            ('"dsconvert.plan/1"', '"dsconvert.plan/2"', "$.schema"),
            ('"layers": [', '"layers": [{"name": 1},', "$.layers[0].name"),
            ("{", "", ""),
            ("middle", "\udcff", ""),
        ],
    )
    def test_what_is_no_plan(self, folder, old, new, place):
        text = (folder / "plan.json").read_text().replace(old, new, 1)
        (folder / "bad.json").write_bytes(text.encode(errors="surrogateescape"))
        command = self.command.replace("plan.json", "bad.json")
        refused(command, folder, 2, "bad.json is no plan: ", place, "dsconvert plan")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ('{"schema": "dsconvert.plan/1"}', "bad.json is no plan: "),
            ('{"layers": []}', "the plan has no layers, and the model has: stem, middle, last."),
        ],
    )
    def test_a_plan_without_layers(self, folder, text, told):
        (folder / "bad.json").write_text(text)
        refused(self.command.replace("plan.json", "bad.json"), folder, 2, told, "dsconvert plan")

    def test_a_plan_of_another_file(self, folder):
        command = self.command.replace("model.onnx", "other.onnx")
        result = done(command, folder)
        assert "was made for another file than" in result.stderr

    def test_a_plan_of_another_model(self, folder, plan):
        layers = [msgspec.structs.replace(layer, name=f"my_{layer.name}") for layer in plan.layers]
        other = msgspec.structs.replace(plan, layers=tuple(layers))
        (folder / "mine.json").write_bytes(msgspec.json.encode(other))
        command = self.command.replace("plan.json", "mine.json")
        refused(command, folder, 2, "the plan rewrites 'my_middle'", "stem, middle, last")


def fresh_python(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in an interpreter of its own, and print what frameworks it has loaded."""
    code = f"""
import sys
from dsconvert.cli import main
try:
    main({words!r})
except SystemExit as stop:
    assert not stop.code, stop.code
print(sorted(set(sys.modules) & {{"tensorflow", "keras", "tf2onnx", "ai_edge_litert"}}))
"""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.parametrize(
    "goal", ["--target-macs 0.5x", "--runtime ort", "--precision int8", "--max-error 0.1"]
)
def test_onnx_models_are_planned_without_tensorflow(folder, goal):
    words = ["plan", str(folder / "model.onnx"), "--calibration", str(folder / "data.npz")]
    words += ["-o", str(folder / "light.json"), "--overwrite", "--max-pairs", "1", "--json"]
    run = fresh_python([*words, *goal.split()])
    assert run.returncode == 0, run.stderr
    *result, modules = run.stdout.splitlines()
    assert modules == "[]"
    # Nothing else got onto stdout, from native code either.
    assert json.loads("\n".join(result))["schema"] == "dsconvert.planned/1"


def test_the_cache_is_where_the_variable_says(folder):
    done(MACS, folder)
    assert [*Path(os.environ["DSCONVERT_CACHE"]).glob("effects/*.jsonl")]
