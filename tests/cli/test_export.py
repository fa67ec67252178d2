"""`dsconvert export` as it is called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import call

from dsconvert.deploy.exporting.metadata import read_metadata
from dsconvert.deploy.runtimes.registry import open_runtime

LABELS = [f"digit {n}" for n in range(10)]


@pytest.fixture(scope="module")
def folder(digits, digits_cnn, tmp_path_factory) -> Path:
    """A trained Keras model, the same as .onnx, and data in parts that share nothing."""
    from dsconvert.deploy.exporting.export import export

    images, labels = digits
    place = tmp_path_factory.mktemp("export")
    digits_cnn.save(place / "digits.keras")
    export(digits_cnn, place / "digits.onnx")
    parts = {"x_train": images[:300], "y_train": labels[:300]}
    np.savez(place / "digits.npz", **parts, x_test=images[1200:1260], y_test=labels[1200:1260])
    np.savez(place / "dim.npz", x_train=images[:300] / 4, x_test=images[1200:1260])
    np.savez(place / "dark.npz", x=images[:100] / 100)
    np.savez(place / "constant.npz", x=np.full((20, 8, 8, 1), 0.5, np.float32))
    np.savez(place / "plain.npz", x=images[:50])
    (place / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (place / "few.txt").write_text("zero\none\n")
    (place / "gap.txt").write_text("zero\n\ntwo\n")
    return place


def done(arguments: str, folder: Path) -> Any:
    """The JSON that a command prints, and nothing beside it."""
    result = call(f"export {arguments} --overwrite --json", folder)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("model", ["digits.keras", "digits.onnx"])
@pytest.mark.parametrize(
    ("suffix", "quantize"),
    [("tflite", "int8-float-io"), ("tflite", "int16x8"), ("onnx", "int8"), ("onnx", "float16")],
)
def test_every_source_becomes_every_format(folder, model, suffix, quantize):
    output = f"out_{model.split('.')[1]}_{quantize}.{suffix}"
    record = done(
        f"{model} -o {output} --quantize {quantize} --calibration digits.npz --labels labels.txt",
        folder,
    )
    said = read_metadata(folder / output)

    assert (record["format"], record["quantization"]) == (suffix, quantize)
    # The 60 test images, of which the calibration has seen none.
    assert (record["verified_on"], record["samples"]) == ("verification data", 60)
    assert record["fidelity"][0]["sqnr_db"] > 20
    assert said.labels == tuple(LABELS)
    assert said.source_sha256 == record["source_sha256"] != ""
    assert said.preprocessing["scale"] == 1.0
    if quantize == "float16":
        assert said.calibration is None
    else:
        assert (said.calibration.source, said.calibration.random) == ("digits.npz", False)


def test_ranges_come_from_the_training_images_alone(folder):
    """Those reach a quarter, the test images 1: int8 steps are a 255th of a quarter."""
    command = "digits.keras -o dim.tflite --quantize int8 --calibration dim.npz --no-verify"
    record = done(command, folder)
    assert record["inputs"][0]["scale"] == pytest.approx(0.25 / 255, rel=1e-3)
    assert (record["verified_on"], record["fidelity"]) == ("nothing", [])


def test_samples_and_other_verification_data(folder):
    command = "digits.onnx -o few.onnx --quantize int8 --calibration plain.npz --samples 20"
    record = done(command, folder)
    assert 0 < record["calibration"]["samples"] <= 20
    assert (record["verified_on"], record["samples"]) == ("calibration data", 20)
    record = done(f"{command} --verification digits.npz", folder)
    assert (record["verified_on"], record["samples"]) == ("verification data", 60)


def test_onnx_files_need_no_tensorflow(folder):
    code = """
import sys
from dsconvert.cli import main
for quantize in ("int8", "float16", "dynamic"):
    main(["export", "digits.onnx", "-o", quantize + "_alone.onnx", "--quantize", quantize,
          "--calibration", "digits.npz", "--samples", "20", "--json"], standalone_mode=False)
met = {"tensorflow", "keras", "torch", "tf2onnx", "ai_edge_litert"} & set(sys.modules)
sys.exit(f"imported {met}" if met else 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ),
        check=False,
    )
    assert result.returncode == 0, result.stderr
    decoder, text, records = json.JSONDecoder(), result.stdout, []
    while text.strip():  # three records and nothing between them
        record, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        records.append(record["quantization"])
    assert records == ["int8", "float16", "dynamic"]
    for quantize in ("int8", "float16", "dynamic"):
        assert open_runtime(folder / f"{quantize}_alone.onnx").input_names == ("image",)


def test_half_precision_all_through(folder):
    record = done("digits.onnx -o half.onnx --quantize float16 --no-keep-io", folder)
    assert record["inputs"][0]["dtype"] == "float16"


def test_a_rejected_file_is_kept_and_told(folder):
    """Calibrated on images a hundredth as bright as those it is verified on: all saturates."""
    result = call(
        "export digits.keras -o wrong.tflite --quantize int8 --calibration dark.npz "
        "--verification digits.npz --json",
        folder,
    )
    assert (result.exit_code, result.stdout) == (1, "")
    assert "was not kept, its outputs are not the model's" in result.stderr
    assert "wrong.rejected.tflite" in result.stderr
    report = json.loads((folder / "wrong.rejected.json").read_text())
    assert report["failures"]
    assert read_metadata(folder / "wrong.rejected.tflite").rejected
    assert not (folder / "wrong.tflite").exists()


def test_what_looks_wrong_is_said(folder):
    result = call(
        "export digits.onnx -o c.onnx --quantize int8 --calibration constant.npz --no-verify "
        "--json",
        folder,
    )
    assert result.exit_code == 0, result.stderr
    assert "is constant: every value is 0.5" in result.stderr
    assert any("is constant" in note for note in json.loads(result.stdout)["notes"])


def test_random_numbers_only_when_asked(folder):
    result = call("export digits.onnx -o r.onnx --quantize int8", folder)
    assert result.exit_code == 2
    assert "--allow-random" in result.stderr
    record = done("digits.onnx -o r.onnx --quantize int8 --allow-random", folder)
    assert record["calibration"]["random"] is True


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("digits.onnx --format onnx --quantize int8", ("name the smaller one", "digits-int8.onnx")),
        ("digits.onnx -o x.onnx", ("is an ONNX file already", "--quantize")),
        (
            "digits.onnx -o x.onnx --quantize int16x8",
            (".onnx allows none, float16", "no 16-bit integer"),
        ),
        ("digits.keras -o x.tflite --labels few.txt", ("2 labels", "10 values")),
        ("digits.keras -o x.tflite --labels gap.txt", ("line 2 is empty",)),
        ("digits.keras -o x.tflite --labels none.txt", ("cannot be read",)),
        ("digits.onnx -o x.onnx --quantize dynamic --select-tf", ("is for .tflite files",)),
        ("digits.keras -o x.onnx --no-keep-io", ("--no-keep-io is for float16",)),
        (
            "digits.keras -o x.onnx --like digits.onnx --no-verify",
            ("does not go with --no-verify",),
        ),
    ],
)
def test_refusals(folder, arguments, parts):
    before = sorted(folder.iterdir())
    result = call(f"export {arguments}", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    for part in parts:
        assert part in result.stderr
    assert sorted(folder.iterdir()) == before
