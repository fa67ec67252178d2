"""ONNX models by other people in Keras, saved, on TFLite, and back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx_graphs import run

from dsconvert.base.errors import InputError
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.models.onnx_import import import_onnx

MODELS = {
    "resnet8_tf2onnx_op13": {},
    "resnet8_constnodes": {},
    "resnet8_external/model": {},
    "ultraface_rfb_320": {},
    "yunet_n_dynamic": {},
    "mnist_cntk_op8": {},
    "squeezenet_fp16": {},
    "winml_pytorch_tutorial_cnn": {},
    "qonnx_espcn_subpixel_float": {},
    "portrait_sinet": {"Permute": 12},
    "vnn_oval21_cifar_base": {},
    "vnn_collins_rul_full20": {},
}
"""How many transposes each needs: the shuffles of SINet, none else."""
REFUSED = {
    "resnet8_int8_qdq": "DequantizeLinear",
    "silero_vad_16k_op15": "If ",
    "superres_espcn_prepost_op18": "DecodeImage",
    "qonnx_espcn_subpixel_quant": "Quant",
}


def images(imported, size: int = 64, count: int = 2) -> list[np.ndarray]:
    """Random inputs in ONNX's layout, float32 in 0 … 1."""
    rng = np.random.default_rng(7)
    made = []
    for tensor, axes in zip(imported.model.inputs, imported.input_axes, strict=True):
        shape = (count, *(size if n is None else n for n in tensor.shape[1:]))
        made.append(np.transpose(rng.random(shape, np.float32), np.argsort(axes)))
    return made


def in_keras(imported, model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """A Keras model's outputs in ONNX's layout."""
    stored = [np.transpose(x, axes) for x, axes in zip(inputs, imported.input_axes, strict=True)]
    packed = keras.tree.pack_sequence_as(model.input, stored)
    given = keras.tree.flatten(model(packed, training=False))
    return [
        np.transpose(np.asarray(y), np.argsort(axes))
        for y, axes in zip(given, imported.output_axes, strict=True)
    ]


def in_onnx(model: onnx.ModelProto, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """ONNX Runtime's outputs, sample by sample."""
    half = model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    dtype = np.float16 if half else np.float32
    each = [run(model, [x[i : i + 1].astype(dtype) for x in inputs]) for i in range(len(inputs[0]))]
    return [np.concatenate(parts) for parts in zip(*each, strict=True)]


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference in units of the largest value.

    ONNX Runtime's sigmoid is exact to two units in the last place of 1, however small the result.
    """
    apart = np.abs(ours.astype(float) - theirs.astype(float)).max() - 2 * np.finfo(np.float32).eps
    return float(max(apart, 0) / np.abs(theirs.astype(float)).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_imported_saved_exported_and_written_back(name: str, shared: Path, tmp_path: Path) -> None:
    path = shared / "models" / "onnx" / f"{name}.onnx"
    imported = import_onnx(path)
    assert imported.notes == ()
    assert all(tensor.shape[0] is None for tensor in imported.model.inputs)
    kinds = Counter(type(operation).__name__ for operation in imported.model.operations)
    moved = {k: n for k, n in kinds.items() if k in ("Permute", "Transpose")}
    assert moved == MODELS[name]

    inputs = images(imported)
    expected = in_onnx(imported.source, inputs)
    mine = in_keras(imported, imported.model, inputs)
    tolerance = 1e-2 if "fp16" in name else 1e-4
    for ours, theirs in zip(mine, expected, strict=True):
        assert ours.shape == theirs.shape
        assert relative(ours, theirs) < tolerance

    imported.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for ours, again in zip(mine, in_keras(imported, loaded, inputs), strict=True):
        np.testing.assert_array_equal(ours, again)

    stored = [np.transpose(x, axes) for x, axes in zip(inputs, imported.input_axes, strict=True)]
    export(loaded, tmp_path / "model.tflite", verification=stored)
    given = open_runtime(tmp_path / "model.tflite").predict(stored)
    for ours, theirs, axes in zip(given, mine, imported.output_axes, strict=True):
        assert relative(np.transpose(ours, np.argsort(axes)), theirs) < 1e-4

    # Unchanged, nothing changes; changed, ONNX Runtime gives what Keras gives.
    assert imported.write_back(loaded).SerializeToString() == imported.source.SerializeToString()
    for weight in loaded.trainable_weights:
        weight.assign(weight * 0.97)
    written = imported.write_back(loaded)
    onnx.checker.check_model(written)
    changed = in_keras(imported, loaded, inputs)
    assert any(relative(a, b) > 1e-3 for a, b in zip(changed, mine, strict=True))
    for ours, theirs in zip(changed, in_onnx(written, inputs), strict=True):
        assert relative(ours, theirs) < 10 * tolerance


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_what_it_has(name: str, shared: Path) -> None:
    with pytest.raises(InputError, match=REFUSED[name]) as caught:
        import_onnx(shared / "models" / "onnx" / f"{name}.onnx")
    assert caught.value.hint


@pytest.mark.parametrize("name", ["mnist_cntk_op8", "squeezenet_fp16", "yunet_n_dynamic"])
def test_every_stored_parameter_trains(name: str, shared: Path) -> None:
    """Biases that are an Add of their own (CNTK), and weights behind a Reshape, included."""
    imported = import_onnx(shared / "models" / "onnx" / f"{name}.onnx")
    stored = sum(
        int(np.prod(tensor.dims))
        for tensor in imported.source.graph.initializer
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        and np.prod(tensor.dims) > 4  # not the scales of a Resize
    )
    trained = sum(int(np.prod(weight.shape)) for weight in imported.model.trainable_weights)
    assert trained >= 0.999 * stored > 0
