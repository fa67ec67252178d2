"""ONNX files imported as Keras models, and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import call
from onnx import helper
from onnx_commands import (
    FIT,
    conv,
    done,
    filled,
    model_of,
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
