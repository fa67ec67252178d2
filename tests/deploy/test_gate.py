"""Two files on the same samples: what passes, what fails, and what it says."""

from __future__ import annotations

import json

import keras
import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import OutputFidelity, compare_output, compare_outputs
from dsconvert.base.label_agreement import OutputKind
from dsconvert.base.output_fidelity import failures
from dsconvert.cli import main
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.runtimes.precision import precision_of
from dsconvert.deploy.schemes import SCHEMES
from dsconvert.deploy.verification.tolerances import (
    Thresholds,
    judge_outputs,
    remarks,
)


def with_error(db: float, samples: int = 64, seed: int = 0) -> OutputFidelity:
    """An image output of one scale whose SQNR is so many dB."""
    rng = np.random.default_rng(seed)
    reference, noise = rng.normal(size=(2, samples, 8, 8, 2))
    noise *= np.linalg.norm(reference) / np.linalg.norm(noise) * 10 ** (-db / 20)
    return compare_output("y", reference, reference + noise)


def with_classes(agreement: float, classes: int = 3, noise: float = 1.0) -> OutputFidelity:
    """Scores of 100 samples with so many equal arg maxima, and much noise besides."""
    rng = np.random.default_rng(0)
    winner = np.arange(100) % classes
    reference = rng.uniform(-1, 1, (100, 4)) + 3 * np.eye(4)[winner]
    other = reference + noise * rng.uniform(-1, 1, reference.shape)
    other += 3 * np.eye(4)[winner] - 3 * np.eye(4)[winner][:, ::-1]
    wrong = np.arange(100) >= round(100 * agreement)
    other[wrong] = np.roll(other[wrong], 1, axis=1)
    return compare_output("y", reference, other)


@pytest.mark.parametrize(
    ("quantize", "db", "passes"),
    [
        ("none", 60.1, True),
        ("none", 59.9, False),
        ("float16", 26.1, True),
        ("float16", 25.9, False),
        ("dynamic", 10.1, True),
        ("int8", 10.1, True),
        ("int8", 9.9, False),
        ("int8-float-io", 9.9, False),
        ("int16x8", 20.1, True),
        ("int16x8", 19.9, False),
    ],
)
def test_each_quantization_has_its_tolerance(quantize, db, passes):
    found = failures(judge_outputs([with_error(db)], SCHEMES[quantize].tolerance))
    assert (found == ()) is passes


@pytest.mark.parametrize(
    ("agreement", "classes", "quantize", "passes"),
    [
        (0.95, 3, "int8", True),
        (0.85, 3, "int8", False),
        (1.0, 1, "int8", False),
        (0.95, 3, "none", False),
    ],
)
def test_the_same_classes_excuse_a_low_sqnr(agreement, classes, quantize, passes):
    output = with_classes(agreement, classes)
    assert output.sqnr_db < 9
    assert (output.top1_agreement >= 0.9) == (agreement >= 0.9)
    assert (failures(judge_outputs([output], SCHEMES[quantize].tolerance)) == ()) is passes


def output(**values) -> OutputFidelity:
    return msgspec.structs.replace(with_error(30.0), **values)


@pytest.mark.parametrize(
    ("values", "limits", "code"),
    [
        ({}, Thresholds(min_sqnr_db=29.9), None),
        ({}, Thresholds(min_sqnr_db=30.1), "group-below"),
        ({"top1_agreement": 0.8, "reference_classes": 3}, Thresholds(min_agreement=0.8), None),
        (
            {"top1_agreement": 0.8, "reference_classes": 3},
            Thresholds(min_agreement=0.9),
            "agreement-below",
        ),
        (
            {"top1_agreement": 1.0, "reference_classes": 1},
            Thresholds(min_agreement=0.9),
            "single-class",
        ),
        ({"kl_nats": 0.2}, Thresholds(max_kl_nats=0.1), "kl-above"),
        ({"kl_nats": 0.2}, Thresholds(max_kl_nats=0.2), None),
    ],
)
def test_each_threshold_on_both_sides(values, limits, code):
    found = judge_outputs([output(**values)], SCHEMES["int8"].tolerance, limits)
    assert [one.code for one in found if one.severity == "failure"] == ([code] if code else [])


def test_thresholds_that_are_asked_for_excuse_noise_and_nothing_else():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(40, 8, 8, 3))
    shifted = compare_output("y", reference, reference + 0.4)
    swapped = compare_output("y", reference, reference[..., [1, 0, 2]])
    lenient = Thresholds(min_sqnr_db=-99)

    (told,) = judge_outputs([shifted], SCHEMES["int8"].tolerance, lenient)
    assert (told.code, told.severity) == ("offset", "warning")
    refused = judge_outputs([swapped], SCHEMES["int8"].tolerance, lenient)
    assert [one.code for one in refused if one.severity == "failure"] == ["swapped"]


@pytest.mark.parametrize(
    ("offset", "real", "samples", "severity"),
    [
        (0, True, 40, None),
        (500, True, 40, "failure"),
        (500, True, 8, "warning"),  # too few to know
        (500, False, 40, "warning"),  # random inputs need not change anything
    ],
)
def test_changes_beside_a_large_constant(offset, real, samples, severity):
    """A regression far from 0, in 255 steps of an integer that begin at 0."""
    reference = offset + np.random.default_rng(0).normal(size=(samples, 1))
    step = np.abs(reference).max() / 127
    output = compare_output("y", reference, np.round(reference / step) * step)

    found = judge_outputs([output], SCHEMES["int8"].tolerance, real=real)

    told = [(one.code, one.severity) for one in found if one.code == "changes-lost"]
    assert told == ([("changes-lost", severity)] if severity else [])
    asked = judge_outputs([output], SCHEMES["int8"].tolerance, Thresholds(min_sqnr_db=9), real=real)
    assert not failures(one for one in asked if one.code == "changes-lost")


def test_a_part_that_hardly_changes_is_told_only():
    rng = np.random.default_rng(0)
    reference = np.stack([rng.normal(size=40), 500 + rng.normal(size=40)], 1)
    output = compare_output("y", reference, reference + [0, 4] * rng.normal(size=(40, 2)))

    found = judge_outputs([output], SCHEMES["int8"].tolerance, real=True)

    assert [(one.code, one.severity) for one in found if one.code == "changes-lost"] == [
        ("changes-lost", "warning")
    ]


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


@pytest.mark.slow
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
    assert "the reference itself gives NaN on" in result.stderr


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


def test_every_scheme_is_in_the_table_and_every_name_has_one():
    from typing import get_args

    from dsconvert.deploy.schemes import allowed
    from dsconvert.formats.quantization import Format, Quantization

    assert tuple(SCHEMES) == get_args(Quantization)
    assert {scheme.name for scheme in SCHEMES.values()} == set(SCHEMES)
    for form in get_args(Format):
        assert {name for name, one in SCHEMES.items() if form in one.formats} == set(allowed(form))
    assert "int16x8" not in allowed("onnx")


class TestLabels:
    """Whole numbers that name things are not judged by how far apart the numbers are."""

    R = np.random.default_rng(0).integers(0, 50, (40, 100)).astype(np.float32)

    def judged(self, other, labels=True):
        (fidelity,) = compare_outputs(["classes"], [self.R], [other], [OutputKind(labels)])
        return judge_outputs([fidelity], SCHEMES["int8"].tolerance)

    def test_a_fifth_of_other_labels_is_told(self):
        other = np.where(np.arange(100) % 5 == 0, (self.R + 40) % 50, self.R)
        assert failures(self.judged(other, labels=False))  # as quantities they are far apart
        (told,) = self.judged(other)
        assert (told.code, told.severity) == ("labels-differ", "warning")

    @pytest.mark.parametrize("other", [np.zeros_like(R), (R + 25) % 50], ids=["dead", "shifted"])
    def test_labels_of_something_else_are_refused(self, other):
        assert self.judged(other)[0].code == "labels-below"


class TestNan:
    """A model that gives NaN itself: the file is not at fault."""

    @pytest.fixture
    def model(self):
        image = keras.Input((4, 4, 2), name="image")
        return keras.Model(image, keras.layers.Flatten(name="roots")(keras.ops.sqrt(image)))

    @pytest.mark.parametrize("suffix", ["tflite", "onnx"])
    def test_it_is_the_model_that_is_named(self, model, suffix, tmp_path):
        images = np.ones((3, 4, 4, 2), np.float32)
        images[1, 2, 2, 0] = -1
        with pytest.raises(InputError) as raised:
            export(model, tmp_path / f"roots.{suffix}", verification=images)

        assert raised.value.code == "not-finite"
        assert "itself gives NaN on the verification data: in 1 of the 96" in raised.value.message
        assert "'roots', on 1 of 3 samples." in raised.value.message
        assert not list(tmp_path.iterdir())

    def test_on_random_numbers_real_ones_are_asked_for(self, model, tmp_path):
        with pytest.raises(InputError) as raised:
            export(model, tmp_path / "roots.tflite")
        assert "on the random inputs" in raised.value.message
        assert "give real ones with calibration" in raised.value.hint
