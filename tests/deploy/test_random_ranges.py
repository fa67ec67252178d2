"""Without data a file may pass on images of 0 … 255 where noise says too little."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
from onnx_graphs import run
from onnx_nets import floats, graph, node
from refusals import refuses

import dsconvert as ds
from dsconvert.base.errors import GateFailed, InputError
from dsconvert.base.fidelity import compare_outputs
from dsconvert.deploy.exporting import onnx_reduce, random_ranges
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.onnx_prepare import prepared
from dsconvert.deploy.exporting.onnx_source import read_onnx
from dsconvert.deploy.runtimes.samples import first_samples
from dsconvert.deploy.verification.telling_inputs import telling_inputs


def for_bright_images(folder, brightness=200):
    """What a pattern adds is taken away again, but for its rounding: more than numbers around 0."""
    path = folder / "bright.onnx"
    kernel, pattern = floats(4, 3, 3, 3), floats(1, 3, 12, 12, seed=1, scale=brightness)
    first = graph([node("Conv", "x w", "y")], ["n", 3, 12, 12], "y", w=kernel)
    (added,) = run(first, [pattern])
    model = graph(
        [node("Add", "x pattern", "a"), node("Conv", "a w", "b"), node("Sub", "b added", "y")],
        ["n", 3, 12, 12],
        "y",
        w=kernel,
        pattern=pattern,
        added=added,
    )
    onnx.save(model, path)
    return path


def test_amplified_rounding_is_judged_on_another_range(tmp_path):
    artifact = export(for_bright_images(tmp_path), tmp_path / "half.onnx", quantize="float16")
    assert artifact.failures == ()
    (told,) = [note for note in artifact.notes if "random images of 0 … 255" in note]
    assert "on numbers around 0" in told
    verified = ds.verify(tmp_path / "bright.onnx", tmp_path / "half.onnx")
    assert verified.passed
    assert "0 … 255" in verified.to_dict()["source"]


def test_what_is_more_than_rounding_stays_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(random_ranges, "_ROUNDING_DB", 60.0)
    with pytest.raises(GateFailed):
        export(for_bright_images(tmp_path), tmp_path / "half.onnx", quantize="float16")
    assert not ds.verify(tmp_path / "bright.onnx", tmp_path / "half.rejected.onnx").passed


def behind_its_own_scaling(folder):
    """Images of 0 … 255 become −1 … 1: noise around 0 is as good as constant."""
    path = folder / "scaled.onnx"
    nodes = [
        node("Mul", "x factor", "m"),
        node("Add", "m minus", "a"),
        node("Conv", "a w", "c"),
        node("Relu", "c", "r"),
        node("Conv", "r v", "y"),
    ]
    weights = {"w": floats(16, 3, 3, 3), "v": floats(8, 16, 3, 3, seed=1)}
    scaling = {"factor": np.float32(1 / 127.5), "minus": np.float32(-1)}
    onnx.save(graph(nodes, ["n", 3, 12, 12], "y", **weights, **scaling), path)
    return path


def test_inputs_are_those_on_which_the_outputs_change(tmp_path):
    source = behind_its_own_scaling(tmp_path)
    artifact = export(source, tmp_path / "small.onnx", quantize="dynamic")
    assert artifact.failures == ()
    assert any("random images of 0 … 255" in note for note in artifact.notes)


def test_a_kernel_that_noise_around_0_does_not_tell_from_another(tmp_path, monkeypatch):
    """It is turned round after it was quantized: the sum over a constant picture is the same."""
    quantized = onnx_reduce.quantize_dynamic

    def turned(source, path, **options):
        quantized(source, path, **options)
        model = onnx.load(path)
        stored = next(one for one in model.graph.initializer if len(one.dims) == 4)
        values = onnx.numpy_helper.to_array(stored)[..., ::-1, ::-1]
        stored.CopyFrom(onnx.numpy_helper.from_array(values.copy(), stored.name))
        onnx.save(model, path)

    monkeypatch.setattr(onnx_reduce, "quantize_dynamic", turned)
    source = behind_its_own_scaling(tmp_path)
    with refuses("outputs-differ"):
        export(source, tmp_path / "small.onnx", quantize="dynamic")
    assert not ds.verify(source, tmp_path / "small.rejected.onnx").passed


def test_rounding_of_int8_weights_is_judged_on_another_range(tmp_path):
    """Of a denoiser of images of 0 … 255 noise leaves less than rounding adds."""
    artifact = export(for_bright_images(tmp_path, 50), tmp_path / "m.onnx", quantize="dynamic")
    assert artifact.failures == ()
    assert any("on numbers around 0" in note for note in artifact.notes)


def test_inputs_without_a_common_batch_stay():
    def never(inputs):
        raise AssertionError("nothing is to be run")

    signal, rate = np.zeros((2, 512), np.float32), np.array(16000)
    assert telling_inputs(never, [signal, rate]) == ((signal, rate), "")
    assert first_samples([signal, rate], 1) == (signal, rate)


def test_a_signal_and_its_rate_are_prepared_for_quantization(tmp_path):
    nodes = [node("Conv", "x w", "c"), node("Cast", "rate", "r", to=1), node("Mul", "c r", "y")]
    model = graph(nodes, [1, 3, 8], "y", inputs="x rate", w=floats(4, 3, 3))
    model.graph.input[1].CopyFrom(onnx.helper.make_tensor_value_info("rate", 7, []))
    onnx.save(model, tmp_path / "m.onnx")
    source = read_onnx(tmp_path / "m.onnx")
    path, _ = prepared(source, tmp_path, [floats(1, 3, 8), np.array(2)])
    assert path.exists()


@pytest.mark.parametrize("most", [1, 100])
def test_whole_numbers_beside_samples_are_larger_where_the_model_takes_them(most):
    """Lengths of 0 and 1 would compare one step of each sequence."""

    def predict(inputs):
        if inputs[1].max() > most:
            raise InputError("no such index", code="does-not-run")
        return [inputs[0]]

    signals = np.random.default_rng(0).normal(size=(32, 9)).astype(np.float32)
    (_, numbers), _ = telling_inputs(predict, [signals, np.tile([0, 1], 16)])
    assert (numbers.max() > 8) == (most > 8)
    assert numbers.dtype == np.int64


def with_bias(folder, name, bias):
    """A network of images whose outputs are means over the image."""
    nodes = [
        node("Conv", "x w b", "c"),
        node("ReduceMean", "c", "y", axes=[2, 3], keepdims=0),
    ]
    weights = {"w": floats(4, 3, 3, 3), "b": np.full(4, bias, np.float32)}
    onnx.save(graph(nodes, ["n", 3, 12, 12], "y", **weights), folder / name)
    return folder / name


def test_a_float32_file_that_bright_images_hide_the_fault_of(tmp_path):
    """Beside outputs of 200 a bias of 0.05 keeps more than 60 dB."""
    sound, broken = (with_bias(tmp_path, f"{b}.onnx", b) for b in (0.0, 0.05))
    assert ds.verify(sound, sound).passed
    assert not ds.verify(sound, broken).passed


def test_a_float32_file_that_amplifies_rounding_on_images_too():
    """What it differs by on numbers one step apart, ten times as much is allowed."""
    x = np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32)

    def steep(inputs):
        return [np.sin(np.float32(1e5) * inputs[0])]

    (wanted,) = steep([x])
    for apart, allowed in ((1e-3, True), (1.0, False)):
        close = compare_outputs(["y"], [wanted], [wanted * np.float32(1 + apart)])
        assert random_ranges.leaves_rounding_alone(close, "none", steep, [x]) == allowed


def test_a_range_on_which_little_changes_is_taken_where_less_changes_around_0():
    """Means over images, as behind a pooling of everything, hardly change on any range."""

    def predict(inputs):
        (images,) = inputs
        return [10.0 + images.reshape(len(images), -1).mean(axis=1, keepdims=True) / 255]

    images = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype(np.float32)
    (chosen,), told = telling_inputs(predict, [images])
    assert np.array_equal(chosen, images * 64 + 128)
    assert "0 … 255" in told


def test_no_texts_are_made_up(tmp_path):
    word = keras.Input((1,), dtype="string")
    table = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    keras.Model(word, keras.layers.Dense(2)(table(word))).save(tmp_path / "words.keras")
    with refuses("text-input"):
        ds.export(tmp_path / "words.keras", tmp_path / "words.tflite")


def test_a_number_that_stands_before_the_images(tmp_path):
    """The samples were counted by the first input, and a threshold has none."""
    nodes = [node("Conv", "x w", "c"), node("Mul", "c factor", "y")]
    model = graph(nodes, ["n", 3, 8, 8], "y", inputs="x factor", w=floats(4, 3, 3, 3))
    images = onnx.ValueInfoProto.FromString(model.graph.input[0].SerializeToString())
    del model.graph.input[:]
    model.graph.input.extend([onnx.helper.make_tensor_value_info("factor", 1, []), images])
    onnx.save(model, tmp_path / "m.onnx")
    half = export(tmp_path / "m.onnx", tmp_path / "half.onnx", quantize="float16")
    assert half.fidelity[0].sqnr_db > 60
    assert ds.import_onnx(tmp_path / "m.onnx").record.fidelity[0].sqnr_db > 100
