"""Quantized .onnx files in every command: read as float where asked for, named where not."""

from __future__ import annotations

import json
import shlex
import tomllib

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx_calibration import Reader
from onnx_native import Net, images
from onnxruntime.quantization import QuantFormat, quantize_static
from refusals import refuses

import dsconvert as ds
from dsconvert.cli import main
from dsconvert.formats.onnx.dequantize import is_quantized
from dsconvert.workflows.model_files import ModelPath

X = images(24, 6, 9, 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A float file, the quantized one that was made of it, and images."""
    place = tmp_path_factory.mktemp("files")
    net = Net()
    net.conv("x", "a", pads=[1] * 4)
    net.node("Relu", "a", "r")
    net.conv("r", "b", (8, 8), pads=[1] * 4)
    net.node("GlobalAveragePool", "b", "g")
    net.node("Flatten", "g", "y")
    onnx.save(net.model(opset=17), place / "float.onnx")
    form = {"quant_format": QuantFormat.QDQ, "per_channel": True}
    quantize_static(place / "float.onnx", place / "quantized.onnx", Reader(X), **form)
    np.savez(place / "images.npz", x_train=X[:16], x_test=X[16:])
    return place


@pytest.fixture
def file(folder):
    return folder / "quantized.onnx"


def as_float(path):
    return ModelPath(path, dequantize=True)


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def next_words(told):
    (line,) = (one for one in told.stdout.splitlines() if one.startswith("next:"))
    return shlex.split(line.removeprefix("next: dsconvert "))


class TestTraining:
    SHORT = ds.FinetuneSettings(epochs=1, batch_size=8)

    def test_towards_the_float_form_of_a_quantized_teacher(self, folder, file, tmp_path):
        with refuses("operators-not-imported"):
            ds.finetune(folder / "float.onnx", file, X)
        words = ("finetune", folder / "float.onnx", "--teacher", file, "--epochs", "1")
        more = ("--data", folder / "images.npz", "-o", tmp_path / "t.onnx", "--json")
        told = run(*words, *more, "--dequantize")
        assert told.exit_code == 0, told.output
        # Weights of 8 bits are off by 1/254 of their channel's range, at most.
        assert 0 < json.loads(told.stdout)["history"][0]["harm"] < 0.001

    def test_of_the_float_form_of_a_quantized_student(self, folder, file, tmp_path):
        path = tmp_path / "t.onnx"
        made = ds.finetune(as_float(file), folder / "float.onnx", X, self.SHORT, output=path)
        assert not is_quantized(onnx.load(path))
        assert ds.verify(folder / "float.onnx", path, data=X).fidelity[0].sqnr_db > 30
        assert made.record.student == str(file)


class TestOptimizing:
    ASKED = ds.OptimizeOptions(formats=("onnx-float32",), epochs=0, samples=10, test_samples=8)

    def test_a_quantized_file_is_no_float_file(self, folder, file, tmp_path):
        with refuses("quantized-already"):
            ds.optimize(file, folder / "images.npz", tmp_path / "run", self.ASKED, dry_run=True)
        words = ("optimize", file, "--data", folder / "images.npz", "--samples", "10", "--dry-run")
        told = run(*words, "-o", tmp_path / "run", "--dequantize")
        assert told.exit_code == 0, told.output

    def test_its_float_form(self, folder, file, tmp_path, monkeypatch):
        monkeypatch.setattr("dsconvert.converter.inspect.WORTHWHILE", 100.0)  # no plan, no times
        place = tmp_path / "run"
        ds.optimize(as_float(file), folder / "images.npz", place, self.ASKED)
        (made,) = json.loads((place / "report.json").read_bytes())["files"]
        assert not is_quantized(onnx.load(place / "files" / made["name"]))
        assert made["verified"]
        assert "--dequantize" in shlex.split(made["command"])
        assert tomllib.loads((place / "recipe.toml").read_text())["optimize"]["dequantize"] is True
        assert made["notes"] != ["the model as it is"]

    def test_stages_of_the_file_as_it_is_are_not_taken(self, folder, file, tmp_path):
        """Two readings of one file are two models."""
        half = tmp_path / "half.onnx"
        ds.export(folder / "float.onnx", half, ds.ExportOptions(quantize="float16"))
        keys = []
        for source in (folder / "float.onnx", as_float(folder / "float.onnx"), as_float(half)):
            place = tmp_path / f"run{len(keys)}"
            ds.optimize(source, folder / "images.npz", place, self.ASKED, dry_run=True)
            record = json.loads((place / "stages" / "inspect.json").read_bytes())
            keys.append(record["key"])
        assert keys[0] == keys[1] != keys[2]


class TestReferences:
    def test_verify_believes_the_float_form(self, folder, file, tmp_path):
        path = tmp_path / "float_form.onnx"
        ds.export(as_float(file), path)
        assert not ds.verify(file, path, data=X).passed
        found = ds.verify(as_float(file), path, data=X)
        assert found.passed
        assert any(str(file) in remark for remark in found.remarks)
        assert run("verify", file, path, "--data", folder / "images.npz").exit_code == 1
        told = run("verify", file, path, "--data", folder / "images.npz", "--dequantize")
        assert told.exit_code == 0, told.output

    def test_one_file_read_two_ways_is_two_models(self, file):
        """The float form is held against what is stored, and not against itself."""
        found = ds.evaluate(file, X, reference=as_float(file))
        assert 15 < found.fidelity[0].sqnr_db < 60
        found = ds.evaluate(as_float(file), X, reference=as_float(file))
        assert found.fidelity[0].sqnr_db is None

    def test_evaluate_without_a_reference_has_nothing_to_read(self, folder, file):
        words = ("evaluate", file, "--data", folder / "images.npz", "--dequantize", "--json")
        told = run(*words)
        assert told.exit_code == 2
        assert json.loads(told.stderr)["code"] == "option-not-applicable"
        told = run(*words, "--reference", file)
        assert told.exit_code == 0, told.output

    def test_a_keras_model_goes_back_into_the_graph_of_the_float_form(self, file, tmp_path):
        ds.import_onnx(as_float(file), tmp_path / "m.keras")
        with refuses("operators-not-imported"):
            ds.export(tmp_path / "m.keras", tmp_path / "back.onnx", like=file)
        words = ("export", tmp_path / "m.keras", "--like", file, "--dequantize")
        told = run(*words, "-o", tmp_path / "back.onnx")
        assert told.exit_code == 0, told.output
        assert not is_quantized(onnx.load(tmp_path / "back.onnx"))


def qonnx(path):
    """A file of QONNX's Quant, which no plain runtime has."""
    net = Net()
    for name, value in {"s": 0.1, "z": 0, "b": 8}.items():
        net.constant(name, np.float32(value))
    net.node("Relu", "x", "q")
    net.node("Relu", "q", "y")
    model = net.model(opset=17)
    domain = "qonnx.custom_op.general"
    made = {"domain": domain, "signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
    model.graph.node[0].CopyFrom(onnx.helper.make_node("Quant", list("xszb"), ["q"], **made))
    model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    onnx.save(model, path)
    return path


class TestWhatHelps:
    """A command that can do nothing with a quantized file says how it could."""

    def test_inspect_and_rewrite_name_the_reading_as_float(self, file, tmp_path):
        told = run("inspect", file)
        assert next_words(told) == ["inspect", str(file), "--dequantize"]
        told = run("rewrite", file, "-o", tmp_path / "small.onnx")
        assert next_words(told) == ["inspect", str(file), "--dequantize"]
        told = run("inspect", file, "--dequantize")
        assert next_words(told)[:2] == ["optimize", str(file)]
        assert "--dequantize" in next_words(told)

    def test_rewrite_names_a_training_that_reads_its_teacher_as_float(self, file, folder, tmp_path):
        data = ("--calibration", folder / "images.npz", "--refine", "0", "--dequantize")
        told = run("rewrite", file, "-o", tmp_path / "small.onnx", *data)
        assert told.exit_code == 0, told.output
        words = next_words(told)
        assert words[0] == "finetune"
        assert "--dequantize" in words

    def test_convolutions_that_stay_are_counted(self, file):
        assert ds.inspect(file).potential.quantized == 2
        assert ds.inspect(as_float(file)).potential.quantized == 0

    def test_a_plan_that_keeps_no_goal_says_why(self, folder, file):
        with refuses("target-not-reachable") as caught:
            ds.plan(file, calibration=X, goals=ds.Goals(macs="0.5x"))
        assert "--dequantize" in caught.value.words.hint

    @pytest.mark.parametrize("command", ["profile", "compare", "report"])
    def test_commands_without_the_option_name_those_that_have_it(self, command, file):
        told = run(command, file, "--dequantize")
        assert told.exit_code == 2
        assert "export" in told.stderr
        assert "export" not in run(command, file, "--no-such-option").stderr

    @pytest.mark.parametrize("command", ["verify", "evaluate", "profile"])
    def test_what_no_runtime_loads_has_a_float_form(self, command, folder, tmp_path):
        file = qonnx(tmp_path / "q.onnx")
        more = {"verify": [folder / "float.onnx"], "evaluate": ["--data", folder / "images.npz"]}
        told = run(command, file, *more.get(command, []), "--json")
        assert told.exit_code == 2
        assert "dsconvert export" in json.loads(told.stderr.splitlines()[-1])["hint"]
        words = ("export", file, "--dequantize", "-o", tmp_path / "f.onnx")
        assert run(*words).exit_code == 0
        told = run("verify", file, tmp_path / "f.onnx", "--dequantize")
        assert next_words(told) == ["profile", str(tmp_path / "f.onnx")]

    def test_a_keras_file_is_not_dequantized(self, folder, tmp_path, caplog):
        ds.import_onnx(folder / "float.onnx", tmp_path / "m.keras")
        ds.load(tmp_path / "m.keras")
        assert "dequantize" not in caplog.text
        ds.load(tmp_path / "m.keras", dequantize=True)
        assert "dequantize" in caplog.text
