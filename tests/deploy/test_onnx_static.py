"""Static int8 quantization of .onnx files."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx_twin import onnx_twin
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import compare_output
from dsconvert.deploy.exporting.onnx_reduce import quantize_dynamic
from dsconvert.deploy.exporting.onnx_static import quantize_static


@pytest.fixture(scope="module")
def images(digits):
    return np.ascontiguousarray(digits[0].transpose(0, 3, 1, 2))


@pytest.fixture(scope="module", params=["N", 1, 4], ids=["free", "one", "four"])
def files(request, digits_cnn, images, tmp_path_factory):
    """The float32 file and the int8 one; the batch is free or fixed."""
    folder = tmp_path_factory.mktemp("static")
    plain, path = folder / "plain.onnx", folder / "int8.onnx"
    onnx.save(onnx_twin(digits_cnn, request.param), plain)
    quantize_static(plain, path, [images[:102]])  # 102 is no multiple of 4
    return plain, path


def run(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    size = given.shape[0] if isinstance(given.shape[0], int) else len(x)
    parts = [session.run(None, {given.name: x[i : i + size]})[0] for i in range(0, len(x), size)]
    return np.concatenate(parts)


def test_the_outputs_stay_near(files, images, digits):
    plain, path = files
    x, labels = images[1200:1600], digits[1][1200:1600]
    expected, quantized = run(plain, x), run(path, x)
    assert compare_output("probs", expected, quantized).sqnr_db > 20
    accuracies = [np.mean(y.argmax(axis=1) == labels) for y in (expected, quantized)]
    assert abs(accuracies[0] - accuracies[1]) < 0.02


def test_it_is_qdq_with_a_scale_per_channel(files):
    _, path = files
    model = onnx.load(path)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["QuantizeLinear"] > 3
    assert kinds["DequantizeLinear"] > kinds["QuantizeLinear"]  # weights and biases as well
    assert kinds["Conv"] == 3
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        weights, scale, zero = (held[name] for name in makers[node.input[1]].input)
        assert weights.dtype == np.int8
        assert scale.shape == weights.shape[:1]
        assert not zero.any()
        _, _, zero = (held.get(name) for name in makers[node.input[0]].input)
        assert zero.dtype == np.uint8


def test_ranges_come_from_all_calibration_images(digits_cnn, images, tmp_path):
    plain = tmp_path / "plain.onnx"
    onnx.save(onnx_twin(digits_cnn), plain)
    scales = []
    loud = images[:40].copy()
    loud[-1] *= 10  # only the last one
    for name, x in (("quiet", images[:40]), ("loud", loud)):
        quantize_static(plain, tmp_path / f"{name}.onnx", [x])
        model = onnx.load(tmp_path / f"{name}.onnx")
        held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        (first,) = (n for n in model.graph.node if list(n.input)[:1] == ["image"])
        scales.append(float(held[first.input[1]]))
    assert scales[1] == pytest.approx(10 * scales[0], rel=0.1)


@pytest.mark.parametrize("method", ["minmax", "mse", "entropy", "percentile"])
@pytest.mark.parametrize("first", ["volume", "image"])
def test_a_single_number_beside_the_images(first, method, digits_cnn, images, tmp_path):
    """Such inputs have no samples in common: they are those of one run."""
    plain = onnx_twin(digits_cnn)
    volume = helper.make_tensor_value_info("volume", onnx.TensorProto.FLOAT, [])
    plain.graph.input.insert(0 if first == "volume" else 1, volume)
    for other in plain.graph.node:
        for place, name in enumerate(other.input):
            other.input[place] = "loud" if name == "image" else name
    plain.graph.node.insert(0, helper.make_node("Mul", ["image", "volume"], ["loud"]))
    onnx.save(plain, tmp_path / "plain.onnx")
    given = {"image": images[:64], "volume": np.array(0.5, np.float32)}

    inputs = [given[value.name] for value in plain.graph.input]
    quantize_static(tmp_path / "plain.onnx", tmp_path / "int8.onnx", inputs, method=method)

    expected, quantized = (
        onnxruntime.InferenceSession(tmp_path / f"{name}.onnx").run(None, given)[0]
        for name in ("plain", "int8")
    )
    assert compare_output("probs", expected, quantized).sqnr_db > 15


def test_streams_and_loggers_are_left_alone(digits_cnn, images, tmp_path, capfd, caplog):
    plain = tmp_path / "plain.onnx"
    onnx.save(onnx_twin(digits_cnn), plain)
    root = logging.getLogger()
    before = root.level, list(root.handlers), logging.root.manager.disable
    with caplog.at_level(logging.INFO):
        level = root.level
        quantize_static(plain, tmp_path / "int8.onnx", [images[:20]])
        assert root.level == level
    assert (root.level, list(root.handlers), logging.root.manager.disable) == before
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_nothing_but_the_file_is_left(digits_cnn, images, tmp_path):
    plain = tmp_path / "plain.onnx"
    onnx.save(onnx_twin(digits_cnn), plain)
    quantize_static(plain, tmp_path / "int8.onnx", [images[:20]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.onnx", "plain.onnx"]
    assert (tmp_path / "int8.onnx").stat().st_size < plain.stat().st_size


def test_a_file_that_cannot_be_quantized(tmp_path, monkeypatch, digits_cnn, images):
    import onnxruntime.quantization

    def fails(*args, **kwargs):
        raise ValueError("no such thing\nand more")

    plain = tmp_path / "plain.onnx"
    onnx.save(onnx_twin(digits_cnn), plain)
    monkeypatch.setattr(onnxruntime.quantization, "quantize_static", fails)
    level = logging.getLogger().level
    with pytest.raises(InputError) as caught:
        quantize_static(plain, tmp_path / "int8.onnx", [images[:20]])
    assert caught.value.code == "not-quantizable"
    assert caught.value.message.endswith(": no such thing")
    assert "float32" in caught.value.hint
    assert logging.getLogger().level == level


def test_a_full_disk_of_temporary_files_is_no_corrupt_model(digits_cnn, tmp_path, monkeypatch):
    """The quantizer's shape inference writes what there is room for, and then reads it."""
    source = tmp_path / "plain.onnx"
    onnx.save(onnx_twin(digits_cnn, "N"), source)
    infer = onnx.shape_inference.infer_shapes_path

    def half(model, output, *more):
        infer(model, output, *more)
        os.truncate(output, Path(output).stat().st_size // 2)

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("onnx.shape_inference.infer_shapes_path", half)
    with refuses("not-quantizable"):  # there is room: it is something else
        quantize_dynamic(source, tmp_path / "int8.onnx")
    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with refuses("not-writable") as caught:
        quantize_dynamic(source, tmp_path / "int8.onnx")
    assert "TMPDIR" in caught.value.hint
