"""What is set outside of a command, for Python, Keras or TensorFlow, does not change its work."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from dsconvert.base.child_process import run_python

ENTRY = "from dsconvert.cli.supervisor import main; main()"


def dsconvert(*words, **settings):
    return subprocess.run(
        [sys.executable, "-c", ENTRY, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **settings},
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settings")
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3))
    inner = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    inner = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(inner)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(inner))
    keras.Model(image, outputs).save(folder / "net.keras")
    images = np.random.default_rng(0).normal(size=(32, 12, 12, 3)).astype(np.float32)
    np.savez(folder / "data.npz", x=images)
    return folder


def test_warnings_as_errors_are_no_failure_of_saving(files, tmp_path):
    done = dsconvert(
        "rewrite", files / "net.keras", "-o", tmp_path / "small.h5", PYTHONWARNINGS="error"
    )
    assert done.returncode == 0, done.stderr


def test_children_speak_utf_8_and_take_warnings_for_warnings(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "utf-16")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    program = "import warnings; warnings.warn('w', DeprecationWarning); print('größer')"
    assert run_python(["-c", program]).stdout == "größer\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"floatx": "float64"}, {"image_data_format": "channels_first"}], ids=str
)
def test_keras_own_settings_do_not_reach_the_work(settings, files, tmp_path):
    """Training met two precisions, and imported layers were built for channels first."""
    home = tmp_path / "keras"
    home.mkdir()
    (home / "keras.json").write_text(json.dumps(settings))
    data = ("--calibration", files / "data.npz")
    small, onnx = tmp_path / "small.keras", tmp_path / "net.onnx"
    for words in (
        ("rewrite", files / "net.keras", "-o", small, *data, "--refine", "20steps"),
        ("export", files / "net.keras", "-o", onnx),
        ("import", onnx, "-o", tmp_path / "again.keras"),
    ):
        done = dsconvert(*words, KERAS_HOME=str(home))
        assert done.returncode == 0, done.stderr
    policies = {layer.dtype_policy.name for layer in keras.saving.load_model(small).layers}
    assert policies == {"float32"}


@pytest.mark.parametrize("backend", ["torch", "nonsense"])
def test_a_backend_that_is_not_there_is_told(backend, files):
    done = dsconvert("inspect", files / "net.keras", "-v", KERAS_BACKEND=backend)
    assert done.returncode == 2
    assert "KERAS_BACKEND=tensorflow" in done.stderr
    assert "code: other-backend" in done.stderr


def test_an_error_is_json_whatever_bytes_are_in_a_name(files):
    """The name of a file need not be text; the error over it ended in a traceback."""
    missing = os.fsdecode(bytes([0x61, 0xFF])) + ".keras"
    done = dsconvert("inspect", files / missing, "--json")
    assert done.returncode == 2
    assert json.loads(done.stderr)["code"] == "model-not-found"
    assert "a?.keras" in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
@pytest.mark.parametrize("kib", [600_000, 120_000])
def test_memory_that_does_not_take_the_libraries_is_told(kib, files):
    command = f'ulimit -v {kib}; exec "$0" -c "{ENTRY}" inspect "$1"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, str(files / "net.keras")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert "memory is used up" in done.stderr
    assert "Traceback" not in done.stderr
