"""Two files on the same samples: what passes, what fails, and what it says."""

from __future__ import annotations

import json

import keras
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from dsconvert.base.fidelity import OutputFidelity
from dsconvert.cli import main
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.runtimes.precision import precision_of
from dsconvert.deploy.verification.tolerances import DEFAULTS, Thresholds, failures, remarks


def output(**values) -> OutputFidelity:
    known = {"finite": True, "sqnr_db": 30.0, "relative_error": 0.03, "max_abs_error": 0.1}
    return OutputFidelity(name="y", **known | values)


@pytest.mark.parametrize(
    ("values", "limits", "wrong"),
    [
        ({}, Thresholds(min_sqnr_db=30), ""),
        ({}, Thresholds(min_sqnr_db=30.1), "SQNR of 30.0 dB"),
        ({"sqnr_db": None, "relative_error": 0.0}, Thresholds(min_sqnr_db=90), ""),
        ({"sqnr_db": None, "relative_error": None}, Thresholds(min_sqnr_db=0), "SQNR of -inf"),
        ({"top1_agreement": 0.8, "reference_classes": 3}, Thresholds(min_agreement=0.8), ""),
        ({"top1_agreement": 0.8, "reference_classes": 3}, Thresholds(min_agreement=0.9), "80.0%"),
        ({"top1_agreement": 1.0, "reference_classes": 1}, Thresholds(min_agreement=0.9), "nothing"),
        ({"kl_nats": 0.2}, Thresholds(max_kl_nats=0.1), "KL divergence of 0.2"),
        ({"kl_nats": 0.2}, Thresholds(max_kl_nats=0.2), ""),
        ({"finite": False}, Thresholds(), "not finite"),
        ({"sqnr_db": 5.0, "top1_agreement": 0.95, "reference_classes": 3}, DEFAULTS["int8"], ""),
        ({"sqnr_db": 5.0, "top1_agreement": 1.0, "reference_classes": 1}, DEFAULTS["int8"], "SQNR"),
        ({"sqnr_db": 5.0, "top1_agreement": 1.0, "reference_classes": 9}, DEFAULTS["float32"], "S"),
    ],
)
def test_each_threshold_on_both_sides(values, limits, wrong):
    found = failures([output(**values)], limits)
    assert bool(found) == bool(wrong)
    assert wrong in " ".join(found)


def test_agreement_on_one_class_is_said_to_prove_nothing():
    assert "proves nothing" in remarks([output(top1_agreement=1.0, reference_classes=1)])[0]
    assert not remarks([output(top1_agreement=1.0, reference_classes=2), output()])


@pytest.fixture(scope="module")
def files(digits_cnn, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    images, _ = digits
    np.savez(folder / "digits.npz", x_test=images[1500:], x_train=images[:200])
    digits_cnn.save(folder / "model.keras")
    for name, quantize in (("full", "none"), ("half", "float16"), ("int8", "int8")):
        calibration = images[:200] if quantize == "int8" else None
        export(digits_cnn, folder / f"{name}.tflite", quantize=quantize, calibration=calibration)
    export(digits_cnn, folder / "full.onnx")
    proto = onnx.load(folder / "full.onnx")  # the same network with its channel axis in front
    _channels_first(proto)
    onnx.save(proto, folder / "first.onnx")
    return folder


def _channels_first(proto: onnx.ModelProto) -> None:
    """Let the graph take (n, 1, 8, 8) by a Transpose in front."""
    (image,) = proto.graph.input
    proto.graph.node.insert(
        0, onnx.helper.make_node("Transpose", ["first"], [image.name], perm=[0, 2, 3, 1])
    )
    proto.graph.input.remove(image)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("first", 1, ["n", 1, 8, 8]))


def verify(files, a: str, b: str, *options: str) -> tuple[int, dict]:
    command = ["verify", str(files / a), str(files / b), "--json", "-q", *options]
    result = CliRunner().invoke(main, command)
    assert result.exit_code in (0, 1), result.stderr
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("data", [True, False])
@pytest.mark.parametrize(
    ("a", "b", "precision", "least_db"),
    [
        ("model.keras", "full.tflite", "float32", 100),
        ("model.keras", "first.onnx", "float32", 100),
        ("full.onnx", "half.tflite", "float16", 50),
        ("first.onnx", "int8.tflite", "int8", 15),
        ("int8.tflite", "int8.tflite", "int8", None),
    ],
)
def test_files_of_every_kind_and_layout(files, a, b, precision, least_db, data):
    given = ["--data", str(files / "digits.npz"), "--samples", "100"] if data else []
    code, record = verify(files, a, b, *given)
    assert (code, record["passed"], record["failures"]) == (0, True, [])
    assert record["schema"] == "dsconvert.verification/1"
    assert record["precision"] == precision
    (one,) = record["fidelity"]
    if least_db is None:
        assert one["relative_error"] == 0
    else:  # random inputs lie within what int8.tflite can take
        assert one["sqnr_db"] > least_db
    assert one["finite"]
    assert record["shapes"][0][-1] == 10
    assert record["source"].startswith(str(files) if data else "random inputs (seed 0)")
    assert record["samples"] == (100 if data else 32)
    if data:
        assert one["reference_classes"] == 10


def test_random_inputs_are_within_what_integers_can_hold(files):
    code, record = verify(files, "int8.tflite", "full.tflite", "--min-sqnr", "15")
    assert (code, record["precision"]) == (0, "float32")


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--min-sqnr", "99"], "SQNR"),
        (["--min-agreement", "1", "--max-kl", "1e-9"], "KL"),
        (["--max-kl", "10", "--min-sqnr", "5"], ""),
    ],
)
def test_thresholds_decide_the_exit_code(files, options, wrong):
    code, record = verify(
        files, "model.keras", "int8.tflite", "--data", str(files / "digits.npz"), *options
    )
    assert code == bool(wrong)
    assert wrong in " ".join(record["failures"])
    assert bool(record["failures"]) == bool(wrong)


def test_nan_fails_whatever_is_asked(files):
    proto = onnx.load(files / "full.onnx")
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(array * np.float32(np.nan), tensor.name))
    onnx.save(proto, files / "nan.onnx")
    code, record = verify(files, "full.onnx", "nan.onnx", "--min-sqnr", "-100")
    assert (code, record["fidelity"][0]["finite"]) == (1, False)
    assert "not finite" in record["failures"][0]
    result = CliRunner().invoke(main, ["verify", str(files / "nan.onnx"), str(files / "full.onnx")])
    assert result.exit_code == 2
    assert "the reference's own output" in result.stderr


def test_the_table_and_a_threshold_that_says_nothing(files):
    command = ["verify", str(files / "model.keras"), str(files / "int8.tflite")]
    shown = CliRunner().invoke(main, command)
    assert "random inputs" in shown.stderr
    assert "of 10" in shown.stdout
    assert "passed" in shown.stdout

    image = keras.Input((8, 8, 1))
    keras.Model(image, keras.layers.Conv2D(2, 3)(image)).save(files / "images.keras")
    both = [str(files / "images.keras")] * 2
    refused = CliRunner().invoke(main, ["verify", *both, "--max-kl", "1"])
    assert refused.exit_code == 2
    assert "--min-sqnr" in refused.stderr


def test_precision_is_read_from_the_file(files):
    found = {path.name: precision_of(path) for path in files.glob("*.tflite")}
    assert found == {"full.tflite": "float32", "half.tflite": "float16", "int8.tflite": "int8"}
    assert precision_of(files / "full.onnx") == "float32"
