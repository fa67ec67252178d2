"""Static int8 files made better: by what is kept, what is told, and what is not kept."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import compare_output, top_k
from dsconvert.converter.rewrite import rewrite
from dsconvert.deploy.exporting import tflite_candidates
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.held_out import split
from dsconvert.deploy.exporting.improve import Improvement
from dsconvert.deploy.exporting.tflite_activations import TfliteValues
from dsconvert.deploy.runtimes.registry import open_runtime

PLAIN = Improvement(equalize="off", correct_biases=False)
GAUGE = Improvement(equalize="on", correct_biases=False)


@pytest.fixture(scope="module")
def small(digits_cnn, digits):
    """The rewritten network with its inner channels at very different ranges."""
    model = rewrite(digits_cnn, calibration=digits[0][:300], pairs=1).model
    for first, second in (("middle_dw", "middle_pw"), ("last_dw", "last_pw")):
        one, two = model.get_layer(first), model.get_layer(second)
        scales = np.logspace(-0.6, 0.6, one.kernel.shape[2]).astype(np.float32)
        one.kernel.assign(np.asarray(one.kernel) * scales[:, None])
        two.kernel.assign(np.asarray(two.kernel) / scales[:, None])
    return model


@pytest.fixture(scope="module")
def source(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("improve") / "full.onnx"
    export(small, path)
    return path


def sqnr(small, path, images) -> float:
    (output,) = open_runtime(path).predict([images])
    return compare_output("y", small.predict(images, verbose=0), output).sqnr_db


@pytest.mark.parametrize("kind", ["tflite", "onnx", "onnx from onnx"])
def test_equal_ranges_are_kept_where_channels_differ(small, source, digits, tmp_path, kind):
    images, unseen = digits[0][:100], digits[0][1400:]
    model = source if "from" in kind else small
    found = {}
    for name, wish in (("off", PLAIN), ("on", GAUGE), ("auto", Improvement(correct_biases=False))):
        path = tmp_path / f"{name}.{kind.split()[0]}"
        done = export(model, path, quantize="int8", calibration=images, improvement=wish)
        found[name] = sqnr(small, path, unseen)
        assert any(note.startswith("cross-layer equalization:") for note in done.notes) == (
            name != "off"
        )
        assert any(
            note.startswith("cross-layer equalization kept: SQNR") for note in done.notes
        ) == (name == "auto")
        assert done.calibration.samples == (100 if name == "off" else 80)
    assert found["on"] > found["off"] + 3
    assert found["auto"] == pytest.approx(found["on"], abs=1e-6)


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_corrected_biases_take_back_a_shift(small, digits, tmp_path, kind):
    """The biases of an int8 file are spoilt; the correction finds what they were."""
    from dsconvert.deploy.exporting.keras_source import read_source
    from dsconvert.deploy.exporting.onnx_candidates import OnnxBuilder
    from dsconvert.deploy.exporting.tflite_candidates import TfliteBuilder

    images, unseen = digits[0][:64], digits[0][1400:]
    calibration = (images,)
    if kind == "tflite":
        builder = TfliteBuilder(read_source(small, None), calibration)
    else:
        export(small, tmp_path / "source.onnx")
        builder = OnnxBuilder.of(tmp_path / "source.onnx", calibration, tmp_path, "minmax")
    full, good, bad, new = (tmp_path / f"{name}.{kind}" for name in ("full", "good", "bad", "new"))
    builder.write_float(full)
    builder.write(good)
    _spoil(good, bad)
    assert sqnr(small, bad, unseen) < sqnr(small, good, unseen) - 4
    assert builder.corrected(full, bad, new) == 3  # two 1×1 convolutions and the dense layer
    assert sqnr(small, new, unseen) > sqnr(small, good, unseen) - 1


def test_biases_that_share_their_zeros_are_corrected_apart(digits, tmp_path):
    """The second pair of a sum has no bias: the converter stores one of zeros for all of them."""
    from dsconvert.deploy.exporting.keras_source import read_source
    from dsconvert.deploy.exporting.tflite_activations import TfliteValues
    from dsconvert.deploy.exporting.tflite_candidates import TfliteBuilder

    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = start = layers.Input((8, 8, 1))
    for name in ("one", "two", "three"):
        x = layers.Conv2D(6, 1, use_bias=False, activation="relu", name=name)(x)
    model = keras.Model(start, x)
    images = digits[0][:64]
    builder = TfliteBuilder(read_source(model, None), (images,))
    full, plain, new = (tmp_path / f"{name}.tflite" for name in ("full", "plain", "new"))
    builder.write_float(full)
    builder.write(plain)
    file = TfliteValues(plain)
    biases = [layer.bias for layer in file.linear.values()]
    content = bytearray(plain.read_bytes())
    assert len({file.stored(content, bias).ctypes.data for bias in biases}) == 1
    assert builder.corrected(full, plain, new) == 3
    file, content = TfliteValues(new), bytearray(new.read_bytes())
    stored = [file.stored(content, layer.bias) for layer in file.linear.values()]
    assert len({array.ctypes.data for array in stored}) == 3
    before, after = (sqnr(model, path, digits[0][1400:]) for path in (plain, new))
    assert after > before - 1


@pytest.mark.parametrize("keeps", [True, False])
def test_files_of_one_model_share_the_measured_ranges(keeps, digits, tmp_path):
    """Other images are not looked at any more; a changed model is measured anew."""
    from dsconvert.deploy.exporting.keras_source import read_source
    from dsconvert.deploy.exporting.tflite_candidates import TfliteBuilder

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3)])
    kept = tmp_path / "kept" if keeps else None
    if kept is not None:
        kept.mkdir()
    first = TfliteBuilder(read_source(model, None), (digits[0][:8],), kept=kept)
    files = [tmp_path / f"{number}.tflite" for number in range(3)]
    first.write(files[0])
    second = dataclasses.replace(first, calibration=(3 * digits[0][:8],))
    second.write(files[1])
    assert (files[0].read_bytes() == files[1].read_bytes()) == keeps
    changed, _ = second.rounded(lambda source, calibration: (source, ""))
    changed.write(files[2])
    assert files[2].read_bytes() != files[0].read_bytes()


def _spoil(good, bad) -> None:
    """Shift the biases of last_pw by a fifth of the output's spread."""
    if good.suffix == ".tflite":
        from dsconvert.deploy.exporting.tflite_activations import TfliteValues

        content = bytearray(good.read_bytes())
        file = TfliteValues(good)
        bias = file.linear["last_pw"].bias
        file.stored(content, bias)[:] += np.rint(0.3 / file.scales(bias)).astype(np.int32)
        bad.write_bytes(content)
        return
    from onnx import numpy_helper

    proto = onnx.load(good)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    makers = {node.output[0]: node for node in proto.graph.node}
    layer = [n for n in proto.graph.node if n.op_type == "Conv" and "Relu" in n.output[0]][-1]
    dequantize = makers[layer.input[2]]
    bias, scale = (stored[name] for name in dequantize.input[:2])
    shifted = numpy_helper.to_array(bias) + np.rint(0.3 / numpy_helper.to_array(scale))
    bias.CopyFrom(numpy_helper.from_array(shifted.astype(np.int32), bias.name))
    onnx.save(proto, bad)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_the_layers_that_lose_most_stay_in_float(small, digits, tmp_path, kind):
    images, unseen = digits[0][:100], digits[0][1400:]
    wish = Improvement(equalize="off", correct_biases=False, report=True)
    plain = export(
        small, tmp_path / f"a.{kind}", quantize="int8", calibration=images, improvement=wish
    )
    some = Improvement(equalize="off", keep_float=2)
    path = tmp_path / f"b.{kind}"
    mixed = export(small, path, quantize="int8", calibration=images, improvement=some)
    assert [note for note in mixed.notes if note.startswith("2 layers in float")]
    assert len(plain.layers.layers) > 8
    assert mixed.layers is None
    assert _in_float(path) > _in_float(tmp_path / f"a.{kind}")
    assert sqnr(small, path, unseen) > sqnr(small, tmp_path / f"a.{kind}", unseen)


def _in_float(path) -> int:
    """How many convolutions and dense layers have weights in float."""
    if path.suffix == ".onnx":
        graph = onnx.load(path).graph
        stored = {tensor.name for tensor in graph.initializer}
        return sum(n.op_type in ("Conv", "Gemm") and n.input[1] in stored for n in graph.node)
    file = Interpreter(str(path))
    kinds = {tensor["index"]: tensor["dtype"] for tensor in file.get_tensor_details()}
    weighted = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return sum(
        op["op_name"] in weighted and kinds[op["inputs"][1]] is np.float32
        for op in file._get_ops_details()
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_as_few_layers_in_float_as_are_enough(small, digits, tmp_path, kind):
    images, labels = digits
    unseen = images[1400:]

    def export_with(name, **wishes):
        path = tmp_path / f"{name}.{kind}"
        wish = Improvement(equalize="off", keep_float="auto", **wishes)
        done = export(small, path, quantize="int8", calibration=images[:100], improvement=wish)
        return next(note for note in done.notes if note[0].isdigit()), path, done

    told, path, _ = export_with("none", min_sqnr_db=5)
    assert told.startswith("0 layers in float;")
    # What int8 alone reaches depends on the processor that trained the network.
    goal = sqnr(small, path, images[:100]) + 2
    told, path, _ = export_with("some", min_sqnr_db=goal)
    assert 0 < int(told.split()[0]) < 9
    assert sqnr(small, path, unseen) > goal - 1.5
    _, path, done = export_with("all", min_sqnr_db=300)
    assert any("the best is kept" in note for note in done.notes)

    def enough(file) -> bool:
        seen.append(top_k(file.predict([unseen])[0], labels[1400:], 1).value)
        return len(seen) == 3

    seen = []
    assert export_with("asked", enough=enough)[0].startswith("2 layers in float")
    assert len(seen) == 3


def test_samples_that_choose_give_no_ranges():
    data = np.arange(50)[:, None]
    fit, kept = split([data])
    assert (len(fit[0]), len(kept[0])) == (40, 10)
    assert set(fit[0].ravel()).isdisjoint(kept[0].ravel())
    few = split([data[:9]])
    np.testing.assert_array_equal(few[0][0], few[1][0])


def test_layers_in_float_are_refused_where_there_are_none(small, digits, tmp_path):
    with pytest.raises(InputError, match="int8"):
        export(
            small,
            tmp_path / "a.tflite",
            quantize="int16x8",
            calibration=digits[0][:20],
            improvement=Improvement(keep_float=1),
        )


def test_a_model_without_pairs_and_the_quick_way(digits_cnn, digits, tmp_path):
    keras.utils.set_random_seed(0)
    images = digits[0][:40]
    path = tmp_path / "a.tflite"
    done = export(digits_cnn, path, quantize="int8", calibration=images)
    assert not any(note.startswith("cross-layer equalization") for note in done.notes)
    done = export(digits_cnn, path, quantize="int8", calibration=images, gate=False, overwrite=True)
    assert done.calibration.samples == 40
    assert not any("bias correction" in note for note in done.notes)


def test_the_mean_of_a_grouped_convolution(tmp_path):
    import keras

    image = keras.Input((5, 5, 8))
    model = keras.Model(image, keras.layers.Conv2D(6, 1, groups=2)(image))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    given = rng.normal(size=(3, 5, 5, 8)).astype(np.float32)
    export(model, tmp_path / "m.tflite")
    file = TfliteValues(tmp_path / "m.tflite")
    (name,) = file.linear
    expected = model.predict(given, verbose=0).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(tflite_candidates._mean(file, name, [given]), expected, atol=1e-5)


def test_a_bias_that_the_converter_made_of_a_scale_is_corrected(tmp_path):
    """A scale of each channel behind a layer, as in ConvNeXt: the bias is (1, 1, 1, N)."""
    x = keras.Input((6, 6, 8))
    y = keras.layers.Dense(5, bias_initializer="normal")(x)
    y = y * np.linspace(0.5, 2, 5, dtype=np.float32).reshape(1, 1, 1, 5)
    model = keras.Model(x, y + keras.layers.Conv2D(5, 1)(x))
    images = np.random.default_rng(0).normal(size=(24, 6, 6, 8)).astype(np.float32)
    only = Improvement(equalize="off")
    done = export(
        model,
        tmp_path / "m.tflite",
        quantize="int8",
        calibration=images,
        calibration_method="minmax",
        improvement=only,
    )
    assert any(note.startswith("bias correction of 2 layers") for note in done.notes)
    assert done.fidelity[0].sqnr_db > 25
