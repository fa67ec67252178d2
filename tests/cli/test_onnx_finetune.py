"""ONNX files that are fine-tuned keep their graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from commands import call
from onnx import numpy_helper
from onnx_commands import (
    FIT,
    done,
    filled,
    filter_of_images,
    names,
    refused,
    run,
    sha,
    stored,
)

from dsconvert.deploy.exporting.metadata import read_metadata
from dsconvert.workflows import onnx_round_trip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("cli_onnx"))


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
