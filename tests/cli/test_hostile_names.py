"""Layers' and files' names are text: no control character, markup or path of them does anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conv_stacks import conv_stack

from dsconvert.cli import main

NAMES = (
    "[red]x[/red]", "[/b]", "\x1b[2J\x07", "a\nb", "a/b/../../c", 'quo"te\'', "ü\u202ecode",
    "x" * 255, "%s{0}", "--output", "", "",
)  # fmt: skip
FEW = ("--runs", "1", "--min-seconds", "0")
FILES = ("[red] ü.onnx", "quo\"te 'n'.onnx", "new\nline.onnx", "\x1b[2J.onnx", "-x.onnx")


def rename(path, names):
    model = onnx.load(path)
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    model.graph.name = "\x1b[2J[red]"
    onnx.save(model, path)


@pytest.fixture
def named(tmp_path):
    """A network whose layers, tensors and graph have these names."""
    path = conv_stack(tmp_path / "net.onnx", [3] * len(NAMES), channels=16)
    rename(path, NAMES)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(12, 16, 16, 16)))
    return path


def call(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, (words, result.stderr)
    said = result.stdout + result.stderr
    assert not [one for one in said if ord(one) < 32 and one not in "\n\t\r"]
    assert not [one for one in said if 0x7F <= ord(one) < 0xA0]
    return result.stdout


def test_names_of_layers(named, tmp_path):
    data = ["--calibration", tmp_path / "d.npz"]
    shown = call("inspect", "-v", named)
    assert "[red]x[/red]" in shown
    report = json.loads(call("rewrite", named, "-o", tmp_path / "out.onnx", "--json"))
    assert "[red]x[/red]" in [layer["name"] for layer in report["report"]["layers"]]
    call("export", named, "-o", tmp_path / "int8.onnx", "--quantize", "int8", *data)
    call("verify", tmp_path / "int8.onnx", named, "--data", tmp_path / "d.npz", "--min-sqnr", "-50")
    call("profile", named, tmp_path / "int8.onnx", "--per-op", *FEW)
    made = {"net.onnx", "d.npz", "out.onnx", "int8.onnx"}
    assert {path.name for path in tmp_path.iterdir()} == made


def test_a_plan_holds_them(tmp_path):
    names = ("[b]\x1b[2J", "a\nb", "", "")
    path = conv_stack(tmp_path / "net.onnx", [3] * len(names), channels=16)
    rename(path, names)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(12, 16, 16, 16)))
    plan = tmp_path / "plan.json"
    call("plan", path, "-o", plan, "--calibration", tmp_path / "d.npz", "--target-macs", "0.9x")
    assert {*names} - {""} < {layer["name"] for layer in json.loads(plan.read_text())["layers"]}
    call("rewrite", path, "-o", tmp_path / "out.onnx", "--plan", plan)


@pytest.mark.slow
def test_names_of_keras_layers(tmp_path):
    """A graph of TensorFlow takes few of them, a file of another format other few."""
    keras = pytest.importorskip("keras")
    names = ("[b]", "a\nb", 'ü\u202e "\x1b[2J', "x" * 255)
    x = image = keras.Input((8, 8, 8), name="in")
    for name in names:
        x = keras.layers.Conv2D(8, 3, padding="same", name=name)(x)
    outputs = keras.layers.GlobalAveragePooling2D(name="out [y]")(x)
    path, plan = tmp_path / "net.keras", tmp_path / "plan.json"
    keras.Model(image, outputs).save(path)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(12, 8, 8, 8)))
    data = ["--calibration", tmp_path / "d.npz"]
    assert "[b]" in call("inspect", "-v", path)
    call("plan", path, "-o", plan, *data, "--target-macs", "0.9x")
    assert {*names} == {layer["name"] for layer in json.loads(plan.read_text())["layers"]}
    call("rewrite", path, "-o", tmp_path / "out.keras", "--plan", plan)
    call("verify", tmp_path / "out.keras", path, "--min-sqnr", "-50")
    made = [tmp_path / "out.tflite", tmp_path / "out.onnx"]
    for other in made:
        call("export", path, "-o", other)
        call("verify", other, path, "--data", tmp_path / "d.npz")
    call("profile", *made, *FEW)


def test_two_layers_of_one_name(tmp_path):
    """ONNX Runtime refuses them: in words, and with the name."""
    path = conv_stack(tmp_path / "net.onnx", [3, 3], channels=16)
    rename(path, ("same", "same"))
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert result.exit_code == 2
    assert "same" in result.stderr


@pytest.mark.parametrize("name", FILES)
def test_names_of_files(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conv_stack(Path(name), [3], channels=16)
    call("inspect", "--", name)
    call("rewrite", "-o", f"out {name}", "--", name)
    assert Path(f"out {name}").is_file()
    call("inspect", "--", f"out {name}")
