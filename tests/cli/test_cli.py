"""The commands as a user meets them: exit codes, streams, files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from commands import call

from dsconvert.cli import main

COMMANDS = ("inspect", "plan", "rewrite", "finetune", "evaluate", "export", "profile")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained-looking CNN on 12×12 RGB images, 5 classes, and data for it."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    place = tmp_path_factory.mktemp("cli")
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3), name="image"),
            layers.Conv2D(8, 3, activation="relu", name="stem"),
            layers.Conv2D(16, 3, activation="relu", name="conv1"),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="conv2"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax", name="class"),
        ],
        name="small",
    )
    model.save(place / "model.keras")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
    y = model.predict(x / 255.0, verbose=0).argmax(axis=1)
    np.savez(place / "gray.npz", x=x[..., 0])
    np.savez(place / "data.npz", x_train=x, y_train=y, x_test=x[:40], y_test=y[:40])
    return place


def refused(arguments: str, folder: Path, code: int, *parts: str) -> None:
    result = call(arguments, folder)
    assert isinstance(result.exception, SystemExit), result.output
    assert result.exit_code == code
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr


def fresh_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | variables,
    )


class TestStartUp:
    @pytest.mark.parametrize(
        "words", [[], ["optimize"], ["init"], ["report"], ["sweep"], *([name] for name in COMMANDS)]
    )
    def test_help_imports_neither_numpy_nor_a_framework(self, words: list[str]) -> None:
        code = f"""
import sys
from dsconvert.cli import main
main({[*words, "--help"]}, standalone_mode=False)
heavy = {{"numpy", "scipy", "tensorflow", "keras", "onnx", "onnxruntime", "ai_edge_litert"}}
sys.exit(f"imported {{heavy & set(sys.modules)}}" if heavy & set(sys.modules) else 0)
"""
        result = fresh_python(code)
        assert result.returncode == 0, result.stderr
        assert "Usage:" in result.stdout

    @pytest.mark.parametrize("command", sorted(main.list_commands(None)))
    def test_help_keeps_its_rows(self, command: str) -> None:
        """click joins the lines of a paragraph unless the control character is before it."""
        shown = CliRunner().invoke(main, [command, "--help"]).stdout
        assert "\\b" not in shown
        for line in main.commands[command].help.partition("\b\n")[2].splitlines():
            if not line:
                break
            assert line.strip() in shown
        assert max(map(len, shown.splitlines())) <= 80

    def test_help_tells_each_command_in_a_whole_sentence(self) -> None:
        shown = CliRunner().invoke(main, ["--help"]).stdout
        rows = [line.strip() for line in shown.partition("Commands:\n")[2].splitlines()]
        assert len(rows) == len(main.commands)
        assert all(row.endswith(".") and not row.endswith("...") for row in rows)

    def test_help_shows_a_typical_run_line_by_line(self) -> None:
        lines = CliRunner().invoke(main, ["--help"]).stdout.splitlines()
        shown = [line.split()[1] for line in lines if line.startswith("    dsconvert ")]
        assert shown == ["optimize", *COMMANDS]

    def test_a_missing_extra_is_one_sentence(self, folder: Path) -> None:
        code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name="tensorflow")
sys.meta_path.insert(0, Missing())
from dsconvert.cli import main
main(["inspect", {str(folder / "model.keras")!r}])
"""
        result = fresh_python(code)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        assert "tensorflow is needed" in result.stderr
        assert "pip install 'dsconvert[keras]'" in result.stderr

    def test_profiling_tflite_imports_no_tensorflow(self, folder: Path) -> None:
        call("export model.keras -o light.tflite", folder)
        code = f"""
import sys
from dsconvert.cli import main
main(["profile", {str(folder / "light.tflite")!r}, "--runs", "2", "--min-seconds", "0"],
     standalone_mode=False)
sys.exit(str(set(sys.modules) & {{"tensorflow", "keras"}}) if "tensorflow" in sys.modules else 0)
"""
        result = fresh_python(code)
        assert result.returncode == 0, result.stderr
        assert "LiteRT" in result.stdout


class TestRefusals:
    """Exit code 2, a sentence and a hint, nothing on stdout."""

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            ("inspect absent.keras", ("absent.keras",)),
            ("rewrite model.keras -o model.keras", ("is the model itself",)),
            ("rewrite model.keras -o model.keras --overwrite", ("is the model itself",)),
            (
                "rewrite model.keras -o x.keras --calibration gray.npz",
                ("gray.npz does not fit", "(n, 12, 12)", "(n, 12, 12, 3)"),
            ),
            (
                "inspect model.keras --calibration gray.npz",
                ("gray.npz does not fit", "(n, 12, 12)", "(n, 12, 12, 3)"),
            ),
            ("rewrite model.keras -o /proc/x.keras", ("cannot write /proc/x.keras",)),
            ("rewrite model.keras -o /nowhere/out.keras", ("/nowhere", "does not exist")),
            ("rewrite model.keras -o out.tflite", (".tflite", ".keras or .h5")),
            (
                "rewrite model.keras -o x.keras --include nothing*",
                ("nothing*", "stem, conv1, conv2"),
            ),
            (
                "rewrite model.keras -o x.keras --method svd --calibration data.npz",
                ("looks at no images",),
            ),
            ("rewrite model.keras -o x.keras --method data", ("needs calibration images",)),
            ("rewrite model.keras -o x.keras --calibration data.npz --scale zero", ("zero",)),
            (
                "export model.keras -o x.tflite --quantize int8",
                ("export MODEL -o", "--calibration"),
            ),
            ("export model.keras -o x.onnx --quantize int8", ("needs calibration data",)),
            ("profile model.keras", ("dsconvert export",)),
            ("evaluate model.keras --data absent.npz", ("absent.npz",)),
            ("finetune model.keras --teacher model.keras --data data.npz --resume", ("resume",)),
        ],
    )
    def test_bad_input(self, folder: Path, arguments: str, parts: tuple[str, ...]) -> None:
        before = sorted(path.name for path in folder.iterdir())
        refused(arguments, folder, 2, *parts)
        assert sorted(path.name for path in folder.iterdir()) == before

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            ("inspect absent.keras", "model-not-found"),
            ("rewrite model.keras -o model.keras", "same-file"),
            ("rewrite model.keras -o /nowhere/out.keras", "folder-not-found"),
            ("rewrite model.keras -o out.tflite", "wrong-suffix"),
            ("rewrite model.keras -o .", "output-is-a-folder"),
            ("export model.keras -o /", "output-is-a-folder"),
            ("plan model.keras -o ..", "output-is-a-folder"),
            ("rewrite model.keras -o data.keras --method svd --calibration d.npz",
             "calibration-ignored"),
            ("rewrite model.keras -o x.keras --plan none.json", "plan-not-found"),
            ("plan model.keras", "needs-calibration"),
            ("plan model.keras --max-drop 1%", "needs-labels"),
            ("plan model.keras --labels", "unused-data"),
            ("plan model.keras --max-drop much --data data.npz --labels", "not-a-drop"),
            ("export model.keras -o x.tflite --report", "int8-only"),
            ("export model.keras -o x.tflite --like model.onnx", "wrong-suffix"),
            ("import model.keras", "not-onnx"),
            ("finetune model.keras --teacher model.keras --data data.npz -o x.onnx",
             "wrong-suffix"),
            ("finetune model.keras --teacher model.keras --data data.npz --resume",
             "nothing-to-resume"),
            ("zoo mobilenet", "needs-output"),
            ("zoo --separable", "needs-name"),
        ],
    )  # fmt: skip
    def test_an_error_has_a_stable_code(self, folder: Path, arguments: str, code: str) -> None:
        result = call(f"{arguments} --json", folder)
        assert (result.exit_code, result.stdout) == (2, "")
        error = json.loads(result.stderr.splitlines()[-1])
        assert error.keys() == {"schema", "code", "message", "hint", "docs"}
        assert (error["schema"], error["code"]) == ("dsconvert.error/1", code)
        told = call(f"{arguments} -v", folder).stderr
        assert told.splitlines()[-1] == f"code: {code}"
        assert error["message"] in told

    def test_wrong_option_is_a_usage_error(self, folder: Path) -> None:
        result = call("rewrite model.keras --pairs 0", folder)
        assert result.exit_code == 2
        assert "--pairs" in result.stderr

    def test_a_left_state_is_not_taken_silently(self, folder: Path) -> None:
        (folder / "left.keras.state").write_bytes(b"")
        refused(
            "finetune model.keras --teacher model.keras --data data.npz -o left.keras",
            folder,
            2,
            "interrupted",
            "--resume",
        )

    def test_ctrl_c_writes_the_best_and_can_be_resumed(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @contextmanager
        def pressed(label: str, total: int) -> Iterator[Callable[[], None]]:
            def press() -> None:  # as Python would: a real signal could end all tests
                if "Epoch 2" in label:
                    handler = signal.getsignal(signal.SIGINT)
                    assert callable(handler)
                    handler(signal.SIGINT, None)

            yield press

        command = (
            "finetune model.keras --teacher model.keras --data data.npz --epochs 2 --batch-size 8 "
            f"-o stopped.keras --log-dir {folder / 'logs'} --json"
        )
        with monkeypatch.context() as patched:
            patched.setattr("dsconvert.cli.terminal.progress", pressed)
            stopped = call(command, folder)
        assert stopped.exit_code == 130
        record = json.loads(stopped.stdout)
        assert record["interrupted"]
        assert [epoch["complete"] for epoch in record["history"]] == [True, True, False]
        assert (folder / "stopped.keras").exists()
        assert (folder / "stopped.keras.state").exists()
        resumed = call(f"{command} --resume --overwrite", folder)
        assert resumed.exit_code == 0, resumed.stderr
        assert not json.loads(resumed.stdout)["interrupted"]
        assert not (folder / "stopped.keras.state").exists()
        assert len(list((folder / "logs").iterdir())) == 2

    def test_a_failed_run_leaves_what_was_there(self, folder: Path) -> None:
        old = folder / "old.keras"
        old.write_bytes(b"old")
        result = call("rewrite model.keras -o old.keras --overwrite --include nothing", folder)
        assert result.exit_code == 2
        assert old.read_bytes() == b"old"


class TestSaving:
    def test_what_cannot_be_read_back_is_not_kept(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import keras

        class Other:
            def get_weights(self) -> list[np.ndarray]:
                return [np.zeros(3)]

        real = keras.saving.load_model

        def load_wrongly(path: Path, **options: object) -> object:
            return Other() if Path(path).name == "gate.keras" else real(path, **options)

        monkeypatch.setattr(keras.saving, "load_model", load_wrongly)
        refused("rewrite model.keras -o gate.keras", folder, 1, "gate.keras")
        assert not (folder / "gate.keras").exists()


class TestChain:
    """The main job, each command on what the one before wrote."""

    def test_inspect(self, folder: Path) -> None:
        result = call("inspect model.keras --json --calibration data.npz --scale 1/255", folder)
        assert result.exit_code == 0, result.stderr
        rows = json.loads(result.stdout)["convolutions"]
        assert [row["name"] for row in rows] == ["stem", "conv1", "conv2"]
        assert rows[0]["reason"]["code"] == "stem"
        assert len(rows[1]["options"]) == 4
        errors = [option["data_error"] for option in rows[1]["options"]]
        assert errors == sorted(errors, reverse=True)

    def test_trained_for_int8(self, folder: Path) -> None:
        tuned = call(
            "finetune model.keras --teacher model.keras --data data.npz --scale 1/255 --epochs 1 "
            "--quantize int8 -o rounded.keras",
            folder,
        )
        assert tuned.exit_code == 0, tuned.stderr
        (then,) = re.findall("next: dsconvert (export .*)", tuned.stdout)
        assert "--calibration-method minmax --equalize off --no-bias-correction" in then
        exported = call(f"{then} -o rounded.tflite --json", folder)
        assert exported.exit_code == 0, exported.stderr
        assert (folder / "rounded.tflite").exists()

    @pytest.mark.slow
    def test_rewrite_to_profile(self, folder: Path) -> None:
        fit = "--calibration data.npz --scale 1/255"
        steps = [
            f"rewrite model.keras -o small.keras {fit} --structure pairs --pairs 2 "
            "--refine 3steps --json",
            "finetune small.keras --teacher model.keras --data data.npz --scale 1/255 --epochs 1 "
            "-o tuned.keras --json",
            f"export tuned.keras -o tuned.tflite {fit} --json",
            f"export tuned.keras -o tuned8.tflite --quantize int8 {fit} --json",
            f"export tuned.keras -o tuned.onnx {fit} --json",
            "evaluate tuned.keras tuned.tflite tuned8.tflite tuned.onnx --data data.npz "
            "--scale 1/255 --reference model.keras --json",
            "profile tuned.tflite tuned8.tflite tuned.onnx --runs 3 --min-seconds 0 --json",
        ]
        results = []
        for step in steps:
            result = call(step, folder)
            assert result.exit_code == 0, result.stderr
            results.append(json.loads(result.stdout))
        rewritten, tuned, floating, _, _, evaluations, measured = results
        assert [row["pairs"] for row in rewritten["report"]["layers"]] == [None, 2, 2]
        assert rewritten["preprocessing"]["scale"] == pytest.approx(1 / 255)
        assert rewritten["sha256"] != tuned["sha256"] or tuned["best_epoch"] == 0
        assert not (folder / "tuned.keras.state").exists()
        assert floating["source_sha256"] == tuned["sha256"]
        assert [row["samples"] for row in evaluations] == [40] * 4
        same = [row["top1"]["value"] for row in evaluations]
        assert same[0] == same[1] == same[3]  # float32 files answer alike
        assert [row["path"].rsplit("/", 1)[-1] for row in measured] == [
            "tuned.tflite",
            "tuned8.tflite",
            "tuned.onnx",
        ]
        assert all(row["latency"]["p50_ms"] > 0 for row in measured)

    @pytest.mark.parametrize(
        "arguments",
        [
            "inspect model.keras",
            "rewrite model.keras -o shown.keras --overwrite",
            "export model.keras -o shown.onnx --overwrite",
            "evaluate model.keras --data data.npz --scale 1/255",
        ],
    )
    def test_people_get_a_table(self, folder: Path, arguments: str) -> None:
        result = call(arguments, folder)
        assert result.exit_code == 0, result.stderr
        assert len(result.stdout.splitlines()) >= 3

    def test_stdout_is_the_result_alone(self, folder: Path) -> None:
        """TensorFlow writes to the file descriptor itself, so a real process must be looked at."""
        command = [sys.executable, "-c", "from dsconvert.cli import main; main()"]
        words = ["export", str(folder / "model.keras"), "-o", str(folder / "pure.tflite"), "--json"]
        result = subprocess.run([*command, *words], capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["format"] == "tflite"


def test_unknown_macs_are_called_so(folder: Path) -> None:
    import keras

    free = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(8, 3, name="stem"),
            keras.layers.Conv2D(8, 3, name="conv"),
        ]
    )
    free.save(folder / "free.keras")
    for arguments in ("inspect free.keras", "rewrite free.keras -o free_ds.keras"):
        result = call(arguments, folder)
        assert result.exit_code == 0, result.stderr
        assert "MACs unavailable" in result.stdout
