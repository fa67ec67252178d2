"""Damaged .tflite files: a sentence, in bounded time and memory, and the others are measured."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from click.testing import CliRunner
from refusals import refuses

import dsconvert as ds
from dsconvert.base.child_process import Finished
from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.deploy.profiling.tflm_arena import arena_of
from dsconvert.deploy.runtimes import unknown_files
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.deploy.runtimes.unknown_files import check_runs_apart
from dsconvert.formats.tflite import metadata
from dsconvert.formats.tflite.checking import check_tflite

QUICK = ds.ProfileOptions(runs=3, warmup=0, min_seconds=0)


@pytest.fixture(autouse=True)
def _nothing_is_known_of_files(monkeypatch):
    monkeypatch.setattr("dsconvert.base.files._written", set())  # here the export is a stranger's
    unknown_files._problem.cache_clear()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A file of two convolutions in int8."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Conv2D(2, 3)]
    )
    x = np.random.default_rng(0).normal(size=(12, 8, 8, 3)).astype(np.float32)
    path = tmp_path_factory.mktemp("tflite") / "sound.tflite"
    ds.export(model, path, options=ds.ExportOptions(quantize="int8"), calibration=x)
    return path


def changed(path, folder, change):
    """The file with one thing changed in place."""
    content = bytearray(path.read_bytes())
    change(schema.Model.GetRootAs(content).Subgraphs(0))
    other = folder / "damaged.tflite"
    other.write_bytes(content)
    return other


def activation(graph):
    """A tensor between the two convolutions."""
    return graph.Tensors(int(graph.Operators(0).Outputs(0)))


def set_item(array, value):
    array[0] = value


def test_a_file_without_outputs_is_refused(sound, tmp_path):
    """Whoever reads the outputs would find nothing at the first place."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(sound.read_bytes()))
    model.subgraphs[0].outputs = []
    model.signatureDefs = []
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "mute.tflite"
    path.write_bytes(builder.Output())
    with refuses("damaged-file"):
        open_runtime(path)


CHANGES = {
    "input": (lambda graph: set_item(graph.InputsAsNumpy(), -7), "inputs name the tensor -7"),
    "operand": (
        lambda graph: set_item(graph.Operators(1).InputsAsNumpy(), 10**6),
        "operator 1 name the tensor 1000000",
    ),
    "scale": (
        lambda graph: set_item(activation(graph).Quantization().ScaleAsNumpy(), np.nan),
        "a scale that is no positive number",
    ),
    "size": (
        lambda graph: activation(graph).ShapeAsNumpy().__setitem__(slice(1, 3), 2**20),
        "would take",
    ),
    "negative size": (
        lambda graph: set_item(activation(graph).ShapeAsNumpy(), -3),
        "has the shape",
    ),
    "weights": (
        lambda graph: set_item(graph.Tensors(int(graph.Operators(0).Inputs(1))).ShapeAsNumpy(), 64),
        "4 scales on axis 0",
    ),
    "bias": (
        lambda graph: set_item(graph.Tensors(int(graph.Operators(1).Inputs(2))).ShapeAsNumpy(), 1),
        "are stored|scales on axis",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_does_not_fit_together_is_refused_before_native_code(kind, sound, tmp_path):
    change, told = CHANGES[kind]
    with pytest.raises(InputError, match=told) as caught:
        check_tflite(changed(sound, tmp_path, change))
    assert caught.value.code == "damaged-file"


def test_a_sound_file_is_sound(sound):
    assert check_tflite(sound) > 0
    check_runs_apart(sound)


def test_any_offset_may_be_wrong(sound, tmp_path):
    """Every error of the reader is one sentence, whatever it raises."""
    content, rng = sound.read_bytes(), np.random.default_rng(0)
    said = []
    for _ in range(300):
        broken = bytearray(content)
        for place in rng.integers(0, len(broken) // 4, 3) * 4:
            broken[place : place + 4] = rng.integers(0, 256, 4, np.uint8).tobytes()
        path = tmp_path / "broken.tflite"
        path.write_bytes(broken)
        try:
            check_tflite(path)
        except InputError as error:
            said.append(error.message)
    assert len(said) > 100
    assert not any("\n" in message for message in said)


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (Finished(-11, "", ""), "SIGSEGV"),
        (Finished(1, "", "", timed_out=True), "not loaded within"),
        (Finished(1, "", "MemoryError: std::bad_alloc"), "more memory"),
        (Finished(1, "loaded\n", "", timed_out=True), ""),
        (Finished(1, "", "ValueError: no such operator"), ""),  # LiteRT's own words come later
    ],
)
def test_what_became_of_the_child(ended, told, sound, monkeypatch):
    monkeypatch.setattr(unknown_files, "run_python", lambda *args, **options: ended)
    if not told:
        check_runs_apart(sound)
        return
    with pytest.raises(InputError, match=told) as caught:
        check_runs_apart(sound)
    assert caught.value.code == "file-crashes-runtime"


def test_estimates_read_no_offset_that_leads_nowhere(sound, tmp_path):
    """An estimate starts no runtime: what reads the file has to find its faults alone."""
    content, rng = sound.read_bytes(), np.random.default_rng(1)
    path, refused = tmp_path / "broken.tflite", 0
    for _ in range(200):
        broken = bytearray(content)
        for place in rng.integers(0, len(broken) // 4, 3) * 4:
            broken[place : place + 4] = rng.integers(0, 256, 4, np.uint8).tobytes()
        path.write_bytes(broken)
        for read in (arena_of, lambda path: metadata.read(path, "dsconvert")):
            try:
                read(path)
            except InputError:
                refused += 1
    assert refused > 50


def test_the_other_files_are_measured(sound, tmp_path):
    damaged = changed(sound, tmp_path, CHANGES["input"][0])
    first, second = ds.profile([damaged, sound], options=QUICK)
    assert "is damaged" in first.failure
    assert first.latency is None
    assert second.latency is not None
    words = ["profile", str(sound), str(damaged), "--runs", "3", "--min-seconds", "0"]
    assert CliRunner().invoke(main, words).exit_code == 1
    with pytest.raises(InputError, match="is damaged"):
        ds.profile(damaged, options=QUICK)
    with pytest.raises(InputError, match="is damaged"):
        ds.verify(sound, damaged)


def repacked(path, folder, change):
    """The file with its graph changed and written anew."""
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    change(model.subgraphs[0])
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    other = folder / "repacked.tflite"
    other.write_bytes(bytes(builder.Output()))
    return other


def test_a_model_without_inputs_is_not_compared(sound, tmp_path):
    path = repacked(sound, tmp_path, lambda graph: setattr(graph, "inputs", []))
    result = CliRunner().invoke(main, ["verify", str(path), str(path), "--samples", "2"])
    assert result.exit_code == 2, result.output


def test_an_output_that_says_it_has_no_axes(sound, tmp_path):
    def change(graph):
        graph.tensors[graph.outputs[0]].shape = []

    path = repacked(sound, tmp_path, change)
    result = CliRunner().invoke(main, ["verify", str(path), str(path), "--samples", "2"])
    assert result.exit_code in (0, 2), result.output
