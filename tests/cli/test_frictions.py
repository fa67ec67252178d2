"""What new users stumbled over, one test for each; more of them are in `test_door`.

Sizes that nobody named are in `workflows/test_input_size`, settings that had to be typed for each
command in `test_recipe`, warnings of norms that were trained shortly in
`models/test_norm_convergence`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conv_stacks import conv_stack
from PIL import Image

import dsconvert as ds
from dsconvert.cli import main, next_command, terms
from dsconvert.workflows.class_folders import names_for


def call(*words, code=0):
    result = CliRunner(env={"COLUMNS": "300"}).invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A small network, images for it, and a folder of three classes of larger images."""
    folder = tmp_path_factory.mktemp("frictions")
    conv_stack(folder / "m.onnx", [3, 3])
    conv_stack(folder / "thin.onnx", [1] * 40 + [3])
    rng = np.random.default_rng(0)
    np.savez(folder / "d.npz", x=rng.normal(size=(16, 8, 16, 16)).astype(np.float32))
    for name in ("ant", "bee", "cat"):
        (folder / "photos" / name).mkdir(parents=True)
        pixels = rng.integers(0, 256, (24, 48, 3), dtype=np.uint8)
        for number in range(4):
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    return folder


class TestNextCommand:
    @pytest.mark.parametrize("name", sorted(main.commands))
    def test_every_command_has_one(self, name):
        assert main.commands[name].callback.after is not None

    def words(self, result):
        """Return the command that the last line names, which must be one that exists."""
        line = result.stdout.splitlines()[-1].strip()
        words = shlex.split(line.removeprefix("next: "))
        assert words[0] == "dsconvert"
        command = main.commands[words[1]]
        known = {option for param in command.params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= known
        return words[1:]

    def test_of_files_that_were_timed_their_accuracy(self, place):
        quick = ("--runs", "2", "--min-seconds", "0", "--warmup", "0")
        found = self.words(call("profile", place / "m.onnx", *quick))
        assert found[:2] == ["evaluate", str(place / "m.onnx")]

    def test_of_files_that_were_evaluated_their_times(self, place):
        words = ("--data", place / "d.npz", "--reference", place / "m.onnx")
        found = self.words(call("evaluate", place / "m.onnx", *words))
        assert found == ["profile", str(place / "m.onnx")]

    @pytest.mark.parametrize(
        ("compiled", "header", "device"),
        [(None, "", []), (None, "m.h", ["mcu"]), ("ethos-u55-64", "m.h", ["ethos-u55-64"])],
    )
    def test_of_a_file_for_a_device_its_estimate(self, compiled, header, device):
        result = SimpleNamespace(path="m.tflite", c_array=header)
        with click.Context(main.commands["export"]) as context:
            context.params["compile_for"] = compiled
            (line,) = next_command.after_export(result)
        words = ["profile", "m.tflite", *(["--device", *device] if device else [])]
        assert line == f"next: dsconvert {' '.join(words)}"

    def test_of_two_models_the_new_one(self, place, tmp_path):
        import keras

        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
        for name in ("old", "new"):
            model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / "x.npy", np.zeros((2, 8, 8, 3), np.float32))
        files = [tmp_path / f"{name}.keras" for name in ("new", "old")]
        words = ("--data", tmp_path / "x.npy", "--reference", files[1])
        result = call("evaluate", *files, *words)
        assert self.words(result)[:2] == ["export", str(files[0])]
        assert result.stderr.count("Running the reference") == 1

    def test_of_a_half_precision_file_its_float_form(self, tmp_path):
        path = conv_stack(tmp_path / "m.onnx", [3, 3], channels=16)
        call("export", path, "--quantize", "float16", "-o", tmp_path / "half.onnx", "--no-verify")
        found = self.words(call("inspect", tmp_path / "half.onnx"))
        assert found[0] == "optimize"
        assert "--dequantize" in found

    def test_of_a_plan_the_rewrite(self, place, tmp_path):
        words = ("--calibration", place / "d.npz", "--target-macs", "0.5x", "--max-pairs", "1")
        found = self.words(call("plan", place / "m.onnx", *words, "-o", tmp_path / "p.json"))
        assert found[:2] == ["rewrite", str(place / "m.onnx")]
        assert str(tmp_path / "p.json") in found

    def test_of_the_zoo_a_network(self):
        assert self.words(call("zoo"))[0] == "zoo"


class TestWords:
    @pytest.mark.parametrize("name", ["inspect", "plan", "rewrite", "verify", "profile"])
    def test_the_terms_of_a_result_are_explained_in_the_help(self, name):
        text = " ".join(call(name, "--help").stdout.split())
        told = {
            "inspect": ("MACs", "T", "stem", "fit"),
            "plan": ("output error", "knee"),
            "rewrite": ("pair", "block", "fit"),
            "verify": ("SQNR", "KL", "agreement"),
            "profile": ("p50, p90, p99", "arena"),
        }[name]
        for term in told:
            assert " ".join(terms.TERMS[term].split()) in text

    def test_help_keeps_within_80_columns(self):
        for name in main.commands:
            result = CliRunner(env={"COLUMNS": "80"}).invoke(main, [name, "--help"])
            assert max(map(len, result.stdout.splitlines())) <= 80, name

    def test_a_rewrite_says_words_and_no_errors_of_weights(self, place, tmp_path):
        words = ("--calibration", place / "d.npz", "-o", tmp_path / "small.onnx")
        text = call("rewrite", place / "m.onnx", *words).stdout
        assert "weights' error" not in text
        assert any(word in text for word in ("excellent", "good", "needs fine-tuning"))

    def test_a_rewrite_that_does_not_pay_says_that_before_it_works(self, place, tmp_path):
        words = ("--calibration", place / "d.npz", "-o", tmp_path / "small.onnx")
        text = call("rewrite", place / "thin.onnx", *words).stderr
        assert "does not pay" in text
        assert text.index("does not pay") < text.index(" …")


class TestCompletion:
    def complete(self, shell, **variables):
        program = "import sys; sys.argv[0] = 'dsconvert'\nfrom dsconvert.cli import main; main()"
        environment = os.environ | {"_DSCONVERT_COMPLETE": shell} | variables
        return subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True
        ).stdout

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_a_script_for_each_shell(self, shell):
        text = self.complete(f"{shell}_source")
        if not text and shell == "bash":
            pytest.skip("no bash of version 4.4 or later is here")
        assert "_DSCONVERT_COMPLETE" in text

    def test_commands_and_options_are_completed(self):
        found = self.complete("bash_complete", COMP_WORDS="dsconvert ins", COMP_CWORD="1")
        assert found.split() == ["plain,inspect"]
        words = "dsconvert profile --input"
        found = self.complete("bash_complete", COMP_WORDS=words, COMP_CWORD="2")
        assert found.split() == ["plain,--input-size"]


class TestImages:
    @pytest.fixture(scope="class")
    @staticmethod
    def classifier(place):
        return _classifier(place / "c.onnx", classes=3)

    def test_resizing_is_said_and_so_are_changed_proportions(self, place, classifier):
        words = ("--data", place / "photos", "--reference", classifier)
        text = call("evaluate", classifier, *words).stderr
        assert "resized to the model's 16×16" in text
        assert "24×48" in text
        assert "proportions" in text

    def test_names_of_the_folders_go_into_the_file(self, place, classifier, tmp_path):
        words = ("--quantize", "int8", "--calibration", place / "photos", "--no-verify")
        call("export", classifier, "-o", tmp_path / "c8.onnx", *words)
        stored = {one.key: one.value for one in onnx.load(tmp_path / "c8.onnx").metadata_props}
        assert '"labels":["ant","bee","cat"]' in str(stored).replace(" ", "")

    def test_names_of_other_classes_do_not(self, place, classifier, tmp_path):
        model = ds.load(_classifier(tmp_path / "c5.onnx", classes=5))
        assert names_for(model, place / "photos") == ()
        assert names_for(ds.load(classifier), place / "photos") == ("ant", "bee", "cat")


def test_wrong_options_and_data_are_refused_before_a_framework_is_imported(tmp_path):
    """Each of them in one process; what is wrong must be told in less than a framework takes."""
    program = """
import sys
from click.testing import CliRunner
from dsconvert.cli import main
for line in sys.stdin:
    result = CliRunner().invoke(main, line.split())
    assert result.exit_code == 2, (line, result.output)
    for name in ("tensorflow", "keras", "onnxruntime", "ai_edge_litert.interpreter"):
        assert name not in sys.modules, (line, name)
"""
    model = tmp_path / "m.keras"
    model.write_bytes(b"PK\x03\x04")  # never opened
    lines = [
        f"{name} {model} {options}"
        for name, options in (
            ("inspect", "--calibration absent.npz"),
            ("inspect", "--input-size 12y12"),
            ("plan", f"--calibration absent.npz -o {tmp_path}/p.json"),
            ("plan", f"-o {tmp_path}/p.json --max-drop 1%"),
            ("sweep", "--calibration absent.npz"),
            ("rewrite", f"--calibration absent.npz -o {tmp_path}/s.keras"),
            ("rewrite", f"--pairs 2 --macs 0.5x -o {tmp_path}/s.keras"),
            ("finetune", f"--teacher {model} --data absent.npz -o {tmp_path}/t.keras"),
            ("evaluate", "--data absent.npz"),
            ("export", f"--quantize int8 --calibration absent.npz -o {tmp_path}/m.tflite"),
            ("export", f"--keep-float 2 -o {tmp_path}/m.tflite"),
            ("verify", f"{model} --data absent.npz"),
            ("optimize", f"--data absent.npz -o {tmp_path}/run"),
            ("optimize", f"--data absent.npz --formats tflite-int9 -o {tmp_path}/run"),
        )
    ]
    done = subprocess.run(
        [sys.executable, "-c", program], input="\n".join(lines), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def _classifier(path: Path, classes: int) -> Path:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(classes, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "k"], ["a"], "conv"),
            helper.make_node("GlobalAveragePool", ["a"], ["b"], "mean"),
            helper.make_node("Flatten", ["b"], ["y"], "flat"),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(kernel, "k")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path
