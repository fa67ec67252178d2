"""The C++ and Kotlin programs of a run; a stand-in for each runtime gives its input back."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import dsconvert as ds
from dsconvert.workflows.optimize.native_programs import native_programs
from dsconvert.workflows.results.optimized import FileFigures

STANDS_IN = Path(__file__).parents[1] / "support" / "native"
DONE = ds.Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.25,))
STORED = np.random.default_rng(0).integers(0, 256, (1, 2, 2, 3)).astype(np.uint8)


def programs(name, done=DONE):
    return native_programs(FileFigures(name=name, model="original", form="a form"), done)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
@pytest.mark.parametrize("name", ["net.tflite", "net.onnx"])
def test_the_program_in_cpp_computes_what_python_computes(name, tmp_path):
    (tmp_path / "run.cc").write_text(programs(name)["run.cc"])
    (tmp_path / "pixels.bin").write_bytes(STORED.tobytes())
    build = ["g++", "-std=c++17", "-Wall", "-Werror", "-I", str(STANDS_IN), "run.cc", "-o", "run"]
    subprocess.run(build, cwd=tmp_path, check=True)
    told = subprocess.run(
        ["./run", "pixels.bin"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    found = np.array(told.split(": output 0:")[1].split(), np.float32)
    prepared = DONE.apply(STORED)
    if name.endswith(".onnx"):
        expected = prepared.transpose(0, 3, 1, 2).ravel()
    else:
        levels = np.clip(np.round(prepared * 64) - 3, -128, 127)
        expected = ((levels + 3) / 64).ravel()
        assert np.any(levels == 127)  # one at least is clipped
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_an_image_of_another_size_is_a_sentence(tmp_path):
    (tmp_path / "run.cc").write_text(programs("net.tflite")["run.cc"])
    (tmp_path / "pixels.bin").write_bytes(b"1234")
    build = ["g++", "-std=c++17", "-I", str(STANDS_IN), "run.cc", "-o", "run"]
    subprocess.run(build, cwd=tmp_path, check=True)
    done = subprocess.run(
        ["./run", "pixels.bin"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "expected 12 values, got 4\n"


@pytest.mark.parametrize("name", ["net.tflite", "net.onnx"])
def test_the_program_in_kotlin_has_the_same_numbers(name):
    """Nothing here compiles Kotlin: names, numbers and brackets."""
    text = programs(name)["Model.kt"]
    assert f'MODEL = "{name}"' in text
    numbers = {
        what: np.float32(re.findall(r"-?[\d.e-]+(?=f)", re.search(rf"{what} = (.*?)//", text)[1]))
        for what in ("SCALE", "MEAN", "STD")
    }
    stored = STORED.astype(np.float32)
    prepared = (stored * numbers["SCALE"] - numbers["MEAN"]) / numbers["STD"]
    np.testing.assert_allclose(prepared, DONE.apply(STORED), rtol=1e-6, atol=1e-6)
    assert "$" not in text
    for pair in ("()", "{}", "[]"):
        assert text.count(pair[0]) == text.count(pair[1])


def test_without_preprocessing_values_stay():
    assert "kMean[] = {0.0f};" in programs("net.onnx", ds.Preprocessing())["run.cc"]
    assert "kStd[] = {1.0f};" in programs("net.onnx", ds.Preprocessing())["run.cc"]
