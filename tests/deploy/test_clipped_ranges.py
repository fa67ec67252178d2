"""Ranges of least squared error, on numbers and in files."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.base.errors import InputError
from dsconvert.deploy.exporting.clipped_ranges import Histogram, Range
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.improve import Improvement
from dsconvert.deploy.exporting.tflite_activations import TfliteValues


def found(values) -> Range:
    histogram = Histogram(Range(float(values.min()), float(values.max())))
    for part in values if values.ndim > 1 else [values]:
        histogram.add(part)
    return histogram.least_error()


def error(values, ends) -> float:
    """Of rounding to 256 steps between the ends, with zero among them."""
    low, high = min(ends[0], 0), max(ends[1], 0)
    step = (high - low) / 255
    rounded = np.rint((np.clip(values, low, high) - low) / step) * step + low
    return float(np.square(values - rounded).mean())


@given(
    seed=st.integers(0, 2**31),
    shift=st.floats(-3, 3),
    power=st.floats(0.5, 4),
    scale=st.floats(1e-6, 1e6),
)
def test_no_worse_than_all_values(seed, shift, power, scale):
    """By more than what the bins' widths say."""
    normal = np.random.default_rng(seed).normal(shift, 1, 4000)
    values = scale * np.sign(normal) * np.abs(normal) ** power
    ends = Range(values.min(), values.max())
    low, high = found(values)
    assert ends.low * (1 + 1e-9) <= low <= 0 or low == ends.low
    assert high == ends.high or 0 <= high <= ends.high * (1 + 1e-9)
    width = (ends.high - ends.low) / 2048
    assert error(values, (low, high)) <= (np.sqrt(error(values, ends)) + width) ** 2


def test_even_values_are_all_kept():
    values = np.random.default_rng(0).uniform(-1, 2, 10_000)
    assert found(values) == pytest.approx((values.min(), values.max()), rel=0.03)


def test_a_rare_outlier_is_left_out():
    """One of a million costs less than steps that are ten times as wide for all others."""
    normal = np.random.default_rng(0).normal(size=(60, 1 << 14))
    normal[0, 0] = 40.0
    low, high = found(normal)
    assert low == pytest.approx(normal.min(), rel=0.3)
    assert high < 20
    assert error(normal, (low, high)) < 0.5 * error(normal, (normal.min(), 40.0))


@pytest.mark.parametrize("ends", [(0.0, 0.0), (2.0, 2.0), (0.0, np.inf), (np.nan, np.nan)])
def test_what_has_no_width_stays(ends):
    histogram = Histogram(Range(*ends))
    histogram.add(np.array([0.0, 1.0, 2.0]))
    assert histogram.least_error() == pytest.approx(ends, nan_ok=True)


def test_zeros_alone_decide_nothing():
    histogram = Histogram(Range(0.0, 6.0))
    histogram.add(np.zeros(100))
    assert histogram.least_error() == (0.0, 6.0)


@pytest.fixture(scope="module")
def spiky():
    """A network whose inner values have a long tail, with its images."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x = keras.Input((16, 16, 3), name="image")
    y = layers.Activation("exponential")(layers.Conv2D(4, 3, name="first")(x))
    model = keras.Model(x, layers.Conv2D(3, 1, name="scores")(y))
    first = model.get_layer("first")
    first.set_weights([2 * first.get_weights()[0], first.get_weights()[1]])
    return model, np.random.default_rng(1).normal(size=(96, 16, 16, 3)).astype(np.float32)


def ranges(path) -> list[float]:
    """Of input, inner values and output, each once: 255 times the scale, from small to large."""
    if path.suffix == ".tflite":
        file = TfliteValues(path)
        tensors = {i for _, reads, makes in file.operators() for i in (*reads[:1], *makes)}
        scales = [file.scales(i)[0] for i in tensors]
    else:
        graph = onnx.load(path).graph
        held = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
        made = [node for node in graph.node if node.op_type == "QuantizeLinear"]
        scales = [held[node.input[1]] for node in made]
    return sorted({round(float(scale) * 255, 4) for scale in scales})


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_the_ranges_of_a_file(spiky, suffix, tmp_path):
    """Inner ones are clipped as the numbers say, the input's and the output's are not."""
    import keras

    model, images = spiky
    inner = keras.Model(model.input, [layer.output for layer in model.layers[1:]])
    values = [images, *inner.predict(images, verbose=0)]
    widths = {}
    for method in ("minmax", "mse"):
        path = tmp_path / f"x{suffix}"
        made = export(
            model,
            path,
            quantize="int8",
            calibration=images,
            calibration_method=method,
            improvement=Improvement(equalize="off", correct_biases=False),
            overwrite=True,
        )
        assert made.calibration.method == method
        widths[method] = ranges(path)
    expected = {
        "minmax": sorted(float(max(x.max(), 0) - min(x.min(), 0)) for x in values),
        "mse": sorted(
            float(max(x.max(), 0) - min(x.min(), 0)) if edge else high - low
            for x, edge in zip(values, (True, *[False] * (len(values) - 2), True), strict=True)
            for low, high in [found(x)]
        ),
    }
    assert widths["minmax"] == pytest.approx(expected["minmax"], rel=0.01)
    assert widths["mse"] == pytest.approx(expected["mse"], rel=1e-3)
    assert widths["mse"][-2] < widths["minmax"][-2]


def test_what_a_format_does_not_have(spiky, tmp_path):
    model, images = spiky
    for method, quantize, code in (
        ("percentile", "int8", "option-not-applicable"),
        ("mse", "int16x8", "option-not-applicable"),
        ("mse", "dynamic", "option-not-applicable"),
    ):
        with pytest.raises(InputError) as caught:
            export(
                model,
                tmp_path / "x.tflite",
                quantize=quantize,
                calibration=images,
                calibration_method=method,
            )
        assert caught.value.code == code
