"""ONNX files through the commands: opening, evaluation, and their data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import call
from onnx import helper
from onnx_commands import (
    FIT,
    FLOAT,
    done,
    filled,
    filter_of_images,
    refused,
    sha,
    stored,
)

from dsconvert.workflows import model_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("cli_onnx"))


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
        refused(command.format("saved_model"), folder, 2, "variables.index", "download")

    @pytest.mark.parametrize("name", ["import", "export", "inspect"])
    def test_damaged_files(self, folder: Path, name: str) -> None:
        (folder / "damaged.onnx").write_bytes(b"\x08\x07garbage")
        refused(f"{name} damaged.onnx", folder, 2, "damaged.onnx")
        refused(f"{name} absent.onnx", folder, 2, "absent.onnx: no such file")


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

    @pytest.mark.parametrize("command", ["evaluate", "verify"])
    def test_what_was_moved_is_said_once(self, folder: Path, command: str) -> None:
        result = call(f"{command} model.onnx fixed.onnx {FIT}", folder)
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
