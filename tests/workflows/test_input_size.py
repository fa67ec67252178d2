"""Sizes that a model leaves free, fixed once for all that is done with it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.workflows.optimize.recipe_file import recipe_text

QUICK = ds.ProfileOptions(runs=3, warmup=1, min_seconds=0.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sizes")
    _onnx(folder / "free.onnx", {"x": ["n", 3, "h", "w"]})
    _onnx(folder / "two.onnx", {"x": ["n", 3, "h", "w"], "mask": ["n", 3, None, None]})
    rng = np.random.default_rng(0)
    np.savez(folder / "d.npz", x=rng.normal(size=(12, 16, 24, 3)).astype(np.float32))
    return folder


def _onnx(path: Path, inputs: dict[str, list[int | str | None]]) -> None:
    """Halve, double and add: only even sizes go together."""
    rng = np.random.default_rng(0)
    weights = {
        "k": rng.normal(0, 0.2, (16, 3, 3, 3)),
        "l": rng.normal(0, 0.1, (16, 16, 3, 3)),
        "by": np.array([1, 1, 2, 2]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Conv", ["a", "l"], ["b"], "second", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Resize", ["b", "", "by"], ["c"], "twice", mode="nearest"),
        helper.make_node("Add", ["a", "c"], ["y"], "sum"),
    ]
    if "mask" in inputs:
        nodes.append(helper.make_node("GlobalAveragePool", ["mask"], ["z"], "mean"))
    float_ = TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("y", float_, ["n", 16, "h", "w"])]
    outputs += [helper.make_tensor_value_info("z", float_, ["n", 3, 1, 1])] * ("mask" in inputs)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, float_, shape) for name, shape in inputs.items()],
        outputs,
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


class TestOnnx:
    def test_figures_come_with_the_size_and_not_before(self, place):
        free = ds.inspect(place / "free.onnx")
        assert free.macs is None
        assert "--input-size" in str(free)
        fixed = ds.inspect(ds.load(place / "free.onnx", input_size="16x24"))
        assert fixed.macs == 16 * 24 * 9 * 3 * 16 + 8 * 12 * 9 * 16 * 16

    def test_the_model_and_its_outputs_have_the_size(self, place):
        loaded = ds.load(place / "free.onnx", input_size=(16, 24))
        assert loaded.input_shapes == ((None, 3, 16, 24),)
        (output,) = loaded.model.graph.output
        assert [dim.dim_value for dim in output.type.tensor_type.shape.dim] == [0, 16, 16, 24]

    def test_named_inputs(self, place):
        loaded = ds.load(place / "two.onnx", input_size={"x": (16, 24), "mask": (4, 4)})
        assert loaded.input_shapes == ((None, 3, 16, 24), (None, 3, 4, 4))

    def test_a_size_that_the_network_refuses_is_a_sentence(self, place):
        with pytest.raises(InputError) as error:
            ds.load(place / "free.onnx", input_size="15x24")
        assert error.value.code == "size-refused"
        assert "15" in error.value.message

    def test_the_same_size_again_changes_nothing(self, place, tmp_path):
        first = ds.load(place / "free.onnx", input_size="16x24")
        ds.rewrite(first, output=tmp_path / "small.onnx")
        small = ds.load(tmp_path / "small.onnx", input_size="16x24")
        assert small.input_shapes == first.input_shapes
        assert not small.changed

    def test_plans_by_macs_know_them(self, place):
        model = ds.load(place / "free.onnx", input_size="16x24")
        asked = ds.PlanOptions(max_pairs=1, include=("second",))
        goals = ds.Goals(params="0.9x")
        planned = ds.plan(model, calibration=place / "d.npz", goals=goals, options=asked)
        assert planned.plan.before.macs == ds.inspect(model).macs

    def test_images_of_another_size_do_not_fit(self, place):
        with pytest.raises(InputError) as error:
            ds.inspect(ds.load(place / "free.onnx", input_size="8x8"), calibration=place / "d.npz")
        assert error.value.code == "shape-mismatch"

    def test_an_exported_file_has_the_size(self, place, tmp_path):
        words = ["export", place / "free.onnx", "-o", tmp_path / "i8.onnx", "--quantize", "int8"]
        words += ["--calibration", place / "d.npz", "--input-size", "16x24", "--json"]
        result = CliRunner().invoke(main, list(map(str, words)))
        assert result.exit_code == 0, result.output
        assert open_runtime(tmp_path / "i8.onnx").inputs[0].shape == (None, 3, 16, 24)

    def test_files_are_timed_at_a_size(self, place):
        with pytest.raises(InputError) as error:
            ds.profile(place / "free.onnx", options=QUICK)
        assert error.value.code == "free-sizes"
        found = []
        for size in ("8x8", "x=16x16"):
            (one,) = ds.profile(
                place / "free.onnx", options=ds.ProfileOptions(**vars(QUICK) | {"input_size": size})
            )
            found.append(one.macs)
        assert found[1] == 4 * found[0]
        assert one.failure == ""

    def test_data_have_a_size_already(self, place):
        asked = ds.ProfileOptions(**vars(QUICK) | {"input_size": "8x8"})
        with pytest.raises(InputError) as error:
            ds.profile(place / "free.onnx", options=asked, data=place / "d.npz")
        assert error.value.code == "size-with-data"

    @pytest.mark.parametrize("word", ["16", "16x", "16x0", "a=b"])
    def test_wrong_forms_end_with_2_and_import_nothing(self, place, word):
        words = ["inspect", str(place / "absent.keras"), "--input-size", word]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2
        assert ("absent" in result.stderr) == (word == "16")  # of a signal it is a size

    def test_optimize_makes_files_of_the_size_and_says_it_in_the_recipe(self, place, tmp_path):
        words = ["optimize", place / "free.onnx", "--data", place / "d.npz", "-o", tmp_path / "run"]
        words += ["--input-size", "16x24", "--formats", "onnx-float32", "--dry-run", "--json"]
        result = CliRunner().invoke(main, list(map(str, words)))
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["potential"]["of"] == "MACs"

        run = SimpleNamespace(
            opened=ds.load(place / "free.onnx", input_size="16x24"),
            options=ds.OptimizeOptions(),
            folder=tmp_path,
            images=SimpleNamespace(source="d.npz"),
        )
        assert tomllib.loads(recipe_text(run, None))["optimize"]["input_size"] == ["16x24"]


@pytest.fixture(scope="module")
def free(place):
    import keras

    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.Conv2D(8, 3, padding="same", name="c")],
        name="inner",
    )
    images = keras.Input((None, None, 3), name="images")
    x = keras.layers.BatchNormalization(name="norm")(inner(images))
    x = keras.layers.Lambda(lambda value: value * 2, name="double")(x)
    half = keras.layers.Conv2D(8, 3, strides=2, padding="same", name="half")(x)
    twice = keras.layers.UpSampling2D(2, name="twice")(half)
    model = keras.Model(images, keras.layers.Add(name="sum")([x, twice]), name="free")
    path = place / "free.keras"
    model.save(path)
    return path, model


class TestKeras:
    def test_it_computes_the_same_and_every_layer_knows_its_size(self, free):
        path, model = free
        loaded = ds.load(path, trust=True, input_size="16x24")
        x = np.random.default_rng(1).normal(size=(2, 16, 24, 3)).astype(np.float32)
        np.testing.assert_array_equal(
            np.asarray(loaded.model(x, training=False)), np.asarray(model(x, training=False))
        )
        assert loaded.model.output_shape == (None, 16, 24, 8)
        (first, second) = ds.inspect(loaded).convolutions
        assert (first.name, second.name) == ("c", "half")
        assert (first.macs, second.macs) == (16 * 24 * 9 * 3 * 8, 8 * 12 * 9 * 8 * 8)

    def test_what_its_layers_refuse_is_a_sentence(self, free):
        with pytest.raises(InputError) as error:
            ds.load(free[0], trust=True, input_size="15x24")
        assert error.value.code == "size-refused"

    def test_files_of_free_size_have_no_arena(self, free, tmp_path):
        for name, size in (("free", None), ("fixed", "16x24")):
            model = ds.load(free[0], trust=True, input_size=size)
            ds.export(model, tmp_path / f"{name}.tflite")
        with pytest.raises(InputError) as error:
            ds.profile(tmp_path / "free.tflite", device="mcu")
        assert error.value.code == "free-sizes"
        (found,) = ds.profile(tmp_path / "fixed.tflite", device="mcu")
        assert found.estimate.arena_kib > 16 * 24 * 8 * 4 / 1024
