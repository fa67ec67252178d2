"""An .onnx file that ends its runtime: in a child process, and the other files are measured."""

from __future__ import annotations

import os

import onnx
import pytest
from click.testing import CliRunner
from onnx_nets import graph, node, small_cnn

import dsconvert as ds
from dsconvert.base.child_process import Finished
from dsconvert.base.errors import InputError
from dsconvert.base.files import replacing
from dsconvert.cli import main
from dsconvert.deploy.runtimes import unknown_files
from dsconvert.deploy.runtimes.unknown_files import check_runs_apart

QUICK = ds.ProfileOptions(runs=3, warmup=0, min_seconds=0)


@pytest.fixture(autouse=True)
def _nothing_is_known_of_files():
    unknown_files._problem.cache_clear()


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.onnx"
    onnx.save(small_cnn(), path)
    return path


@pytest.fixture
def crashing(tmp_path, monkeypatch):
    """A file at which the child dies; where ONNX Runtime itself crashes changes by release."""
    path = tmp_path / "crashing.onnx"
    onnx.save(small_cnn(), path)
    real = unknown_files.run_python

    def run_python(arguments, **options):
        if path.name in arguments[-1]:
            kill = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
            return real(["-c", kill], **options)
        return real(arguments, **options)

    monkeypatch.setattr(unknown_files, "run_python", run_python)
    return path


def test_a_sound_file_is_run_once(sound, monkeypatch):
    check_runs_apart(sound)
    monkeypatch.setattr(unknown_files, "run_python", None)
    check_runs_apart(sound)
    os.utime(sound, ns=(1, 1))  # another file now
    with pytest.raises(TypeError):
        check_runs_apart(sound)


def test_what_this_process_wrote_is_not_run(tmp_path, monkeypatch):
    path = tmp_path / "own.onnx"
    with replacing(path, overwrite=False) as temporary:
        onnx.save(small_cnn(), temporary)
    monkeypatch.setattr(unknown_files, "run_python", None)
    check_runs_apart(path)
    onnx.save(small_cnn(), path)  # somebody else's now
    os.utime(path, ns=(1, 1))
    with pytest.raises(TypeError):
        check_runs_apart(path)


def test_the_other_files_are_measured(sound, crashing):
    first, second = ds.profile([crashing, sound], options=QUICK)
    assert "SIGSEGV" in first.failure
    assert first.latency is None
    assert second.latency is not None
    words = ["profile", str(sound), str(crashing), "--runs", "3", "--min-seconds", "0"]
    assert CliRunner().invoke(main, words).exit_code == 1


def test_verify_and_evaluate_refuse_it(sound, crashing, tmp_path):
    import numpy as np

    np.savez(tmp_path / "x.npz", x=np.zeros((4, 3, 8, 8), np.float32))
    for words in (
        ["verify", str(sound), str(crashing)],
        ["evaluate", str(crashing), "--data", str(tmp_path / "x.npz")],
    ):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2
        assert "SIGSEGV" in result.stderr


def test_memory_has_a_bound(tmp_path, monkeypatch):
    """A tensor that the graph makes out of nothing: eight times what the child may take."""
    made = graph(
        [node("ConstantOfShape", "s", "c"), node("ReduceMax", "c", "m", keepdims=0),
         node("Add", "x m", "y")],
        [1, 4], "y", s=[2**33],
    )  # fmt: skip
    path = tmp_path / "large.onnx"
    onnx.save(made, path)
    monkeypatch.setenv("DSCONVERT_LARGEST_TENSOR", "1TiB")
    monkeypatch.setattr(unknown_files, "_MEMORY", 4 << 30)
    monkeypatch.setattr(unknown_files.psutil, "virtual_memory", lambda: ds)
    monkeypatch.setattr(ds, "available", 0, raising=False)
    with pytest.raises(InputError, match="memory") as refused:
        check_runs_apart(path)
    assert refused.value.code == "file-crashes-runtime"


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (Finished(1, "", "", timed_out=True), "not loaded within"),
        (Finished(1, "loaded\n", "", timed_out=True), ""),
        (Finished(1, "", "Fail: [ONNXRuntimeError] : 1 : FAIL"), ""),  # its own words come later
    ],
)
def test_what_became_of_the_child(ended, told, sound, monkeypatch):
    monkeypatch.setattr(unknown_files, "run_python", lambda *args, **options: ended)
    if not told:
        check_runs_apart(sound)
        return
    with pytest.raises(InputError, match=told):
        check_runs_apart(sound)


@pytest.mark.parametrize("words", ["verify {0} {0} --samples 2", "export {0} --quantize dynamic"])
def test_an_input_that_no_memory_holds(tmp_path, words):
    model = small_cnn()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 62
    path = tmp_path / "huge.onnx"
    onnx.save(model, path)
    result = CliRunner().invoke(main, words.format(path).split())
    assert result.exit_code == 2, result.output
