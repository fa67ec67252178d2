"""Layers that TFLite has no operator for are spelled out in others that compute the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from refusals import refuses

from dsconvert.deploy.exporting import tflite
from dsconvert.deploy.exporting.equal_forms import equal_forms
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.improve import Improvement
from dsconvert.deploy.exporting.keras_source import read_source
from dsconvert.deploy.exporting.tflite_activations import TfliteValues
from dsconvert.deploy.runtimes.registry import open_runtime

L = keras.layers
VOLUME, SEQUENCE, SIGNAL = (6, 7, 8, 2), (5, 4), (256,)
FORMS = {
    "max": (VOLUME, L.MaxPooling3D((2, 3, 2), padding="same")),
    "max, strides": (VOLUME, L.MaxPooling3D((3, 2, 2), strides=(1, 2, 3))),
    "average": (VOLUME, L.AveragePooling3D((2, 3, 2))),
    "average, padded": (VOLUME, L.AveragePooling3D((3, 2, 3), strides=2, padding="same")),
    "adaptive max": (VOLUME, L.AdaptiveMaxPooling3D((2, 3, 5))),
    "adaptive average": (VOLUME, L.AdaptiveAveragePooling3D((4, 3, 5))),
    "unit": (SEQUENCE, L.UnitNormalization()),
    "unit of all": (SEQUENCE, L.UnitNormalization(axis=(1, 2))),
    "mel": (SIGNAL, L.MelSpectrogram(fft_length=64, sequence_stride=16, num_mel_bins=8)),
    "mel, power of short windows": (
        SIGNAL,
        L.MelSpectrogram(
            fft_length=64, sequence_length=50, sequence_stride=16, window="hamming", mag_exp=2,
            num_mel_bins=8, power_to_db=False,
        ),
    ),
    "mel, no window": (SIGNAL, L.MelSpectrogram(fft_length=64, window=None, num_mel_bins=8)),
}  # fmt: skip


def outputs(model, inputs):
    """What the model gives, eagerly: in its layers' forms of the moment."""
    return np.asarray(model(inputs, training=False))


def changed(model):
    """Names of the methods that layers have of their own."""
    return {
        name
        for layer in model._flatten_layers()
        for name in vars(layer)
        if callable(layer.__dict__[name])
    }


@pytest.mark.parametrize("name", FORMS)
def test_a_form_computes_what_its_layer_does(name):
    shape, layer = FORMS[name]
    image = keras.Input(shape)
    model = keras.Model(image, layer(image))
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    x[0, 0] = 0
    expected, before = outputs(model, x), changed(model)
    with equal_forms(model, "tflite"):
        assert changed(model) != before
        got = outputs(model, x)
    assert changed(model) == before
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def smoothed(x):
    return keras.ops.image.resize(x, (4, 3), interpolation="bicubic", antialias=True)


RESIZED = {
    "bicubic": L.UpSampling2D((3, 2), interpolation="bicubic"),
    "area": L.Resizing(4, 13, interpolation="area"),
    "lanczos3": L.Resizing(12, 5, interpolation="lanczos3", crop_to_aspect_ratio=True),
    "smoothed": L.Resizing(5, 3, antialias=True),
    "operation": smoothed,
    "nearest": lambda x: L.Resizing(5, 3, interpolation="nearest")(x[:, :6, :4]),
}


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
@pytest.mark.parametrize("name", RESIZED)
def test_ways_to_resize(name, suffix, tmp_path):
    image = keras.Input((9, 7, 2), name="image")
    model = keras.Model(image, RESIZED[name](image))
    x = np.random.default_rng(0).normal(size=(2, 9, 7, 2)).astype(np.float32)
    export(model, tmp_path / f"m.{suffix}")
    got = open_runtime(tmp_path / f"m.{suffix}").predict([x])[0]
    np.testing.assert_allclose(got, outputs(model, x), atol=1e-5)


@pytest.mark.parametrize("mode", ["count", "multi_hot", "one_hot"])
def test_categories(mode):
    ids = keras.Input((1 if mode == "one_hot" else 5,), dtype="int32")
    model = keras.Model(ids, L.CategoryEncoding(num_tokens=6, output_mode=mode)(ids))
    given = np.random.default_rng(0).integers(0, 6, (4, *ids.shape[1:])).astype(np.int32)
    expected = outputs(model, given)
    with equal_forms(model, "tflite"):
        np.testing.assert_array_equal(outputs(model, given), expected)


@pytest.mark.parametrize("mode", ["int", "one_hot", "multi_hot", "count"])
def test_bins(mode, tmp_path):
    values = keras.Input((1,) if mode == "one_hot" else (9,))
    layer = L.Discretization(bin_boundaries=[-1.0, 0.0, 0.5], output_mode=mode)
    model = keras.Model(values, keras.ops.cast(layer(values), "float32"))
    given = np.random.default_rng(0).normal(size=(4, *values.shape[1:])).astype(np.float32)
    given[:3, 0] = -1.0, 0.0, 0.5
    expected = outputs(model, given)
    with equal_forms(model, "onnx"):
        np.testing.assert_array_equal(outputs(model, given), expected)
    export(model, tmp_path / "m.onnx")
    got = open_runtime(tmp_path / "m.onnx").predict([given])[0]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("function", ["argmax", "argmin"])
def test_the_place_of_the_largest(function):
    image = keras.Input((4, 5))
    found = getattr(keras.ops, function)(image, axis=1, keepdims=function == "argmax")
    model = keras.Model(image, L.Identity()(found))
    given = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    expected = outputs(model, given)
    with equal_forms(model, "tflite"):
        got = outputs(model, given)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == expected.dtype


def test_places_that_are_not_zero(tmp_path):
    """Both are operations, and no layers."""
    image = keras.Input((4, 5), batch_size=1)
    places = keras.ops.stack(keras.ops.nonzero(image > 0), axis=1)
    model = keras.Model(image, [places, keras.ops.argmax(image, axis=-1)])
    given = np.random.default_rng(0).normal(size=(1, 4, 5)).astype(np.float32)
    source = read_source(model, None)
    tflite.convert(source, tmp_path / "m.tflite", "none", None)
    session = open_runtime(tmp_path / "m.tflite")
    got = session.predict([given])
    np.testing.assert_array_equal(got[0][0], np.argwhere(given > 0))
    np.testing.assert_array_equal(got[1], given.argmax(-1))
    several = [np.random.default_rng(1).normal(size=(3, 4, 5)).astype(np.float32)]
    for one, other in zip(session.predict(several), source.predict(several), strict=True):
        np.testing.assert_array_equal(one, other)  # filled up alike


@pytest.mark.parametrize("axes", [1, (1, 2), -1])
def test_a_normalized_product(axes):
    a, b = keras.Input((4, 4)), keras.Input((4, 4))
    model = keras.Model([a, b], L.Dot(axes=axes, normalize=True)([a, b]))
    given = [np.random.default_rng(i).normal(size=(3, 4, 4)).astype(np.float32) for i in (0, 1)]
    given[0][0] = 0
    expected = outputs(model, given)
    with equal_forms(model, "tflite"):
        got = outputs(model, given)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert model.layers[-1].normalize


def test_a_file_of_them(tmp_path):
    """Some samples are zeros, and each is cut off by its own loudest value."""
    signal = keras.Input(SIGNAL)
    mel = L.MelSpectrogram(fft_length=64, sequence_stride=64, num_mel_bins=8, top_db=20)(signal)
    volume = L.MaxPooling3D()(L.Reshape((4, 8, 8, 1))(signal))
    made = L.UnitNormalization()(L.Flatten()(volume))
    model = keras.Model(signal, [mel, made])
    x = np.random.default_rng(0).normal(size=(8, *SIGNAL)).astype(np.float32)
    x *= np.arange(8)[:, None]
    artifact = export(model, tmp_path / "net.tflite", verification=x)
    assert artifact.failures == ()
    assert any("loudest" in note for note in artifact.notes)


def recurrent(steps):
    sequence = keras.Input((steps, 4))
    both = L.Bidirectional(L.LSTM(3, return_sequences=True, name="forth"))(sequence)
    return keras.Model(sequence, L.Dense(2)(L.GRU(4, name="last")(both)))


def test_recurrent_layers_are_spelled_out_for_int8(tmp_path):
    """TensorFlow's calibrator brings its process down on loops."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(40, 3, 4)).astype(np.float32)
    model = recurrent(3)
    artifact = export(model, tmp_path / "m.tflite", quantize="int8", calibration=x)
    assert artifact.failures == ()
    assert not any(layer.unroll for layer in model._flatten_layers() if isinstance(layer, L.RNN))


@pytest.mark.slow
def test_a_recurrent_layer_stays_in_float_and_is_reported(tmp_path):
    """The float file that it is compared with has the same steps."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(40, 3, 4)).astype(np.float32)
    wish = Improvement(keep_float=1, report=True)
    path = tmp_path / "m.tflite"
    artifact = export(recurrent(3), path, quantize="int8", calibration=x, improvement=wish)
    assert artifact.failures == ()
    assert any(layer.name.startswith("bidirectional") for layer in artifact.layers.layers)
    assert any("1 layers in float: bidirectional" in note for note in artifact.notes)


@pytest.mark.parametrize("joined", ["flip", "both ways"])
def test_a_turned_axis_keeps_its_scale_in_int8(joined, tmp_path):
    """TFLite's REVERSE copies bytes, and a concatenation gives them another scale."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(40, 4, 4)).astype(np.float32)
    sequence = keras.Input((4, 4))
    if joined == "flip":
        small = L.Conv1D(4, 1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.1))
        turned = keras.ops.flip(small(sequence), axis=1)
        y = L.Concatenate()([L.Conv1D(4, 1)(sequence), turned])
    else:
        y = L.Bidirectional(L.LSTM(4, return_sequences=True))(sequence)
    model, path = keras.Model(sequence, y), tmp_path / "m.tflite"
    export(model, path, quantize="int8", calibration=x, gate=False)
    expected = model.predict(x, verbose=0)[..., 4:]
    (given,) = open_runtime(path).predict((x,))
    noise = np.square(given[..., 4:] - expected).sum()
    assert 10 * np.log10(np.square(expected).sum() / noise) > 15  # 0 and less by REVERSE


@pytest.mark.parametrize("steps", [None, 1000])
def test_loops_that_stay_are_named(steps, tmp_path):
    x = np.zeros((10, steps or 6, 4), np.float32)
    with refuses("not-convertible") as caught:
        tflite.convert(read_source(recurrent(steps), None), tmp_path / "m.tflite", "int8", [x])
    assert all(name in caught.value.message for name in ("forward_forth", "last"))


def test_a_kernel_that_refuses_its_values_is_a_sentence(tmp_path, monkeypatch):
    vector = keras.Input((6,))
    model = keras.Model(vector, L.Dense(6)(vector))
    tflite.convert(read_source(model, None), tmp_path / "m.tflite", "none", None)
    values = TfliteValues(tmp_path / "m.tflite")

    def divided():
        raise RuntimeError("data[i] != zero_point was not true. Node number 7 (DIV)")

    monkeypatch.setattr(values._interpreter, "invoke", divided)
    with refuses("does-not-run"):
        values.read([np.zeros((1, 6), np.float32)], values.output_tensors[0])


@pytest.mark.parametrize(
    ("suffix", "quantize", "interpolation", "channels_first"),
    [
        ("tflite", "none", "bilinear", False),
        ("tflite", "none", "nearest", False),
        ("onnx", "none", "bilinear", True),
        ("onnx", "float16", "nearest", False),
    ],
)
def test_upsampling_of_a_free_size(tmp_path, suffix, quantize, interpolation, channels_first):
    layout = {"data_format": "channels_first" if channels_first else "channels_last"}
    image = keras.Input((3, None, None) if channels_first else (None, None, 3))
    small = L.Conv2D(4, 3, strides=2, **layout)(image)
    large = L.UpSampling2D((2, 3), interpolation=interpolation, **layout)(small)
    model = keras.Model(image, L.Conv2D(2, 3, **layout)(large))
    path = tmp_path / f"m.{suffix}"
    made = export(model, path, quantize=quantize)
    assert made.inputs[0].shape.count(None) >= 2
    shape = (2, 3, 9, 13) if channels_first else (2, 9, 13, 3)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    (got,), expected = open_runtime(path).predict([x]), outputs(model, x)
    np.testing.assert_allclose(got, expected, atol=1e-5 if quantize == "none" else 1e-2)


@pytest.mark.parametrize(
    ("layer", "shape", "options"),
    [
        ("Conv1D", (2, 12), {}),
        ("Conv1D", (2, 12), {"dilation_rate": 2, "padding": "same"}),
        ("Conv2D", (2, 9, 11), {"dilation_rate": 2}),
        ("Conv2D", (2, 9, 3), {"dilation_rate": (1, 2), "padding": "same", "activation": "relu"}),
        ("Conv3D", (2, 5, 6, 7), {"strides": (1, 2, 2)}),
        # Of equal strides: LiteRT 2.1 computes others wrongly, in either order of axes.
        ("Conv3DTranspose", (2, 4, 5, 6), {"strides": 2, "padding": "same"}),
    ],
)
@pytest.mark.parametrize("quantize", ["none", "int8-float-io"])
def test_convolutions_of_channels_first(layer, shape, options, quantize, tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input(shape)
    given = {"data_format": "channels_first", "bias_initializer": "normal"}
    made = getattr(L, layer)(3, 3, **given, **options)
    model = keras.Model(image, made(image))
    x = np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32)
    export(model, tmp_path / "m.tflite", quantize=quantize, calibration=x)
    (got,) = open_runtime(tmp_path / "m.tflite").predict([x])

    # By predict: called eagerly, Keras adds a bias of as many channels as columns to those.
    expected = model.predict(x, verbose=0)
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error < (1e-5 if quantize == "none" else 0.05)
    assert made.data_format == "channels_first"


def attended(kind):
    """Attention of one sort over words, of which the first samples have few or none."""
    words = keras.Input((6, 8))
    mask = keras.ops.max(words, axis=-1) > 0.5 if "mask" in kind else None
    both = None if mask is None else mask[:, None, :]
    causal = {"use_causal_mask": "causal" in kind}
    if kind.startswith("softmax"):
        scores = keras.ops.matmul(words, keras.ops.transpose(words, (0, 2, 1)))
        axes = (1, 2) if "axes" in kind else -1
        return keras.Model(words, L.Softmax(axis=axes)(scores, mask=both))
    if kind.startswith("operation"):
        heads = L.Reshape((6, 2, 4))(words)
        mask = None if both is None else both[:, None]
        made = keras.ops.dot_product_attention(
            heads, heads, heads, mask=mask, is_causal="causal" in kind
        )
        return keras.Model(words, made)
    if kind.startswith("grouped"):
        layer = L.GroupQueryAttention(4, 2, 1)
    else:
        layer = L.MultiHeadAttention(2, 4)
    return keras.Model(words, layer(words, words, attention_mask=both, **causal))


@pytest.mark.parametrize(
    "kind",
    [
        "causal",
        "mask",
        "causal mask",
        "plain",
        "grouped causal",
        "operation",
        "operation causal",
        "operation mask",
        "operation causal mask",
        "softmax mask",
        "softmax axes mask",
    ],
)
def test_masked_scores_are_a_little_below_the_rest(kind):
    model = attended(kind)
    x = np.random.default_rng(1).normal(size=(5, 6, 8)).astype(np.float32)
    x[0], x[1, 1:] = -1, -1  # no word, and one
    expected = outputs(model, x)
    before = changed(model)
    with equal_forms(model, "tflite", "int8"):
        np.testing.assert_allclose(outputs(model, x), expected, atol=1e-5)
    assert changed(model) == before


@pytest.mark.parametrize("kind", ["causal", "operation causal"])
def test_attention_to_what_came_before_in_int8(kind, tmp_path):
    """With scores of -2e38 LiteRT ended the process, or nothing was left of them."""
    x = np.random.default_rng(1).normal(size=(20, 6, 8)).astype(np.float32)
    made = export(attended(kind), tmp_path / "m.tflite", quantize="int8", calibration=x)
    assert made.fidelity[0].sqnr_db > 20
