"""A .tflite file as a C array: what a compiler reads is the file, and its constants are right."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from refusals import refuses

import dsconvert as ds
from dsconvert.deploy.exporting.c_array import header_of
from dsconvert.deploy.profiling.tflm_arena import arena_of

GCC = shutil.which("gcc")
GXX = shutil.which("g++")
VELA = "ethos-u55-128"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small int8 network, its header, and what Vela compiled of it with a header."""
    import keras

    place = tmp_path_factory.mktemp("firmware")
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((8, 8, 3), name="image"),
        keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(4, activation="softmax", name="class"),
    ]
    keras.Sequential(layers).save(place / "net.keras")
    images = np.random.default_rng(0).uniform(0, 255, (40, 8, 8, 3)).astype(np.float32)
    ds.export(
        place / "net.keras",
        place / "net.tflite",
        ds.ExportOptions(quantize="int8", equalize="off", c_array=place / "net_data.h"),
        calibration=images,
    )
    return place


def defined(header: str, name: str) -> float:
    """A constant of the header."""
    (value,) = re.findall(rf"^#define {name} \(?(\S+?)f?\)?$", header, re.MULTILINE)
    return float(value)


@pytest.mark.skipif(GCC is None, reason="needs gcc")
@pytest.mark.parametrize("language", ["c11", "gnu99", "c++11"])
def test_a_compiler_reads_the_bytes_of_the_file(
    folder: Path, tmp_path: Path, language: str
) -> None:
    compiler = GXX if "++" in language else GCC
    if compiler is None:
        pytest.skip("needs g++")
    source = tmp_path / ("main.cc" if "++" in language else "main.c")
    source.write_text(
        '#include <stdint.h>\n#include <stdio.h>\n#include "net_data.h"\n'
        "int main(void) {\n"
        "  if ((uintptr_t)net_data % 16) return 1;\n"
        "  return fwrite(net_data, 1, net_data_len, stdout) != net_data_len;\n}\n"
    )
    program = tmp_path / "main"
    flags = [f"-std={language}", "-Wall", "-Werror", f"-I{folder}", str(source), "-o", str(program)]
    subprocess.run([compiler, *flags], check=True)
    said = subprocess.run([program], check=True, capture_output=True).stdout
    assert said == (folder / "net.tflite").read_bytes()


def test_the_constants_are_those_of_the_file(folder: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    header = (folder / "net_data.h").read_text()
    interpreter = Interpreter(str(folder / "net.tflite"))
    for kind, (found,) in (
        ("INPUT0", interpreter.get_input_details()),
        ("OUTPUT0", interpreter.get_output_details()),
    ):
        scale, zero_point = found["quantization"]
        assert np.float32(defined(header, f"NET_DATA_{kind}_SCALE")) == np.float32(scale)
        assert defined(header, f"NET_DATA_{kind}_ZERO_POINT") == zero_point
    arena = arena_of(folder / "net.tflite")
    assert defined(header, "NET_DATA_ACTIVATION_BYTES") == arena.planned
    assert defined(header, "NET_DATA_ARENA_BYTES") >= arena.planned + arena.multipliers + 4096


def test_the_operators_are_those_of_the_file(folder: Path) -> None:
    header = (folder / "net_data.h").read_text()
    added = re.findall(r"\(resolver\)\.(\w+)\(\);", header)
    assert added == ["AddConv2D", "AddFullyConnected", "AddMean", "AddSoftmax"]
    assert defined(header, "NET_DATA_OPERATORS") == len(added)


def test_preprocessing_is_told(folder: Path) -> None:
    done = {"scale": 1 / 255, "mean": [0.5, 0.25, 0.0], "std": 2}
    text = header_of(folder / "net.tflite", "1 net", preprocessing=done)
    assert "static const float _1_net_mean[3] = {0.5f, 0.25f, 0.0f};" in text
    assert "static const float _1_net_std[1] = {2.0f};" in text
    assert "_1_net_scale[1] = {0.00392156863f};" in text
    assert "unavailable" in (folder / "net_data.h").read_text()


def test_a_verified_file_is_compiled_for_an_npu(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ethosu.vela", reason="needs dsconvert[ethosu]")
    images = np.random.default_rng(0).uniform(0, 255, (40, 8, 8, 3)).astype(np.float32)
    exported = ds.export(
        folder / "net.keras",
        tmp_path / "net.tflite",
        ds.ExportOptions(
            quantize="int8", equalize="off", compile_for=VELA, c_array=tmp_path / "net.h"
        ),
        calibration=images,
    )
    compiled = tmp_path / f"net-{VELA}.tflite"
    assert exported.compiled == str(compiled)
    assert b"ethos-u" in compiled.read_bytes()
    header = (tmp_path / "net.h").read_text()
    assert "(resolver).AddEthosU();" in header
    assert f"static const unsigned int net_len = {compiled.stat().st_size};" in header


@pytest.mark.parametrize(
    ("output", "options", "code"),
    [
        ("net.onnx", {"c_array": "net.h"}, "option-not-applicable"),
        ("net.tflite", {"c_array": "net.txt"}, "wrong-suffix"),
        ("net.tflite", {"c_array": "."}, "output-is-a-folder"),
        ("net.tflite", {"compile_for": VELA}, "int8-only"),
        ("net.tflite", {"compile_for": "ethos-u99", "quantize": "int8"}, "unknown-device"),
        (
            "net.tflite",
            {"compile_for": VELA, "quantize": "int8", "verify": False},
            "options-exclude-each-other",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output, options, code
) -> None:
    monkeypatch.chdir(tmp_path)
    with refuses(code):
        ds.export(folder / "net.keras", output, ds.ExportOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_exists_is_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "net.h").write_text("mine")
    with refuses("output-exists"):
        ds.export(
            folder / "net.keras",
            tmp_path / "net.tflite",
            ds.ExportOptions(c_array=tmp_path / "net.h"),
        )
    assert (tmp_path / "net.h").read_text() == "mine"


def test_a_header_that_finds_no_room_takes_the_file_with_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.tflite").write_text("mine")
    write_text = Path.write_text

    def full(path: Path, text: str, *args, **options) -> int:
        if path.suffix == ".h":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_text(path, text, *args, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with refuses("not-writable") as refused:
        ds.export(
            folder / "net.keras",
            tmp_path / "net.tflite",
            ds.ExportOptions(c_array=tmp_path / "net.h"),
            overwrite=True,
        )
    assert refused.value.message.startswith(f"cannot write {tmp_path / 'net.h'}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["net.tflite"]
    assert (tmp_path / "net.tflite").read_text() == "mine"


def test_an_operator_without_a_kernel_is_refused(folder: Path, tmp_path: Path) -> None:
    import keras

    image = keras.Input((4, 4, 1), batch_size=1)
    keras.Model(image, keras.ops.sign(image)).save(tmp_path / "sign.keras")
    with refuses("operator-not-in-tflm"):
        ds.export(
            tmp_path / "sign.keras",
            tmp_path / "asked.tflite",
            ds.ExportOptions(verify=False, c_array=tmp_path / "asked.h"),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["sign.keras"]
    ds.export(tmp_path / "sign.keras", tmp_path / "sign.tflite", ds.ExportOptions(verify=False))
    with refuses("operator-not-in-tflm"):
        header_of(tmp_path / "sign.tflite", "sign")
