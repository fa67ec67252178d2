"""The commands rewrite and inspect on .onnx files: what they write, refuse, print and import."""

import json
import subprocess
import sys

import numpy as np
import pytest
from onnx_native import X, assert_same_outputs, images, outputs, session
from rewrite_commands import call, filled, network, refused, save_external


@pytest.fixture
def folder(tmp_path):
    return filled(tmp_path)


class TestRewrite:
    @pytest.mark.parametrize("mode", [[], ["--calibration", "data.npz", "--samples", "15"]])
    def test_writes_a_model_beside(self, folder, mode):
        words = [folder / word if word.endswith("npz") else word for word in mode]
        result = call("rewrite", folder / "model.onnx", "--json", *words)

        assert result.exit_code == 0, result.stderr
        record = json.loads(result.stdout)
        path = folder / "model_ds.onnx"
        assert record["output"] == str(path)
        assert record["size_bytes"] == path.stat().st_size
        assert {row["name"]: row.get("pairs") for row in record["report"]["layers"]} == {
            "a": 1,
            "b": 1,
        }
        assert outputs(path, X)[0].shape == (2, 40)
        assert not (folder / "model_ds.onnx.data").exists()

    def test_at_full_rank_it_is_the_same(self, folder):
        call("rewrite", folder / "model.onnx", "--pairs", 50, "-o", folder / "new.onnx")
        assert_same_outputs(folder / "model.onnx", folder / "new.onnx", X)

    def test_as_text(self, folder):
        result = call("rewrite", folder / "model.onnx", "-q")
        assert "2 of 2 convolutions rewritten by svd" in result.stdout
        assert result.stderr == ""

    def test_never_over_its_input(self, folder):
        path = folder / "model.onnx"
        text = refused(folder, "rewrite", path, "-o", path, "--overwrite")
        assert "the model itself" in text
        (folder / "link.onnx").symlink_to(path)
        refused(folder, "rewrite", path, "-o", folder / "link.onnx", "--overwrite")

    def test_never_over_its_external_data(self, folder):
        """The weights of the model are where those of the result would go."""
        place = folder / "external"
        save_external(network().model(), place / "other.onnx", "new.onnx.data")
        for path in ("new.onnx", "new.onnx.data"):
            text = refused(
                folder, "rewrite", place / "other.onnx", "-o", place / path, "--overwrite"
            )
        save_external(network().model(), place / "third.onnx", "third_ds.onnx")
        text = refused(folder, "rewrite", place / "third.onnx", "--overwrite")
        assert "holds weights of the model itself" in text

    def test_never_over_what_is_there(self, folder):
        (folder / "new.onnx").write_bytes(b"mine")
        words = ("rewrite", folder / "model.onnx", "-o", folder / "new.onnx")
        assert "--overwrite" in refused(folder, *words)
        assert call(*words, "--overwrite").exit_code == 0
        session(folder / "new.onnx")

    def test_another_ending(self, folder):
        assert "new.onnx" in refused(
            folder, "rewrite", folder / "model.onnx", "-o", folder / "new.keras"
        )

    @pytest.mark.parametrize(
        "words",
        [
            ["--include", "nothing"],
            ["--pairs", "1", "--calibration", "none.npz"],
            ["--calibration", "short.npz"],
            ["--calibration", "wrong.npz"],
            ["--calibration", "nan.npz"],
            ["--calibration", "small.npz"],
            ["--method", "data"],
        ],
    )
    def test_what_cannot_be_done(self, folder, words):
        np.savez(folder / "short.npz", x=X)
        np.savez(folder / "wrong.npz", x=images(20, 6, 9))
        np.savez(folder / "small.npz", x=images(20, 6, 4, 10))
        np.savez(folder / "nan.npz", x=np.full((20, 6, 9, 10), np.nan, np.float32))
        words = [folder / word if word.endswith(".npz") else word for word in words]
        refused(folder, "rewrite", folder / "model.onnx", *words)

    def test_nothing_to_rewrite(self, folder):
        result = call("rewrite", folder / "model.onnx", "--exclude", "*", "--json")
        assert result.exit_code == 0
        assert_same_outputs(folder / "model.onnx", folder / "model_ds.onnx", X, tolerance=0)


class TestInspect:
    def test_json(self, folder):
        result = call("inspect", folder / "external" / "model.onnx", "--json")
        record = json.loads(result.stdout)

        assert [row["name"] for row in record["convolutions"]] == ["a", "b"]
        assert record["macs"] == 90 * 9 * (6 * 12 + 12 * 16) + 40 * 16
        assert record["params"] == sum(
            int(np.prod(t.dims)) for t in network().model().graph.initializer
        )

    def test_with_data(self, folder):
        words = ("inspect", folder / "model.onnx", "--calibration", folder / "data.npz", "--json")
        record = json.loads(call(*words).stdout)

        assert record["calibration_images"] == 20
        for row in record["convolutions"]:
            errors = [option["data_error"] for option in row["options"]]
            assert errors == sorted(errors, reverse=True)
            assert errors[0] > 0


@pytest.mark.parametrize(
    "words",
    [
        ["rewrite", "model.onnx", "--overwrite"],
        ["rewrite", "model.onnx", "--overwrite", "--calibration", "data.npz"],
        ["inspect", "model.onnx", "--calibration", "data.npz"],
    ],
)
def test_neither_tensorflow_nor_keras_is_imported(folder, words):
    words = [str(folder / word) if "." in word else word for word in words]
    code = f"""
import sys
from dsconvert.cli import main
try:
    main({words!r})
except SystemExit as stop:
    assert not stop.code, stop.code
print(sorted(set(sys.modules) & {{"tensorflow", "keras", "tf2onnx", "ai_edge_litert"}}))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"
