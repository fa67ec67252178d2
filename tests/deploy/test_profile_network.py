"""One network as four files: what they compute, what their operators take, what is printed."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.profiling import model_stats as statistics
from dsconvert.deploy.profiling.model_stats import model_stats
from dsconvert.deploy.profiling.profile import profile
from dsconvert.deploy.runner import engines, litert_profiler, machine
from dsconvert.deploy.runner.loaded import OperatorRuns

SHAPE = (1, 24, 20, 3)
# By hand: 3×3 stem at stride 2, depthwise 3×3, pointwise, transposed 2×2 at stride 2, dense.
MACS = {
    "convolution": 12 * 10 * 27 * 8,
    "depthwise": 12 * 10 * 9 * 8,
    "pointwise": 12 * 10 * 8 * 12,
    "transposed": 12 * 10 * 12 * 4 * 4,
    "dense": 4 * 10,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(SHAPE[1:], name="image"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2D(12, 1, activation="relu"),
            layers.Conv2DTranspose(4, 2, strides=2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    folder = tmp_path_factory.mktemp("network")
    model.save(folder / "net.keras")
    images = np.random.default_rng(0).normal(size=(16, *SHAPE[1:])).astype(np.float32)
    for suffix in ("tflite", "onnx"):
        export(model, folder / f"net.{suffix}")
        export(model, folder / f"int8.{suffix}", quantize="int8", calibration=images)
    return folder


FILES = ("net.tflite", "int8.tflite", "net.onnx", "int8.onnx")


@pytest.mark.parametrize("name", FILES)
class TestFacts:
    def test_macs_are_those_of_the_network(self, folder: Path, name: str) -> None:
        facts = model_stats(folder / name, [SHAPE])
        assert facts.macs == sum(MACS.values())
        by_kind = dict.fromkeys(("convolution", "depthwise", "pointwise", "dense", "other"), 0)
        for op in facts.ops:
            by_kind[op.kind] += op.macs
        assert by_kind == {
            "convolution": MACS["convolution"] + MACS["transposed"],
            "depthwise": MACS["depthwise"],
            "pointwise": MACS["pointwise"],
            "dense": MACS["dense"],
            "other": 0,
        }

    @pytest.mark.slow
    def test_inspect_says_the_same(self, folder: Path, name: str) -> None:
        from dsconvert.converter.inspect import inspect
        from dsconvert.models.loading import load

        assert inspect(load(folder / "net.keras").model).macs == sum(MACS.values())
        assert model_stats(folder / name, [SHAPE]).macs == sum(MACS.values())

    def test_weights_and_activations(self, folder: Path, name: str) -> None:
        """The transposed convolution reads 120 × 12 values and writes 480 × 4: the most."""
        facts = model_stats(folder / name, [SHAPE])
        size = 4 if name.startswith("net") else 1
        if name.endswith(".tflite"):
            assert facts.activation_bytes == size * (120 * 12 + 480 * 4)
        kernels = 27 * 8 + 9 * 8 + 8 * 12 + 12 * 4 * 4 + 4 * 10
        assert size * kernels < facts.weight_bytes < (folder / name).stat().st_size


@pytest.mark.slow
def test_sizes_that_a_file_leaves_free_are_those_of_the_inputs(folder: Path) -> None:
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, padding="same")])
    for suffix in ("tflite", "onnx"):
        path = folder / f"free.{suffix}"
        export(model, path)
        for height, width in ((8, 8), (16, 8)):
            facts = model_stats(path, [(1, height, width, 3)])
            assert facts.macs == height * width * 27 * 4


def resized_twice(path: Path) -> Path:
    """Write a file that resizes to twice what came in: LiteRT finds these sizes as it runs."""
    import tensorflow as tf

    kernel = tf.constant(np.ones((3, 3, 2, 4), np.float32))

    @tf.function(input_signature=[tf.TensorSpec((1, None, None, 2))])
    def twice(images: tf.Tensor) -> tf.Tensor:
        larger = tf.image.resize(images, 2 * tf.shape(images)[1:3], "nearest")
        return tf.nn.conv2d(larger, kernel, 1, "SAME")

    converter = tf.lite.TFLiteConverter.from_concrete_functions([twice.get_concrete_function()])
    path.write_bytes(converter.convert())
    return path


def test_sizes_that_are_known_when_it_runs_are_counted(tmp_path: Path) -> None:
    facts = model_stats(resized_twice(tmp_path / "twice.tflite"), [(1, 8, 6, 2)])
    assert facts.macs == 16 * 12 * 9 * 2 * 4
    assert facts.activation_bytes == 4 * 16 * 12 * (2 + 4)


def test_a_file_that_ends_its_process_is_not_run_for_its_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise InputError(f"{path.name} ends its process.", code="file-crashes-runtime")

    monkeypatch.setattr(statistics, "check_runs_apart", refuse)
    facts = model_stats(resized_twice(tmp_path / "twice.tflite"), [(1, 8, 6, 2)])
    assert facts.macs == "unavailable: twice.tflite ends its process."


def test_sizes_that_an_old_graph_computes_are_followed(tmp_path: Path) -> None:
    """PyTorch's exporter spells x.reshape(x.size(0), -1, 2) so; inference gave up there."""
    import onnx
    from onnx_nets import floats, graph, node

    nodes = [
        node("Conv", "x w", "a", pads=[1] * 4),
        node("Shape", "a", "shape"),
        node("Gather", "shape first", "batch"),
        node("Unsqueeze", "batch", "one", axes=[0]),
        node("Concat", "one rest", "sizes", axis=0),
        node("Reshape", "a sizes", "y"),
        node("Relu", "y", "z"),
    ]
    weights = {"w": floats(4, 3, 3, 3), "first": np.int64(0), "rest": np.int64([-1, 2])}
    onnx.save(graph(nodes, (1, 3, 8, 6), "z", opset=9, **weights), tmp_path / "m.onnx")
    facts = model_stats(tmp_path / "m.onnx", [(1, 3, 8, 6)])
    assert facts.ops[-1].bytes == 2 * 4 * 8 * 6 * 4
    assert facts.activation_bytes == 4 * 8 * 6 * (4 + 4)


@pytest.mark.parametrize("name", FILES)
def test_operators_of_either_runtime(folder: Path, name: str) -> None:
    (one,) = profile([folder / name], runs=5, min_seconds=0, per_op=True)
    assert not isinstance(one.operators, str), one.operators
    assert sum(op.share for op in one.operators) == pytest.approx(1)
    counts = {kind: sum(op.kind == kind for op in one.operators) for kind in ("depthwise", "dense")}
    assert counts == {"depthwise": 1, "dense": 1}
    assert sum(op.kind == "pointwise" for op in one.operators) == 1
    assert sum(op.kind == "convolution" for op in one.operators) == 2
    assert not any(op.kind == "unknown" for op in one.operators)
    total = sum(op.p50_ms for op in one.operators)
    # Together about as long as an invocation: profilers slow small operators, never five times.
    assert one.latency.min_ms / 5 < total < 5 * one.latency.p90_ms


def test_figures_of_a_file(folder: Path) -> None:
    (one,) = profile([folder / "net.tflite"], runs=5, min_seconds=0)
    assert one.macs == sum(MACS.values())
    assert one.gmacs_per_s == pytest.approx(one.macs / one.latency.p50_ms / 1e6)
    assert one.operators == ()
    assert one.device.name == "host"
    assert one.device.runtimes["litert"] == one.runtime_version
    assert one.device.cores == os.cpu_count()


def test_a_profiler_that_is_missing_is_said(folder: Path, monkeypatch) -> None:
    asked = OperatorRuns(
        str(folder / "net.tflite"), ["x"], [np.zeros((2, 2), np.float32)], 1, 1, ""
    )
    with pytest.raises(ValueError, match="sizes that the file stores"):
        engines.time_operators("litert", asked)
    monkeypatch.setattr(litert_profiler.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(litert_profiler.Unavailable, match="brings no library"):
        litert_profiler.library()


def test_xnnpack_is_noticed_and_missed(folder: Path, monkeypatch) -> None:
    litert = engines.load("litert")
    plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    without = SimpleNamespace(
        Interpreter=partial(litert.Interpreter, experimental_op_resolver_type=plain)
    )
    said = []
    for module in (litert, without):
        loaded = engines.RUNTIMES["litert"].open(module, str(folder / "net.tflite"), 1)
        loaded.prepare([np.zeros(SHAPE, np.float32)])
        said.append(loaded.notes())
    assert said == [
        [],
        ["XNNPACK took none of its operators over: LiteRT's own kernels were timed"],
    ]


class TestCommand:
    def run(self, *words: object) -> object:
        return CliRunner().invoke(main, ["profile", *map(str, words), "--runs", "3"])

    @pytest.mark.slow
    def test_every_figure_is_printed(self, folder: Path) -> None:
        quick = ("--min-seconds", "0", "--per-op", "--cpus", machine.usable_cpus()[0])
        result = self.run(folder / "net.tflite", folder / "net.onnx", *quick)
        assert result.exit_code == 0, result.output
        for text in ("against the first", "GMAC/s", "activations", "p95", "std"):
            assert text in result.stdout
        assert "thread on core" in result.stdout
        assert result.stdout.count("while profiled: convolution") == 2
        assert "depthwise" in result.stdout
        assert "pointwise" in result.stdout

    def test_json_is_what_the_schema_says(self, folder: Path) -> None:
        quick = ("--min-seconds", "0", "--per-op", "--json")
        result = self.run(folder / "net.tflite", folder / "int8.onnx", *quick)
        assert result.exit_code == 0, result.output
        schema = json.loads(SCHEMA.read_text())
        printed = json.loads(result.stdout)
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(printed, schema)
        del printed[0]["sha256"]
        with pytest.raises(jsonschema.ValidationError, match="'sha256' is a required property"):
            jsonschema.validate(printed, schema)


SCHEMA = Path(__file__).parents[2] / "docs" / "schema" / "measurement-1.json"


def test_the_schema_is_current() -> None:
    from dsconvert.deploy.profiling.schema import measurement_schema

    assert _ordered(SCHEMA.read_text()) == _ordered(measurement_schema()), (
        "write it anew: python -m dsconvert.deploy.profiling.schema > "
        "docs/schema/measurement-1.json"
    )


def _ordered(schema: str) -> Any:
    """Read a schema; msgspec's releases differ in the order of the alternatives."""

    def hook(read: dict[str, Any]) -> dict[str, Any]:
        if "anyOf" in read:
            read["anyOf"] = sorted(read["anyOf"], key=str)
        return read

    return json.loads(schema, object_hook=hook)
