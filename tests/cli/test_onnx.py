"""ONNX files through the commands: import, fine-tuning, export, evaluation, and their data."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper

from dsconvert.cli import main
from dsconvert.deploy.exporting.metadata import read_metadata
from dsconvert.workflows import model_files, onnx_round_trip

FIT = "--data data.npz --scale 1/255"
FLOAT = onnx.TensorProto.FLOAT


def conv(name: str, source: str, weights: dict, shape: tuple, rng, **attributes) -> Any:
    """A Conv of these weights; the initialisers are added."""
    fan_in = np.prod(shape[1:])
    weights[f"{name}.w"] = (rng.normal(size=shape) / np.sqrt(fan_in / 2)).astype(np.float32)
    weights[f"{name}.b"] = rng.normal(size=shape[0], scale=0.1).astype(np.float32)
    inputs = [source, f"{name}.w", f"{name}.b"]
    return helper.make_node("Conv", inputs, [f"{name}_out"], name, **attributes)


def model_of(nodes, weights, given, result, **more) -> onnx.ModelProto:
    """A model with one input and one output, each a (name, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(given[0], FLOAT, given[1])],
        [helper.make_tensor_value_info(result[0], FLOAT, result[1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, **more
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def classifier(batch: int | str = "N", given: str = "image", result: str = "probs"):
    """Three convolutions on 12×12 RGB images, channels first; one has a BatchNorm behind it."""
    rng, weights = np.random.default_rng(3), {}
    node = helper.make_node
    nodes = [
        conv("stem", given, weights, (8, 3, 3, 3), rng),
        node("Relu", ["stem_out"], ["stem_act"], "stem_relu"),
        conv("conv1", "stem_act", weights, (16, 8, 3, 3), rng),
        node("BatchNormalization", ["conv1_out", "g", "o", "m", "v"], ["normed"], "norm"),
        node("Relu", ["normed"], ["conv1_act"], "conv1_relu"),
        conv("conv2", "conv1_act", weights, (16, 16, 3, 3), rng, pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["conv2_out"], ["conv2_act"], "conv2_relu"),
        node("GlobalAveragePool", ["conv2_act"], ["pooled"], "pool"),
        node("Flatten", ["pooled"], ["flat"], "flatten"),
        node("Gemm", ["flat", "dense.w", "dense.b"], ["logits"], "dense"),
        node("Softmax", ["logits"], [result], "softmax", axis=1),
    ]
    weights |= {
        "g": rng.uniform(0.5, 1.5, 16).astype(np.float32),
        "o": rng.normal(size=16, scale=0.1).astype(np.float32),
        "m": rng.normal(size=16, scale=0.1).astype(np.float32),
        "v": rng.uniform(0.5, 1.5, 16).astype(np.float32),
        "dense.w": rng.normal(size=(16, 5)).astype(np.float32) * 3,
        "dense.b": np.zeros(5, np.float32),
    }
    ends = (given, [batch, 3, 12, 12]), (result, [batch, 5])
    # No class is to win everywhere: move the mean of the logits to zero.
    trial = session(model_of(nodes, weights, *ends).SerializeToString())
    logits = [np.log(trial.run(None, {given: x[None]})[0][0]) for x in channels_first(pictures())]
    weights["dense.b"] = -np.mean(logits, axis=0)
    return model_of(nodes, weights, *ends)


def pictures() -> np.ndarray:
    """Images (n, 12, 12, 3) of coarse squares: the network's mean over pixels tells them apart."""
    coarse = np.random.default_rng(0).integers(0, 256, (96, 3, 3, 3))
    return np.kron(coarse, np.ones((1, 4, 4, 1))).astype(np.uint8)


def channels_first(images: np.ndarray) -> np.ndarray:
    """Images of 0…255 as the models take them."""
    return (images.transpose(0, 3, 1, 2) / 255).astype(np.float32)


def session(model: bytes | str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def filter_of_images(channels: int = 3) -> onnx.ModelProto:
    """12×12 images in, images of as many channels out, both channels first."""
    rng, weights = np.random.default_rng(4), {}
    nodes = [
        conv("wide", "image", weights, (8, channels, 3, 3), rng, pads=[1] * 4),
        helper.make_node("Relu", ["wide_out"], ["wide_act"], "wide_relu"),
        conv("narrow", "wide_act", weights, (channels, 8, 3, 3), rng, pads=[1] * 4),
    ]
    shape = ["N", channels, 12, 12]
    return model_of(nodes, weights, ("image", shape), ("narrow_out", shape))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX models, one rewritten, one drawn in Keras, and data in both layouts."""
    place = tmp_path_factory.mktemp("cli_onnx")
    onnx.save(classifier(), place / "model.onnx")
    onnx.save(classifier(batch=1), place / "fixed.onnx")
    onnx.save(classifier(given="im/age:0", result="class/probs:0"), place / "odd.onnx")
    onnx.save(filter_of_images(), place / "filter.onnx")
    (place / "apart").mkdir()
    onnx.save(
        classifier(),
        place / "apart" / "large.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=16,
    )
    x = pictures()
    y = run(place / "model.onnx", x).argmax(axis=1)
    np.savez(place / "data.npz", x=x, y=y)
    np.savez(place / "first.npz", x=x.transpose(0, 3, 1, 2), y=y)
    np.savez(place / "wide.npz", x=np.zeros((4, 20, 20, 3)))
    for command in (
        "rewrite model.onnx -o small.onnx --method svd",
        "rewrite fixed.onnx -o small_fixed.onnx --method svd",
        "import model.onnx -o model.keras",
        "import filter.onnx -o filter.keras",
    ):
        result = call(command, place)
        assert result.exit_code == 0, result.stderr
    return place


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """The first output in ONNX Runtime for images (n, H, W, C) in 0…255."""
    opened, x = session(str(path)), channels_first(images)
    (given,) = opened.get_inputs()
    if given.shape[0] == 1:
        return np.concatenate([opened.run(None, {given.name: one[None]})[0] for one in x])
    return opened.run(None, {given.name: x})[0]


def call(arguments: str, folder: Path) -> Result:
    """Run a command in-process; words that end as files do, or name a folder, are in the folder."""
    endings = (".keras", ".npz", ".tflite", ".onnx", ".h5", "_model")
    words = [str(folder / w) if w.endswith(endings) else w for w in arguments.split()]
    return CliRunner().invoke(main, words)


def done(arguments: str, folder: Path) -> Any:
    """The JSON that a command prints."""
    result = call(f"{arguments} --json", folder)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(
    arguments: str, folder: Path, code: int, *parts: str, left: tuple[str, ...] = ()
) -> None:
    before = {path.name for path in folder.iterdir()}
    result = call(arguments, folder)
    assert isinstance(result.exception, SystemExit), result.output
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr
    assert {path.name for path in folder.iterdir()} == before | set(left)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stored(folder: Path) -> np.ndarray:
    with np.load(folder / "data.npz") as file:
        return file["x"]


def names(path: Path) -> dict[str, list]:
    """What has to stay as it is when weights are written back."""
    graph = onnx.load(path).graph
    return {
        "nodes": [(node.name, node.op_type, list(node.input)) for node in graph.node],
        "inputs": [value.SerializeToString() for value in graph.input],
        "outputs": [value.SerializeToString() for value in graph.output],
        "weights": [(tensor.name, list(tensor.dims)) for tensor in graph.initializer],
    }


class TestOpening:
    def test_an_onnx_file(self, folder: Path) -> None:
        opened = model_files.open_model(folder / "fixed.onnx")
        assert opened.kind == "onnx"
        assert opened.folder == folder
        assert opened.input_names == ("image",)
        assert opened.input_shapes == ((1, 3, 12, 12),)
        assert opened.sha256 == sha(folder / "fixed.onnx")
        free = model_files.open_model(folder / "model.onnx")
        assert free.input_shapes == ((None, 3, 12, 12),)

    def test_weights_among_the_inputs_are_not_fed(self, tmp_path: Path) -> None:
        model = filter_of_images()
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, FLOAT, t.dims) for t in model.graph.initializer
        )
        onnx.save(model, tmp_path / "old.onnx")
        assert model_files.open_model(tmp_path / "old.onnx").input_names == ("image",)

    def test_content_counts_and_not_the_suffix(self, folder: Path, tmp_path: Path) -> None:
        shutil.copy(folder / "model.keras", tmp_path / "misnamed.onnx")
        opened = model_files.open_model(tmp_path / "misnamed.onnx")
        assert opened.kind == "keras"
        assert opened.folder is None
        assert opened.input_shapes == ((None, 12, 12, 3),)

    @pytest.mark.parametrize(
        "command",
        ["inspect {}", "rewrite {}", f"finetune {{}} --teacher model.onnx {FIT}", "export {}"],
    )
    def test_tflite_files_are_refused(self, folder: Path, command: str) -> None:
        path = folder / "compiled.tflite"
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(16))
        refused(
            command.format("compiled.tflite") + " -o x.keras" * command.startswith("rew"),
            folder,
            2,
            "is a TFLite file",
            "Give the Keras or .onnx model",
        )

    @pytest.mark.parametrize(
        "command",
        ["inspect {}", "export {} -o x.tflite", "import {}", f"evaluate {{}} {FIT}"],
    )
    def test_saved_models_that_cannot_be_read_are_refused_with_what_to_do(
        self, folder: Path, command: str
    ) -> None:
        (folder / "saved_model").mkdir(exist_ok=True)
        (folder / "saved_model" / "saved_model.pb").write_bytes(b"\x08\x01")
        refused(command.format("saved_model"), folder, 2, "tf2onnx cannot convert", "model.save(")

    @pytest.mark.parametrize("name", ["import", "export", "inspect"])
    def test_damaged_files(self, folder: Path, name: str) -> None:
        (folder / "damaged.onnx").write_bytes(b"\x08\x07garbage")
        refused(f"{name} damaged.onnx", folder, 2, "damaged.onnx")
        refused(f"{name} absent.onnx", folder, 2, "absent.onnx: no such file")


class TestImport:
    def test_the_record(self, folder: Path) -> None:
        record = done("import model.onnx -o told.keras", folder)
        assert record["schema"] == "dsconvert.imported/1"
        assert record["source_sha256"] == sha(folder / "model.onnx")
        assert record["sha256"] == sha(folder / "told.keras")
        assert record["inputs"] == [
            {
                "name": "image",
                "shape": [None, 12, 12, 3],
                "onnx_shape": [None, 3, 12, 12],
                "axes": [0, 2, 3, 1],
            }
        ]
        assert [output["name"] for output in record["outputs"]] == ["probs"]
        assert record["verified_on"] == "random inputs"
        assert record["samples"] == onnx_round_trip.SAMPLES
        assert record["fidelity"][0]["relative_error"] < 1e-5

    def test_plain_keras_loads_it(self, folder: Path) -> None:
        import keras

        model = keras.saving.load_model(folder / "model.keras")
        x = stored(folder)
        outputs = model.predict(x / 255.0, verbose=0)
        np.testing.assert_allclose(outputs, run(folder / "model.onnx", x), atol=1e-5)

    @pytest.mark.parametrize(("data", "layout"), [("data.npz", ["moved first"]), ("first.npz", [])])
    def test_real_inputs_of_either_layout(self, folder: Path, data: str, layout: list) -> None:
        command = f"import model.onnx -o real.keras --data {data} --scale 1/255 --overwrite"
        record = done(command, folder)
        assert record["verified_on"] == "verification data"
        assert record["preprocessing"]["layout"] == layout
        assert record["fidelity"][0]["reference_classes"] > 1

    def test_a_fixed_batch_becomes_free(self, folder: Path) -> None:
        record = done("import fixed.onnx -o fixed.keras --overwrite", folder)
        assert record["inputs"][0]["shape"] == [None, 12, 12, 3]
        assert record["inputs"][0]["onnx_shape"] == [1, 3, 12, 12]
        assert any("batch is free in Keras" in note for note in record["notes"])

    def test_a_batch_that_is_fixed_for_a_reason_stays(self, folder: Path) -> None:
        """Its samples are not independent: it subtracts the mean over the batch."""
        node = helper.make_node
        nodes = [
            node("ReduceMean", ["image"], ["mean"], "mean", axes=[0], keepdims=1),
            node("Sub", ["image", "mean"], ["centred"], "centre"),
            node("Relu", ["centred"], ["out"], "relu"),
        ]
        shape = [2, 3, 12, 12]
        onnx.save(model_of(nodes, {}, ("image", shape), ("out", shape)), folder / "pairs.onnx")
        record = done("import pairs.onnx -o pairs.keras --overwrite", folder)
        assert record["inputs"][0]["shape"][0] == 2
        assert any("stays fixed" in note for note in record["notes"])

    def test_people_read_the_layouts(self, folder: Path) -> None:
        result = call("import filter.onnx -o read.keras", folder)
        assert "input image: (n, 12, 12, 3), in ONNX (n, 3, 12, 12)" in result.stdout
        assert "output narrow_out: (n, 12, 12, 3), in ONNX (n, 3, 12, 12)" in result.stdout
        assert "samples (random inputs)" in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            ("import model.keras", ("is no .onnx file", "needs no import")),
            ("import model.onnx -o x.tflite", (".tflite", ".keras or .h5")),
            ("import model.onnx", ("model.keras exists already", "--overwrite")),
            (
                "import model.onnx -o x.keras --data wide.npz",
                ("(n, 20, 20, 3)", "(n, 3, 12, 12)"),
            ),
        ],
    )
    def test_refusals(self, folder: Path, arguments: str, parts: tuple[str, ...]) -> None:
        refused(arguments, folder, 2, *parts)

    def test_operators_without_a_counterpart_are_named(self, folder: Path) -> None:
        determinants = [helper.make_node("Det", ["x"], ["y"], "determinant")]
        model = model_of(determinants, {}, ("x", ["N", 3, 3]), ("y", ["N"]))
        onnx.save(model, folder / "det.onnx")
        refused("import det.onnx -o det.keras", folder, 2, "Det (determinant)")


class TestFinetune:
    STEPS = "--epochs 10 --batch-size 16 --learning-rate 3e-2"

    def test_weights_go_back_into_the_graph(self, folder: Path) -> None:
        record = done(
            f"finetune small.onnx --teacher model.onnx {FIT} {self.STEPS} -o tuned.onnx", folder
        )
        assert record["best_epoch"] > 0
        assert record["sha256"] == sha(folder / "tuned.onnx")
        assert record["preprocessing"]["layout"] == []
        assert record["history"][0]["fidelity"][0]["name"] == "probs"
        assert names(folder / "tuned.onnx") == names(folder / "small.onnx")
        x = stored(folder)
        teacher, before, after = (
            run(folder / name, x) for name in ("model.onnx", "small.onnx", "tuned.onnx")
        )
        assert np.linalg.norm(after - teacher) < 0.7 * np.linalg.norm(before - teacher)
        assert not (folder / "tuned.onnx.state").exists()

    def test_the_frozen_layers_are_those_that_were_not_rewritten(self, folder: Path) -> None:
        from dsconvert.models.training.student_copy import copy_model, kept_layers

        student, teacher = (
            onnx_round_trip.open_as_keras(folder / name, 0).model
            for name in ("small.onnx", "model.onnx")
        )
        kept = {layer.name for layer in kept_layers(copy_model(student), teacher)}
        assert kept == {"stem", "dense"}  # the BatchNorm went into the pair before it

    @pytest.mark.slow
    def test_one_of_the_two_may_be_keras(self, folder: Path) -> None:
        record = done(
            f"finetune small.onnx --teacher model.keras {FIT} {self.STEPS} -o tuned2.keras", folder
        )
        assert record["best_epoch"] > 0
        assert any("(n, H, W, C) here" in note for note in record["notes"])
        back = done("export tuned2.keras -o tuned2.onnx --like small.onnx", folder)
        assert back["source_sha256"] == record["sha256"]
        same = done(
            "finetune model.keras --teacher model.onnx --data first.npz --scale 1/255 --epochs 1 "
            "-o same.keras",
            folder,
        )
        assert same["history"][0]["harm"] < 1e-9
        assert same["preprocessing"]["layout"] == ["moved last"]

    def test_a_fixed_batch(self, folder: Path) -> None:
        """The default name, and the sizes of the file as they were."""
        record = done(f"finetune small_fixed.onnx --teacher fixed.onnx {FIT} {self.STEPS}", folder)
        assert Path(record["output"]).name == "small_fixed_tuned.onnx"
        assert record["best_epoch"] > 0
        assert names(folder / "small_fixed_tuned.onnx") == names(folder / "small_fixed.onnx")

    def test_a_batch_that_stays_fixed_is_trained_in_batches_of_its_size(self, folder: Path) -> None:
        import keras

        from dsconvert.models.data.datasets import Data
        from dsconvert.models.training.finetune import finetune
        from dsconvert.models.training.settings import FinetuneSettings

        keras.utils.set_random_seed(0)
        free, fixed = keras.Input((6,)), keras.Input(batch_shape=(4, 6))
        teacher = keras.Model(free, keras.layers.Dense(3, name="t")(free))
        written = keras.ops.reshape(fixed, (4, 3, 2))  # runs on four samples and no other number
        flat = keras.layers.Flatten()(written)
        student = keras.Model(fixed, keras.layers.Dense(3, name="s")(flat))
        x = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
        tuned = finetune(student, teacher, Data((x,)), FinetuneSettings(epochs=2))
        assert tuned.best_epoch == 2

    def test_external_data_stay_external(self, folder: Path) -> None:
        command = "finetune apart/large.onnx --teacher model.onnx --epochs 1 -o apart/tuned.onnx"
        record = done(f"{command} {FIT} --learning-rate 1e-9", folder)
        data = folder / "apart" / "tuned.onnx.data"
        assert (
            record["size_bytes"]
            == data.stat().st_size + (folder / "apart" / "tuned.onnx").stat().st_size
        )
        assert data.stat().st_size > 4 * 16 * 16 * 9
        x = stored(folder)
        after = run(folder / "apart" / "tuned.onnx", x)
        np.testing.assert_allclose(after, run(folder / "model.onnx", x), atol=1e-5)
        refused(f"{command} {FIT}", folder, 2, "tuned.onnx exists already")
        (folder / "apart" / "tuned.onnx").unlink()
        late = call(f"{command} {FIT}", folder)
        assert late.exit_code == 2
        assert "tuned.onnx.data exists already" in late.stderr
        assert "Epoch" not in late.stderr  # refused before any work

    def test_half_precision_weights_stay_so(self, folder: Path) -> None:
        model = filter_of_images()
        for tensor in model.graph.initializer:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        onnx.save(model, folder / "half.onnx")
        np.savez(folder / "plain.npz", x=stored(folder))
        record = done(
            "finetune half.onnx --teacher filter.onnx --data plain.npz --scale 1/255 --epochs 6 "
            "--learning-rate 1e-4 --batch-size 16 -o half_tuned.onnx",
            folder,
        )
        done("import half.onnx -o half.keras", folder)
        back = done("export half.keras -o half_back.onnx --like half.onnx", folder)
        assert back["quantization"] == "float16"
        assert record["best_epoch"] > 0
        types = {t.data_type for t in onnx.load(folder / "half_tuned.onnx").graph.initializer}
        assert types == {onnx.TensorProto.FLOAT16}

    def test_a_file_that_answers_otherwise_is_not_kept(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dsconvert.models.onnx_import import Imported

        real = Imported.write_back

        def damaged(self: Imported, model: Any = None) -> onnx.ModelProto:
            proto = real(self, model)
            (bias,) = [t for t in proto.graph.initializer if t.name == "dense.b"]
            bias.CopyFrom(numpy_helper.from_array(np.arange(5, dtype=np.float32), bias.name))
            return proto

        monkeypatch.setattr(Imported, "write_back", damaged)
        command = "export model.keras --like model.onnx -o damaged_back.onnx"
        left = ("damaged_back.rejected.onnx", "damaged_back.rejected.json")
        not_kept = "damaged_back.onnx was not kept"
        refused(command, folder, 1, not_kept, "random inputs", "SQNR", *left, left=left)
        real_data = "--calibration data.npz --scale 1/255"
        refused(f"{command} {real_data}", folder, 1, not_kept, "report")
        kept = read_metadata(folder / "damaged_back.rejected.onnx")
        assert kept is not None
        assert kept.rejected
        report = json.loads((folder / "damaged_back.rejected.json").read_text())
        assert "SQNR" in report["failures"][0]

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (
                "finetune model.keras --teacher model.onnx --data data.npz -o x.onnx",
                ("is a Keras model", ".keras"),
            ),
            (
                "finetune small.onnx --teacher model.onnx --data data.npz -o x.tflite",
                (".onnx or .keras or .h5",),
            ),
            (
                "finetune small.onnx --teacher filter.onnx --data data.npz",
                ("the student's outputs",),
            ),
            ("finetune small.onnx --teacher model.onnx --data wide.npz", ("(n, 20, 20, 3)",)),
        ],
    )
    def test_refusals(self, folder: Path, arguments: str, parts: tuple[str, ...]) -> None:
        refused(arguments, folder, 2, *parts)


class TestExport:
    @pytest.mark.parametrize("quantize", ["none", "float16", "dynamic", "int8"])
    def test_to_tflite(self, folder: Path, quantize: str) -> None:
        data = "first.npz" if quantize == "dynamic" else "data.npz"
        record = done(
            f"export model.onnx -o {quantize}.tflite --quantize {quantize} --calibration {data} "
            "--scale 1/255",
            folder,
        )
        assert record["source_sha256"] == sha(folder / "model.onnx")
        assert record["quantization"] == quantize
        assert [tensor["name"] for tensor in record["inputs"]] == ["image"]
        assert [tensor["name"] for tensor in record["outputs"]] == ["probs"]
        assert record["inputs"][0]["shape"] == [1, 12, 12, 3]
        assert "input 'image' is (n, H, W, C) here" in record["notes"][0]
        (result,) = done(
            f"evaluate {quantize}.tflite {FIT} --reference model.onnx --samples 40", folder
        )
        assert result["fidelity"][0]["sqnr_db"] > {"none": 80, "float16": 40}.get(quantize, 10)

    def test_names_that_other_formats_do_not_allow(self, folder: Path) -> None:
        record = done("export odd.onnx -o odd.tflite", folder)
        assert [tensor["name"] for tensor in record["inputs"]] == ["im_age_0"]
        assert [tensor["name"] for tensor in record["outputs"]] == ["class/probs:0"]
        assert any("'im/age:0' is called 'im_age_0'" in note for note in record["notes"])

    def test_large_images_are_run_a_few_at_a_time(self, folder: Path) -> None:
        rng, weights = np.random.default_rng(4), {}
        nodes = [conv("only", "image", weights, (2, 3, 3, 3), rng)]
        wide = ("image", ["N", 3, 850, 850]), ("only_out", ["N", 2, 848, 848])
        onnx.save(model_of(nodes, weights, *wide), folder / "large.onnx")
        record = done("export large.onnx -o large.tflite", folder)
        assert record["samples"] == 4

    def test_images_out(self, folder: Path) -> None:
        record = done("export filter.onnx -o filter.tflite", folder)
        assert sum("(n, H, W, C) here" in note for note in record["notes"]) == 2

    @pytest.mark.parametrize("like", ["model.onnx", "fixed.onnx", "apart/large.onnx"])
    def test_back_into_the_graph(self, folder: Path, like: str) -> None:
        import keras

        model = keras.saving.load_model(folder / "model.keras")
        rng = np.random.default_rng(5)
        model.set_weights([w + 0.05 * rng.random(w.shape) for w in model.get_weights()])
        model.save(folder / "moved.keras")
        output = f"back_{like.replace('/', '_')}"
        record = done(f"export moved.keras -o {output} --like {like}", folder)
        assert record["format"] == "onnx"
        assert record["source_sha256"] == sha(folder / "moved.keras")
        assert record["fidelity"][0]["relative_error"] < 1e-5
        said = read_metadata(folder / output)
        assert said is not None
        assert (said.source_sha256, said.rejected) == (record["source_sha256"], False)
        assert {"dsconvert", "onnx"} < said.tools.keys()
        back, original = names(folder / output), names(folder / like)
        assert back == original
        x = stored(folder)
        expected = model.predict(x / 255.0, verbose=0)
        got = run(folder / output, x)
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert np.abs(got - run(folder / "model.onnx", x)).max() > 1e-3

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            ("export model.onnx -o x.onnx", ("is an ONNX file already", "model.tflite")),
            ("export model.onnx --format onnx", ("is an ONNX file already",)),
            ("export model.onnx --like model.onnx", ("is an ONNX file already",)),
            (
                "export model.keras -o x.onnx --like small.onnx",
                ("layers are not those of", "'conv1_", "rewrite the .onnx file"),
            ),
            ("export model.keras -o x.onnx --like model.keras", ("is no .onnx file",)),
            ("export model.keras -o x.tflite --like model.onnx", ("Try: -o", "x.onnx")),
            (
                "export model.keras -o x.onnx --like model.onnx --quantize int8",
                ("in float32", "Take two steps"),
            ),
            (
                "export model.keras -o model.onnx --like model.onnx --overwrite",
                ("the file of --like itself",),
            ),
            ("export model.onnx -o x.tflite --quantize int8", ("needs calibration data",)),
        ],
    )
    def test_refusals(self, folder: Path, arguments: str, parts: tuple[str, ...]) -> None:
        refused(arguments, folder, 2, *parts)


class TestEvaluate:
    @pytest.mark.parametrize("data", ["data.npz", "first.npz"])
    def test_every_file_gets_its_layout(self, folder: Path, data: str) -> None:
        call("export model.onnx -o flat.tflite --overwrite", folder)
        results = done(
            f"evaluate model.onnx flat.tflite model.keras fixed.onnx --data {data} --scale 1/255 "
            "--reference model.keras",
            folder,
        )
        moved = {"data.npz": ["moved first"], "first.npz": ["moved last"]}[data]
        first, last = (moved, []) if data == "data.npz" else ([], moved)
        layouts = [result["preprocessing"]["layout"] for result in results]
        assert layouts == [first, last, last, first]
        for result in results:
            assert result["top1"]["value"] == 1
            assert result["fidelity"][0]["relative_error"] < 1e-5

    def test_what_was_moved_is_said_once(self, folder: Path) -> None:
        result = call(f"evaluate model.onnx fixed.onnx {FIT}", folder)
        told = "data.npz: (n, H, W, C) → (n, C, H, W), as the model takes them"
        assert result.stderr.count(told) == 1

    def test_asked_for_it_is_not_said(self, folder: Path) -> None:
        result = call(f"evaluate model.onnx {FIT} --channels-first", folder)
        assert result.exit_code == 0
        assert "Note" not in result.stderr
        result = call(f"evaluate model.keras {FIT} --channels-first", folder)
        assert "not moved to channels first, the model takes (n, 12, 12, 3)" in result.stderr

    def test_per_channel_numbers_belong_to_channels(self, folder: Path) -> None:
        """The same network on the same data, wherever the channel axis is."""
        numbers = "--scale 1/255 --mean 0.1,0.2,0.3 --std 1,2,3"
        results = [
            done(
                f"evaluate {model} --data {data} {numbers} --reference model.onnx --samples 20",
                folder,
            )[0]
            for model in ("model.onnx", "model.keras")
            for data in ("data.npz", "first.npz")
        ]
        assert len({tuple(result["predicted"]) for result in results}) == 1
        plain = done(f"evaluate model.onnx {FIT} --samples 20", folder)[0]
        assert plain["predicted"] != results[0]["predicted"]

    @pytest.mark.parametrize(
        ("subject", "reference"),
        [("filter.onnx", "filter.keras"), ("filter.keras", "filter.onnx")],
    )
    def test_images_are_compared_in_one_layout(
        self, folder: Path, subject: str, reference: str
    ) -> None:
        np.savez(folder / "plain.npz", x=stored(folder))
        (result,) = done(
            f"evaluate {subject} --data plain.npz --scale 1/255 --reference {reference}", folder
        )
        assert result["fidelity"][0]["relative_error"] < 1e-5

    def test_grey_images_without_a_channel_axis(self, folder: Path) -> None:
        onnx.save(filter_of_images(channels=1), folder / "grey.onnx")
        np.savez(folder / "grey.npz", x=stored(folder)[..., 0])
        (result,) = done("evaluate grey.onnx --data grey.npz --reference grey.onnx", folder)
        assert result["preprocessing"]["layout"] == ["added first"]

    def test_models_of_other_inputs_are_named_and_not_the_data(self, folder: Path) -> None:
        onnx.save(filter_of_images(channels=1), folder / "grey.onnx")
        result = call(f"evaluate model.onnx grey.onnx {FIT}", folder)
        assert result.exit_code == 2
        for part in ("model.onnx takes (n, 3, 12, 12)", "grey.onnx (n, 1, 12, 12)"):
            assert part in result.stderr
        assert "data.npz" not in result.stderr
        result = call(f"evaluate model.keras {FIT} --reference grey.onnx", folder)
        assert "model.keras (n, 12, 12, 3)" in result.stderr

    def test_profile_feeds_each_file_its_layout(self, folder: Path) -> None:
        call("export model.onnx -o flat.tflite --overwrite", folder)
        rows = done(
            f"profile flat.tflite model.onnx {FIT} --runs 2 --min-seconds 0 --warmup 0", folder
        )
        assert [row["failure"] for row in rows] == ["", ""]


def test_neither_tensorflow_nor_keras_is_imported_for_onnx_files(folder: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from dsconvert.cli import main, options
from dsconvert.workflows.data_for import calibration_for
from dsconvert.workflows.model_files import open_model
opened = open_model(Path({str(folder / "model.onnx")!r}))
prepared = options.as_preprocessing("1/255", "0.1,0.2,0.3", None, False)
data = calibration_for(opened, {str(folder / "data.npz")!r}, 20, 0, prepared)
assert data.inputs[0].shape == (20, 3, 12, 12)
main(["evaluate", {str(folder / "model.onnx")!r}, "--data", {str(folder / "data.npz")!r},
      "--reference", {str(folder / "small.onnx")!r}], standalone_mode=False)
heavy = {{"tensorflow", "keras"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert result.returncode == 0, result.stderr
    assert "top-1" in result.stdout
