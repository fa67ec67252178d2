"""What an exported file says of its images is done to those it gets, or told."""

from __future__ import annotations

import zipfile

import msgspec
import numpy as np
import onnx
import pytest
import small_networks

import dsconvert as ds
from dsconvert.base.messages import LOGGER
from dsconvert.deploy.exporting.metadata import read_metadata, stamp_onnx
from dsconvert.formats import keras_archive
from dsconvert.models.data.preprocess import parse_number
from dsconvert.workflows.command_words import number_word
from dsconvert.workflows.saved_models import save_keras
from dsconvert.workflows.stored_preprocessing import stored_preprocessing

PREPARE = ds.Preprocessing(scale=1 / 255, mean=(0.25,), std=(0.5,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier that takes (x/255 − 0.25)/0.5, its bytes as data, and its int8 file."""
    folder = tmp_path_factory.mktemp("prepared")
    network = small_networks.network("classifier")
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    first = next(node for node in model.graph.node if "image" in node.input)
    first.input[0] = "restored"
    for node in (
        onnx.helper.make_node("Add", ["halved", "quarter"], ["restored"]),
        onnx.helper.make_node("Mul", ["image", "half"], ["halved"]),
    ):
        model.graph.node.insert(0, node)
    for name, value in (("half", 0.5), ("quarter", 0.25)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    onnx.save(model, folder / "model.onnx")
    parts = {"x_train": network.calibration, "x_test": network.inputs}
    np.savez(folder / "bytes.npz", **{k: np.uint8(np.round(255 * x)) for k, x in parts.items()})
    options = ds.ExportOptions(quantize="int8")
    ds.export(
        folder / "model.onnx",
        folder / "int8.onnx",
        options,
        calibration=folder / "bytes.npz",
        preprocessing=PREPARE,
    )
    return folder


@pytest.fixture
def notes(caplog):
    return lambda: [one.options for one in caplog.records if one.name == LOGGER]


def run(folder, **how):
    arguments = {"reference": folder / "model.onnx", **how}
    data = arguments.pop("data", folder / "bytes.npz")
    return ds.evaluate(folder / "int8.onnx", data, **arguments)


def test_nothing_said_is_what_the_file_says(folder, notes):
    found, asked = run(folder), run(folder, preprocessing=PREPARE)
    assert found.preprocessing == asked.preprocessing == PREPARE
    assert found.fidelity == asked.fidelity
    (text,) = notes()
    assert "--scale 1/255 --mean 0.25 --std 0.5" in text
    assert "int8.onnx" in text


def test_another_one_is_used_and_both_are_told(folder, notes):
    wrong = run(folder, preprocessing=ds.Preprocessing(scale=1 / 255))
    assert wrong.preprocessing == ds.Preprocessing(scale=1 / 255)
    text = next(text for text in notes() if "was made for" in text)
    assert "--scale 1/255 --mean 0.25 --std 0.5; these are prepared with --scale 1/255:" in text


def test_prepared_arrays_are_taken_as_they_are(folder, notes):
    stored = np.load(folder / "bytes.npz")["x_test"]
    array = np.float32((stored / 255 - 0.25) / 0.5)
    found = run(folder, data=array)
    assert notes() == []
    assert found.fidelity[0].sqnr_db == pytest.approx(run(folder).fidelity[0].sqnr_db, abs=0.01)
    data = ds.load_data(folder / "bytes.npz", split="test")
    run(folder, data=data)
    assert any("these are prepared with nothing" in text for text in notes())


def test_the_other_commands_too(folder, notes):
    model, data = folder / "int8.onnx", folder / "bytes.npz"
    checked = ds.verify(folder / "model.onnx", model, data=data)
    assert (checked.preprocessing, checked.passed) == (PREPARE, True)
    assert len(notes()) == 1
    measured = ds.profile(model, data=data, options=ds.ProfileOptions(runs=2, min_seconds=0))
    assert not measured[0].failure
    assert len(notes()) == 2
    # A float file with the same words is planned, rewritten and exported by them.
    stamped = onnx.load(folder / "model.onnx")
    stamp_onnx(stamped, read_metadata(model))
    onnx.save(stamped, folder / "stamped.onnx")
    ds.rewrite(folder / "stamped.onnx", calibration=data, output=folder / "small.onnx", refine=0)
    assert stored_preprocessing(folder / "small.onnx") == PREPARE
    goals, options = ds.Goals(macs="0.9x"), ds.PlanOptions(max_pairs=1, samples=20)
    planned = ds.plan(folder / "stamped.onnx", calibration=data, goals=goals, options=options)
    assert planned.preprocessing == PREPARE
    quantize = ds.ExportOptions(quantize="int8")
    ds.export(folder / "stamped.onnx", folder / "again.onnx", quantize, calibration=data)
    assert stored_preprocessing(folder / "again.onnx") == PREPARE
    assert len(notes()) == 5


def test_arrays_leave_no_word(folder):
    array = np.load(folder / "bytes.npz")["x_train"].astype(np.float32) / 255
    path = folder / "arrays.onnx"
    ds.export(folder / "model.onnx", path, ds.ExportOptions(quantize="int8"), calibration=array)
    assert stored_preprocessing(path) is None


def test_files_of_others_say_nothing(folder, notes):
    assert stored_preprocessing(folder / "model.onnx") is None
    assert stored_preprocessing(folder / "absent.tflite") is None
    (folder / "broken.onnx").write_bytes(b"no model")
    assert stored_preprocessing(folder / "broken.onnx") is None
    ds.evaluate(folder / "model.onnx", folder / "bytes.npz", reference=folder / "model.onnx")
    assert notes() == []


@pytest.mark.slow
def test_keras_files_say_it_too(folder, notes):
    """What plain Keras loads as ever is a .keras archive with a member of ours."""
    keras = pytest.importorskip("keras")
    data = folder / "bytes.npz"
    path = folder / "imported.keras"
    ds.import_onnx(folder / "model.onnx", path, data=data, preprocessing=PREPARE)
    assert stored_preprocessing(path) == PREPARE
    assert keras.saving.load_model(path).count_params() > 0
    small = folder / "small.keras"
    ds.rewrite(path, calibration=data, output=small, refine=0)
    tuned, settings = folder / "tuned.keras", ds.FinetuneSettings(epochs=1)
    ds.finetune(small, path, data, settings, samples=40, output=tuned)
    assert stored_preprocessing(small) == stored_preprocessing(tuned) == PREPARE
    assert sum("prepared as imported.keras says" in text for text in notes()) == 2
    found = ds.evaluate(tuned, data, reference=small)
    assert found.preprocessing == msgspec.structs.replace(
        PREPARE, layout=found.preprocessing.layout
    )


def test_h5_files_say_it_too(tmp_path):
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    path, plain = tmp_path / "model.h5", tmp_path / "plain.h5"
    save_keras(model, path, overwrite=False, preprocessing=PREPARE)
    model.save(plain)

    assert stored_preprocessing(path) == PREPARE
    assert stored_preprocessing(plain) is None
    assert keras.saving.load_model(path).count_params() == 10


def test_what_is_damaged_stays_as_it_is(tmp_path):
    h5 = tmp_path / "model.h5"
    h5.write_bytes(b"\x89HDF\r\n\x1a\n and more")
    keras_archive.write(h5, b"{}")
    assert h5.read_bytes() == b"\x89HDF\r\n\x1a\n and more"
    assert keras_archive.read(h5) is None
    assert stored_preprocessing(h5) is None
    with zipfile.ZipFile(tmp_path / "odd.keras", "w") as archive:
        archive.writestr(keras_archive.NAME, '{"preprocessing": {"scale": 0}}')
    assert stored_preprocessing(tmp_path / "odd.keras") is None


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (1 / 255, "1/255"),
        (1 / 127.5, "1/127.5"),
        (1 / 16, "1/16"),
        (0.1, "0.1"),
        (0.25, "0.25"),
        (0.3125, "0.3125"),
        (0.5, "0.5"),
        (2.0, "2"),
        (0.017, "0.017"),
        (1 / 65535, "1/65535"),
    ],
)
def test_factors_are_told_as_people_write_them(value, word):
    assert number_word(value) == word
    assert parse_number(word) == value
