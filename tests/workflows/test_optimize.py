"""A whole run: what is kept, what is run again, which file is recommended, and what is refused."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import OutputFidelity
from dsconvert.cli import main
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.workflows.optimize.options import file_name, split
from dsconvert.workflows.optimize.recommend import noise, recommend
from dsconvert.workflows.optimize.results import _estimates_compared
from dsconvert.workflows.optimize.run_program import program_text
from dsconvert.workflows.results.optimized import FileFigures, Timing


class TestOptions:
    def test_all_that_is_wrong_is_told_at_once_with_what_was_meant(self):
        with pytest.raises(InputError) as error:
            ds.OptimizeOptions(formats=("tflite-int", "onnx-in8", "onnx-int8"))
        assert error.value.code == "unknown-format"
        assert "tflite-int8" in error.value.message
        assert "onnx-int8?" in error.value.message
        assert "'onnx-int8'" not in error.value.message

    def test_numbers_out_of_range(self):
        with pytest.raises(InputError) as error:
            ds.OptimizeOptions(epochs=-1, samples=2)
        assert "epochs" in error.value.message
        assert "samples" in error.value.message

    def test_files_are_named_by_model_and_format(self):
        assert split("tflite-int8-float-io") == ("tflite", "int8-float-io")
        assert file_name("rewritten", "tflite-int8-float-io") == "rewritten-int8-float-io.tflite"

    def test_the_first_format_says_what_the_plan_is_for(self):
        options = ds.OptimizeOptions(formats=("onnx-int8", "tflite-float32"), threads=2)
        wish = options.target_of("onnx-int8")
        assert (wish.runtime, wish.precision, wish.threads) == ("ort", "int8", 2)
        assert ds.OptimizeOptions().formats_for("onnx") == ("onnx-float32", "onnx-int8")


def figures(name, time=1.0, loss=0.0, size=1000, verified=True, **more):
    timing = None if time is None else Timing(unit="ms", value=time, ratio=time, low=time * 0.97)
    return FileFigures(
        name=name, model="original", form="tflite-int8", size_bytes=size, loss=loss,
        timing=timing, verified=verified, **more,
    )  # fmt: skip


def test_estimated_cycles_are_compared_with_the_first_file():
    def cycles(name, count):
        return msgspec.structs.replace(figures(name), timing=Timing(unit="cycles", value=count))

    failed = figures("none", time=None, failure="no")
    first, _, second = _estimates_compared((cycles("a", 400.0), failed, cycles("b", 100.0)))
    assert (first.timing.ratio, second.timing.ratio, second.timing.high) == (1.0, 0.25, 0.25)
    assert "4.00× as fast and" in recommend([first, second], 0.01, None, "top-1").why
    assert recommend([first, second], 0.01, "0.2x", "top-1").missed
    measured = (figures("a", 2.0), figures("b"))
    assert _estimates_compared(measured) == measured


class TestNoise:
    @pytest.mark.parametrize(
        ("decibels", "error", "share"),
        [(20.0, 0.1, 0.01), (0.0, 1.0, 1.0), (None, 0.0, 0.0), (None, None, None)],
    )
    def test_a_share_of_noise_is_that_of_the_sqnr(self, decibels, error, share):
        output = OutputFidelity(
            name="y", finite=True, sqnr_db=decibels, relative_error=error, max_abs_error=0.0
        )
        assert noise(output) == (None if share is None else pytest.approx(share))
        assert noise(msgspec.structs.replace(output, finite=False)) is None


class TestRecommendation:
    def test_the_fastest_of_those_that_are_good_enough(self):
        files = [figures("a"), figures("b", 0.4, 0.005), figures("c", 0.2, 0.05)]
        found = recommend(files, 0.01, None, "top-1")
        assert (found.file, found.missed) == ("b", "")
        assert "0.50 % of top-1 lost" in found.why

    def test_of_files_alike_the_smallest(self):
        files = [figures("a"), figures("b", 0.4, size=900), figures("c", 0.41, size=300)]
        assert recommend(files, 0.01, None, "top-1").file == "c"

    def test_a_file_that_failed_its_verification_is_none(self):
        files = [figures("a"), figures("b", 0.1, verified=False), figures("c", 0.1, failure="no")]
        assert recommend(files, 0.01, None, "top-1").file == "a"

    def test_a_missed_target_says_what_was_reached_and_what_to_try(self):
        files = [figures("a"), figures("b", 0.55), figures("c", 0.3, 0.04)]
        found = recommend(files, 0.01, "0.5x", "top-1")
        assert found.file == "b"
        assert "0.55x" in found.missed
        assert "c is faster and loses 4.00 %" in found.missed

    def test_a_target_in_milliseconds(self):
        files = [figures("a"), figures("b", 0.55)]
        assert not recommend(files, 0.01, "0.6ms", "top-1").missed
        assert "0.55 ms" in recommend(files, 0.01, "0.5ms", "top-1").missed

    def test_noise_is_no_miss(self):
        assert not recommend([figures("a"), figures("b", 0.51)], 0.01, "0.5x", "top-1").missed

    def test_where_none_is_good_enough_the_best_is_told(self):
        found = recommend([figures("a", loss=0.2), figures("b", loss=0.1)], 0.01, "0.5x", "noise")
        assert found.file == ""
        assert "b loses least, 10.00 % of noise" in found.why
        assert found.missed

    def test_what_was_gained_is_said_so(self):
        files = [figures("a"), figures("b", 0.4, -0.01)]
        assert "1.00 % of top-1 gained" in recommend(files, 0.01, None, "top-1").why


# Whole runs, on networks that take seconds.


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two small ONNX networks, one worth a rewrite and one of 1×1 layers, and images."""
    from conv_stacks import conv_stack

    folder = tmp_path_factory.mktemp("optimize")
    conv_stack(
        folder / "wide.onnx", [3, 3], channels=48
    )  # far faster as pairs on a busy machine, too
    conv_stack(folder / "thin.onnx", [1, 1, 1])
    rng = np.random.default_rng(0)
    np.savez(
        folder / "data.npz",
        x_train=rng.normal(size=(48, 16, 16, 48)).astype(np.float32),
        x_test=rng.normal(size=(24, 16, 16, 48)).astype(np.float32),
    )
    np.savez(folder / "thin.npz", x=rng.normal(size=(64, 8, 16, 16)).astype(np.float32))
    return folder


ASKED = ds.OptimizeOptions(
    formats=("onnx-float32", "onnx-int8"), epochs=0, samples=48, test_samples=24, max_pairs=1
)


@pytest.fixture(scope="module")
def run(place):
    return ds.optimize(place / "thin.onnx", str(place / "thin.npz"), place / "thin", ASKED)


class TestWhereARewriteDoesNotPay:
    def test_it_is_not_tried_and_files_are_made_all_the_same(self, run):
        assert not run.rewritten
        assert not run.potential.pays
        assert [file.name for file in run.files] == ["original-float32.onnx", "original-int8.onnx"]
        assert all(file.verified and file.timing is not None for file in run.files)
        assert {stage.stage for stage in run.stages}.isdisjoint({"plan", "rewrite", "finetune"})

    def test_data_without_a_test_part_are_divided_and_that_is_said(self, run):
        assert any("held out" in warning for warning in run.warnings)

    def test_the_folder_says_all_again(self, run, place):
        folder = place / "thin"
        report = json.loads((folder / "report.json").read_bytes())
        assert report == json.loads(msgspec.json.encode(run))
        manifest = json.loads((folder / "manifest.json").read_bytes())
        assert manifest["model"]["sha256"] == run.sha256
        assert set(manifest["files"]) >= {"files/original-int8.onnx", "recipe.toml", "run.py"}
        assert set(manifest["files"]) >= {"run.cc", "Model.kt"}
        recipe = tomllib.loads((folder / "recipe.toml").read_text())
        assert recipe["model"] == str(place / "thin.onnx")
        assert recipe["optimize"]["formats"] == "onnx-float32,onnx-int8"

    def test_run_py_gives_what_the_file_gives(self, run, place, tmp_path):
        image = np.load(place / "thin.npz")["x"][:2]
        program = runpy.run_path(str(place / "thin" / "run.py"))
        model = program["Model"]()
        (wanted,) = open_runtime(place / "thin" / "files" / run.recommended).predict([image])
        for stored in (image, image.transpose(0, 2, 3, 1)):  # either layout
            np.save(tmp_path / "x.npy", stored)
            loaded = program["load"](tmp_path / "x.npy", model.shape)
            (found,) = model(program["prepare"](loaded, model.shape))
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("form", ["tflite-int8", "onnx-int8"])
    def test_run_py_prepares_as_the_model_was_prepared_for(self, form):
        file = figures("a.tflite" if form.startswith("tflite") else "a.onnx")
        done = ds.Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2,))
        names: dict[str, object] = {"__name__": "program", "__file__": "run/run.py"}
        exec(program_text(file, done), names)
        stored = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
        prepare = names["prepare"]
        np.testing.assert_allclose(prepare(stored, (1, 4, 4, 3)), done.apply(stored), rtol=1e-6)
        first = prepare(stored, (None, 3, "h", "w"))
        np.testing.assert_allclose(first, done.apply(stored).transpose(0, 3, 1, 2), rtol=1e-6)

    @pytest.mark.parametrize("words", [[], ["--help"]])
    def test_run_py_says_what_it_takes(self, words, monkeypatch, capsys):
        names: dict[str, object] = {"__name__": "program", "__file__": "run/run.py"}
        exec(program_text(figures("a.tflite"), ds.Preprocessing()), names)
        monkeypatch.setattr("sys.argv", ["run.py", *words])
        names["main"]()
        assert "python run.py IMAGE" in capsys.readouterr().out

    def test_again_nothing_is_run(self, run, place):
        again = ds.optimize(place / "thin.onnx", str(place / "thin.npz"), place / "thin", ASKED)
        assert again.files == run.files
        lines = (place / "thin" / "log.txt").read_text().splitlines()
        finished = [line.split()[2] for line in lines if " finished in " in line]
        assert len(finished) == len(set(finished))


class TestCommand:
    def test_the_recipe_of_a_run_does_the_same_again(self, run, place):
        recipe = place / "thin" / "recipe.toml"
        result = CliRunner().invoke(main, ["optimize", "--recipe", str(recipe), "--json"])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["files"] == json.loads(msgspec.json.encode(run.files))  # not timed again

    def test_a_dry_run_only_inspects(self, place):
        words = ["optimize", "wide.onnx", "--data", "data.npz", "-o", "dry", "--dry-run", "--json"]
        words = [str(place / word) if "." in word[1:] or word == "dry" else word for word in words]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        states = {stage["stage"]: stage["state"] for stage in found["stages"]}
        assert states.pop("inspect") == "done"
        assert {"plan", "rewrite", "finetune", "evaluate", "profile"} <= set(states)
        assert set(states.values()) == {"planned"}
        assert all(stage["about"] > 0 for stage in found["stages"] if stage["state"] == "planned")
        assert [path.name for path in (place / "dry" / "files").iterdir()] == []

    def test_a_missed_target_is_the_first_line_and_exit_code_1(self, place):
        words = ["optimize", place / "thin.onnx", "--data", place / "thin.npz", "-o"]
        asked = ["--formats", "onnx-float32", "--epochs", "0", "--target-latency", "0.001x"]
        result = CliRunner().invoke(main, [*map(str, words), str(place / "missed"), *asked])
        assert result.exit_code == 1
        first = result.stdout.splitlines()[0]
        assert first.startswith("NOT reached")
        assert "0.001x" in first

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            ("absent.onnx --data data.npz", "model-not-found"),
            ("thin.onnx --data thin.npz --max-drop much", "not-a-drop"),
            ("thin.onnx --data thin.npz --formats onnx-int9", "unknown-format"),
        ],
    )
    def test_what_cannot_be_is_refused_before_anything_is_written(self, place, words, code):
        words = [str(place / word) if "." in word[1:] else word for word in words.split()]
        folder = place / "refused"
        result = CliRunner().invoke(main, ["optimize", *words, "-o", str(folder), "--json"])
        assert result.exit_code == 2
        assert json.loads(result.stderr.splitlines()[-1])["code"] == code
        assert not folder.exists()


KILLS = """
import os, signal, sys
from pathlib import Path

import numpy, onnx, onnxruntime, scipy  # once, for all that are forked

import dsconvert as ds
from dsconvert.workflows.optimize import ledger

model, data, folder = sys.argv[1:]
asked = ds.OptimizeOptions(
    formats=("onnx-int8",), epochs=1, refine="0", samples=48, test_samples=24, max_pairs=1
)
log, write = ledger.Ledger._log, ledger.write_bytes
done = Path(folder).with_suffix(".kills")  # where this process, and those before, were killed
done.touch()


def killed(stage, point):
    if f"{stage} {point}" not in done.read_text().splitlines():
        with done.open("a") as file:
            file.write(f"{stage} {point}\\n")
        os.kill(os.getpid(), signal.SIGKILL)


def logged(self, stage, text):
    log(self, stage, text)
    if text == "started":
        killed(stage.name, "as it starts")


def written(path, content):
    if path.parent.name == ledger.STAGES:
        killed(path.stem, "before it is marked as finished")
    write(path, content)


ledger.Ledger._log, ledger.write_bytes = logged, written
for _ in range(40):
    child = os.fork()
    if child == 0:
        ds.optimize(model, data, folder, asked)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    assert os.WTERMSIG(status) == signal.SIGKILL, status
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_at_both_ends_of_each_stage_it_goes_on_and_finishes_none_twice(place):
    """The kills come with the stage's mark in the log, and with its record: no time is waited."""
    folder = place / "killed"
    command = [sys.executable, "-c", KILLS, place / "wide.onnx", place / "data.npz", folder]
    subprocess.run([*map(str, command)], check=True)

    lines = (folder / "log.txt").read_text().splitlines()
    started = dict.fromkeys(line.split()[2] for line in lines if line.endswith(" started"))
    finished = [line.split()[2] for line in lines if " finished in " in line]
    assert sorted(finished) == sorted(started)  # each once
    names = {name.rstrip(":") for name in started}
    made = ("original-int8.onnx", "rewritten-int8.onnx")
    single = ("inspect", "plan", "rewrite", "finetune", "evaluate", "profile")
    assert names == {*single, *(f"{what}-{name}" for what in ("export", "verify") for name in made)}
    kills = folder.with_suffix(".kills").read_text().splitlines()
    assert len(kills) == len({*kills}) == 2 * len(names)
    assert json.loads((folder / "report.json").read_bytes())["rewritten"]
    assert not list(folder.rglob(".*.*.*"))
