"""OpenVINO runs the same files as the other runtimes do, to the same values."""

import json
import sys

import numpy as np
import pytest
from board_cases import case_of, save_block
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper, save
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.converter.core.types import Choice
from dsconvert.deploy.costs import Target, measured_costs
from dsconvert.deploy.profiling.profile import profile
from dsconvert.deploy.runtimes import registry
from dsconvert.deploy.runtimes.openvino import OpenVinoSession
from dsconvert.deploy.runtimes.registry import open_runtime, runtime_for
from dsconvert.workflows.evaluate import evaluate
from dsconvert.workflows.verify import verify

pytest.importorskip("openvino")
KINDS = [("litert", "float32"), ("litert", "int8"), ("ort", "float32"), ("ort", "int8")]
PRODUCTS = 8 * 9


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {kind: save_block(folder / "-".join(kind), *kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_the_default_does(files, kind):
    path = files[kind]
    case = case_of(path)
    usual, ours = open_runtime(path), open_runtime(path, runtime="openvino")
    assert usual.runtime.name == kind[0]
    assert (ours.inputs, ours.outputs) == (usual.inputs, usual.outputs)
    (expected,), (found,) = usual.predict(case.inputs), ours.predict(case.inputs)
    prepared = ours.prepare(case.inputs)
    prepared.run()
    np.testing.assert_array_equal(prepared.read()[0], found)
    assert np.ptp(expected) > 0.1
    if kind[1] == "int8":  # sums are exact; scaling them may round the other way, by one step
        step = usual.outputs[0].scale or np.diff(np.unique(expected)).min()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1.01 * step)
    else:  # bfloat16, which it prefers on some processors, would be 2⁻⁹ of the sum away
        bound = PRODUCTS * float(np.finfo(np.float32).eps) * max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def save_free(path, kind=TensorProto.FLOAT):
    """A product of free batch with two outputs."""
    weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w")
    values = [
        helper.make_tensor_value_info(name, kind, ["n", size])
        for name, size in (("x", 4), ("y", 3), ("z", 3))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    if kind != TensorProto.FLOAT:
        nodes = [helper.make_node("Identity", ["x"], [name]) for name in ("y", "z")]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], [weight])
    opset = helper.make_opsetid("", 17)
    save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def test_free_sizes_and_names_of_outputs(tmp_path):
    session = open_runtime(save_free(tmp_path / "free.onnx"), runtime="openvino")
    assert (session.input_shapes, session.output_names) == (((None, 4),), ("y", "z"))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    y, z = session.predict([x])
    product = x @ np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_allclose(y, product, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(z, np.maximum(y, 0))
    assert session.predict([x[:2]])[0].shape == (2, 3)


def test_refusals(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    for kind, said in ((TensorProto.STRING, "string"), (TensorProto.BFLOAT16, "bf16")):
        path = save_free(tmp_path / f"{said}.onnx", kind)
        with pytest.raises(InputError, match=f"x holds {said}; only numeric"):
            open_runtime(path, runtime="openvino")
    with refuses("does-not-load"):
        open_runtime(broken, runtime="openvino")
    with pytest.raises(InputError, match=r"adb runs \.tflite files only, got runtime openvino"):
        Target(device="adb", runtime="openvino")


def test_not_installed_it_is_one_sentence(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    path = files["ort", "float32"]
    assert runtime_for(path).name == "ort"
    for run in (
        lambda: open_runtime(path, runtime="openvino"),
        lambda: profile([path], runtime="openvino"),
        lambda: measured_costs(Target(runtime="openvino")),
    ):
        with refuses("missing-extra") as refused:
            run()
        assert "dsconvert[openvino]" in refused.value.hint
    result = CliRunner().invoke(main, ["profile", str(path), "--runtime", "openvino"])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_one_file_in_two_runtimes_in_turns(files):
    found = profile(
        [files["ort", "float32"]],
        runtime=["ort", "openvino"],
        runs=10,
        min_seconds=0,
        per_op=True,
    )
    assert [one.runtime for one in found] == ["ONNX Runtime", "OpenVINO"]
    first, second = found
    for one in found:
        assert one.failure == ""
        assert len(one.latency.samples_ms) == 10
        assert one.startup.load_ms > 0
        assert sum(op.share for op in one.operators) == pytest.approx(1)
        assert [op.kind for op in one.operators].count("convolution") == 1
    assert first.comparison is None
    assert second.comparison.baseline == first.path


def test_a_wrong_answer_has_no_latency(files, monkeypatch):
    real = OpenVinoSession._decoded
    monkeypatch.setattr(
        OpenVinoSession,
        "_decoded",
        lambda self, arrays: tuple(1.01 * a for a in real(self, arrays)),
    )
    first, second = profile(
        [files["ort", "float32"]], runtime=["ort", "openvino"], runs=1, min_seconds=0
    )
    assert first.latency is not None
    assert second.latency is None
    assert second.failure.startswith("a wrong answer: y: SQNR 40.0 dB")
    assert second.failure.endswith("(against ONNX Runtime)")


def test_each_file_in_the_runtimes_that_run_it(files):
    tflite, onnx = files["litert", "int8"], files["ort", "float32"]
    found = profile([tflite, onnx], runtime=["litert", "openvino"], runs=1, warmup=0, min_seconds=0)
    assert [(one.path, one.runtime) for one in found] == [
        (str(tflite), "LiteRT"),
        (str(tflite), "OpenVINO"),
        (str(onnx), "OpenVINO"),
    ]
    assert not any(one.failure for one in found)
    with pytest.raises(InputError, match=r"ort runs \.onnx files only, there is none"):
        profile([tflite], runtime=["litert", "ort"])


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_costs_of_blocks(tmp_path, precision):
    block = Block(input_size=(8, 8), in_channels=8, out_channels=8, kernel_size=(3, 3))
    target = Target(runtime="openvino", precision=precision)
    costs = measured_costs(target, cache=tmp_path, seconds=0.01)
    assert costs.target.startswith(f"OpenVINO {precision}, 1 thread, ")
    (found,) = costs.costs([(block, [Choice(pairs=1, order="depthwise-first")])])
    assert found.original.value > 0
    assert found.choices[0].value > 0


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "images.npz"
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    np.savez(path, x_test=x, y_test=np.zeros(16, np.int64))
    return path


def test_verify_holds_a_file_in_it_against_the_default(tmp_path):
    path = str(save_free(tmp_path / "free.onnx"))
    result = CliRunner().invoke(main, ["verify", path, path, "--runtime", "openvino", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["passed"]
    assert found["remarks"][-1].startswith("free.onnx runs in OpenVINO ")
    result = CliRunner().invoke(main, ["verify", path, path, "--json"])
    assert not any("runs in" in text for text in json.loads(result.stdout)["remarks"])


def test_evaluate_runs_the_files_in_it_and_the_reference_as_ever(tmp_path, images, monkeypatch):
    opened = []
    real = registry.open_runtime

    def open_runtime(path, **options):
        opened.append(real(path, **options))
        return opened[-1]

    monkeypatch.setattr(registry, "open_runtime", open_runtime)
    path = save_free(tmp_path / "free.onnx")
    found = evaluate(path, str(images), reference=path, runtime="openvino")
    assert {session.runtime.name for session in opened} == {"openvino", "ort"}
    assert found.samples == 16
    assert max(one.relative_error for one in found.fidelity) < 1e-5


def test_keras_models_run_in_keras(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"")
    for run in (
        lambda path: verify(path, path, runtime="openvino"),
        lambda path: evaluate(path, np.zeros((1, 4)), runtime="openvino"),
    ):
        with refuses("runtime-not-used"):
            run(tmp_path / "model.keras")
