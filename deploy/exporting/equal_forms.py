"""Layers spelled out in operations that a file format has, while a model is traced for it.

Each form computes what its layer does. The file is compared with the model as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dsconvert.base.errors import require
from dsconvert.formats.quantization import Format, Quantization
from dsconvert.models.parts import parts_of

from ..schemes import SCHEMES
from .equal_calls import equal_calls, replaced
from .masked_scores import masked_softmax, scored_attention
from .unit_calls import rms_unit

Form = Callable[..., Any]
_SMALLEST = 1e-12
"""The least norm that Keras divides by."""
MOST_STEPS = 256
"""Steps of a recurrent layer that are spelled out; a graph of more takes minutes to convert."""


@contextmanager
def equal_forms(model: Any, format: Format, quantize: Quantization = "none") -> Iterator[list[str]]:
    """Let layers that a format has no operator for compute by others, inside the context.

    Args:
        model: A `keras.Model`; its layers are as before afterwards.
        format: What it is traced for.
        quantize: How it is quantized: where activations are, recurrent layers become a chain of
            their steps, and what turns an axis around becomes a slice.

    Yields:
        A list that will name the recurrent layers that stay loops, with the reason.
    """
    keras = require("keras", "keras", "to export Keras models")
    scheme = SCHEMES[quantize]
    of_scheme = (_STATIC if scheme.static else {}) | (_NORMS if scheme.norms else {})
    changed, loops = [], list[str]()
    for layer in parts_of(model):
        forms = _FORMS[format] | of_scheme
        method, form = forms.get(type(layer).__name__, ("", None))
        if scheme.static and isinstance(layer, keras.layers.RNN):
            method, form = "call", _steps(loops)
        if form is None or not type(layer).__module__.startswith("keras."):
            continue
        given = getattr(layer, method)
        object.__setattr__(layer, method, _bound(form, layer, given))
        changed.append((layer, method))
    try:
        with equal_calls(format, quantize):
            yield loops
    finally:
        for layer, method in changed:
            object.__delattr__(layer, method)


def _ops() -> Any:
    return require("keras", "keras", "to export Keras models").ops


def _bound(form: Form, layer: Any, given: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: form(layer, given, *args, **kwargs)


def mixes_samples(model: Any) -> bool:
    """Tell whether a layer's answer for a sample depends on the others of its batch.

    MelSpectrogram cuts off what is ``top_db`` below the loudest sample.
    """
    return any(
        type(layer).__name__ == "MelSpectrogram" and layer.power_to_db
        for layer in model._flatten_layers()
    )


def _steps(loops: list[str]) -> Form:
    """Return the form of recurrent layers: step after step, without a loop."""

    def form(
        layer: Any, given: Callable[..., Any], sequences: Any, *args: Any, **kwargs: Any
    ) -> Any:
        steps, before = sequences.shape[1], layer.unroll
        if steps is None or steps > MOST_STEPS:
            loops.append(f"{layer.name} ({'any number of' if steps is None else steps} steps)")
            return given(sequences, *args, **kwargs)
        layer.unroll = True
        try:
            return given(sequences, *args, **kwargs)
        finally:
            layer.unroll = before

    return form


def _pool_3d(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Pool height and width, then depth: the largest of largest, the mean of means.

    Where padding is left out of the mean, it is left out of each of the two.
    """
    ops = _ops()
    if layer.data_format != "channels_last" or None in x.shape[1:]:
        return given(x)
    pool = ops.average_pool if "Average" in type(layer).__name__ else ops.max_pool
    size, strides = layer.pool_size, layer.strides

    def plane(value: Any, size: Any, strides: Any) -> Any:
        return pool(value, size, strides, layer.padding, "channels_last")

    return _by_planes(
        ops,
        x,
        lambda value: plane(value, size[1:], strides[1:]),
        lambda value: plane(value, (size[0], 1), (strides[0], 1)),
    )


def _adaptive_pool_3d(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Pool to a height and a width, then to a depth."""
    ops = _ops()
    if layer.data_format != "channels_last" or None in x.shape[1:]:
        return given(x)
    average = "Average" in type(layer).__name__
    pool = ops.adaptive_average_pool if average else ops.adaptive_max_pool
    depth, height, width = layer.output_size
    return _by_planes(
        ops,
        x,
        lambda value: pool(value, (height, width), "channels_last"),
        lambda value: pool(value, (depth, height * width), "channels_last"),
    )


def _by_planes(ops: Any, x: Any, across: Form, deep: Form) -> Any:
    """Apply one function to (n·D, H, W, C), and another one to (n, D, H·W, C)."""
    depth, height, width, channels = x.shape[1:]
    planes = across(ops.reshape(x, (-1, height, width, channels)))
    height, width = planes.shape[1:3]
    columns = deep(ops.reshape(planes, (-1, depth, height * width, channels)))
    return ops.reshape(columns, (-1, columns.shape[1], height, width, channels))


def _resized(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Resize to a size that is computed where height and width are free.

    Keras asks TensorFlow whether the size is one that it knows, which cannot be traced, or repeats
    rows and columns, behind which the number of channels is not known any more.
    """
    tf = require("tensorflow", "keras", "to export Keras models")
    first = layer.data_format == "channels_first"
    if first:
        x = tf.transpose(x, [0, 2, 3, 1])
    if None not in x.shape[1:3]:
        return given(tf.transpose(x, [0, 3, 1, 2]) if first else x)
    y = tf.cast(tf.image.resize(x, tf.shape(x)[1:3] * layer.size, layer.interpolation), x.dtype)
    return tf.transpose(y, [0, 3, 1, 2]) if first else y


def _resized_smoothly(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Do the same where rows are not just repeated, which ONNX can."""
    return given(x) if layer.interpolation == "nearest" else _resized(layer, given, x)


def _channels_last(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Convolve (n, …, C) where TFLite does not take (n, C, …): dilated, or not of two dimensions.

    TensorFlow convolves (n, H, W, C) there alone, and wraps dilated layers in an operation that
    TFLite has for that layout only.
    """
    tf = require("tensorflow", "keras", "to export Keras models")
    if layer.data_format != "channels_first" or (layer.rank == 2 and max(layer.dilation_rate) == 1):
        return given(x)
    places = range(2, layer.rank + 2)
    layer.data_format = "channels_last"
    try:
        y = given(tf.transpose(x, [0, *places, 1]))
    finally:
        layer.data_format = "channels_first"
    return tf.transpose(y, [0, layer.rank + 1, *range(1, layer.rank + 1)])


def _category_encoding(layer: Any, given: Callable[..., Any], inputs: Any, *more: Any) -> Any:
    """Sum one-hot vectors; several of a category are one where they are not counted."""
    ops = _ops()
    if layer.output_mode not in ("count", "multi_hot") or len(inputs.shape) != 2:
        return given(inputs, *more)
    hot = ops.one_hot(ops.cast(inputs, "int32"), layer.num_tokens, dtype=layer.compute_dtype)
    weights = more[0] if more else None
    if weights is not None:
        hot = hot * ops.expand_dims(ops.cast(weights, layer.compute_dtype), -1)
    return ops.sum(hot, axis=1) if layer.output_mode == "count" else ops.max(hot, axis=1)


def _discretization(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Count the boundaries up to a value, whatever is made of the count."""

    def counted(values: Any, boundaries: Any) -> Any:
        ops = _ops()
        values = ops.cast(values, "float32")
        above = ops.expand_dims(values, -1) >= ops.convert_to_tensor(boundaries, values.dtype)
        return ops.sum(ops.cast(above, "int32"), axis=-1)

    with replaced(layer.backend.numpy, "digitize", counted):
        return given(x)


def _first_largest(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Take −0 for 0, where Keras looks at the sign's bit, which no format does."""
    tf = require("tensorflow", "keras", "to export Keras models")
    if layer.axis is None:
        return given(x)
    find = tf.argmax if type(layer).__name__ == "Argmax" else tf.argmin
    found = find(x, axis=layer.axis, output_type=tf.int32)
    return tf.expand_dims(found, layer.axis) if layer.keepdims else found


def _nonzero(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Slice what Keras unstacks."""
    tf = require("tensorflow", "keras", "to export Keras models")
    places = tf.cast(tf.where(tf.cast(x, "bool")), "int32")
    return tuple(places[:, axis] for axis in range(len(x.shape)))


def _unit(ops: Any, x: Any, axis: Any, least: float = _SMALLEST) -> Any:
    norm = ops.sqrt(ops.sum(ops.square(x), axis=axis, keepdims=True))
    return ops.divide(x, ops.maximum(norm, least))  # by a call, which `unit_calls` sees


def _unit_normalization(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Divide by the norm: its reciprocal is infinite where all is 0."""
    ops = _ops()
    return _unit(ops, x, layer.axis)


def _normalized(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Do the same where Keras multiplies by the reciprocal of a norm that may be 0."""
    keras = require("keras", "keras", "to export Keras models")
    if layer.order != 2 or len(x.shape) < 2:
        return given(x)
    return _unit(keras.ops, x, layer.axis, layer.epsilon or keras.config.epsilon())


def _normalized_dot(layer: Any, given: Callable[..., Any], inputs: Any) -> Any:
    """Do the same before a product."""
    ops = _ops()
    if not layer.normalize:
        return given(inputs)
    axes = (layer.axes, layer.axes) if isinstance(layer.axes, int) else layer.axes
    layer.normalize = False
    try:
        return given([_unit(ops, x, axis) for x, axis in zip(inputs, axes, strict=True)])
    finally:
        layer.normalize = True


def _spectrogram(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Multiply windows by the cosines and sines of a Fourier transform: a convolution."""
    ops = _ops()
    if layer.window not in ("hann", "hamming", None) or len(x.shape) != 2:
        return given(x)
    length, size = layer.sequence_length, layer.fft_length
    turn = 2 * np.pi * np.arange(length) / length
    window = {
        "hann": 0.5 - 0.5 * np.cos(turn),
        "hamming": 0.54 - 0.46 * np.cos(turn),
        None: np.ones(length),
    }[layer.window]
    before = (size - length) // 2
    window = np.pad(window, (before, size - length - before))
    if layer.window is None:
        window = np.ones(size)
    bins = size // 2 + 1
    angles = 2 * np.pi * np.outer(np.arange(size), np.arange(bins)) / size
    both = np.concatenate([np.cos(angles), -np.sin(angles)], axis=1) * window[:, None]
    kernel = ops.convert_to_tensor(both[:, None, :].astype(np.float32))
    x = ops.pad(x, ((0, 0), (size // 2, size // 2)), mode="reflect")
    parts = ops.conv(
        ops.expand_dims(x, -1), kernel, layer.sequence_stride, "valid", "channels_last"
    )
    power = ops.square(parts[..., :bins]) + ops.square(parts[..., bins:])
    return power if layer.mag_exp == 2 else ops.power(ops.sqrt(power), layer.mag_exp)


def _layer_norm(layer: Any, given: Callable[..., Any], x: Any) -> Any:
    """Divide what is left of the mean by its norm, which is no sum of two large products."""
    tf = require("tensorflow", "keras", "to export Keras models")
    axes = tuple(sorted(int(axis) % len(x.shape) for axis in np.reshape(layer.axis, -1)))
    centred = x - tf.reduce_mean(x, axis=axes, keepdims=True)
    plain = not getattr(layer, "rms_scaling", False)
    y = rms_unit(tf, centred, axes, layer.epsilon) if plain else None
    if y is None:
        return given(x)
    form = [size if i in axes else 1 for i, size in enumerate(x.shape)]
    y = y if layer.gamma is None else y * tf.reshape(layer.gamma, form)
    return y if layer.beta is None else y + tf.reshape(layer.beta, form)


_KINDS = ("", "Transpose")
_EVERYWHERE: dict[str, tuple[str, Form]] = {
    "MelSpectrogram": ("_spectrogram", _spectrogram),
    "Argmax": ("call", _first_largest),
    "Argmin": ("call", _first_largest),
}
_FORMS: dict[Format, dict[str, tuple[str, Form]]] = {
    "onnx": {
        **_EVERYWHERE,
        "Discretization": ("call", _discretization),
        "UpSampling2D": ("call", _resized_smoothly),
    },
    "tflite": {
        **_EVERYWHERE,
        **{f"Conv{rank}D{kind}": ("call", _channels_last) for rank in (1, 2, 3) for kind in _KINDS},
        "UpSampling2D": ("call", _resized),
        "AveragePooling3D": ("call", _pool_3d),
        "MaxPooling3D": ("call", _pool_3d),
        "AdaptiveAveragePooling3D": ("call", _adaptive_pool_3d),
        "AdaptiveMaxPooling3D": ("call", _adaptive_pool_3d),
        "CategoryEncoding": ("call", _category_encoding),
        "UnitNormalization": ("call", _unit_normalization),
        "Dot": ("_merge_function", _normalized_dot),
        "Nonzero": ("call", _nonzero),
    },
}
"""By the layer's class: the method that is replaced, and by what."""
_STATIC: dict[str, tuple[str, Form]] = {
    "Softmax": ("call", masked_softmax),
    "Normalize": ("call", _normalized),
    "MultiHeadAttention": ("_compute_attention", scored_attention),
    "GroupedQueryAttention": ("_compute_attention", scored_attention),
}
"""The same, where activations are quantized."""
_NORMS: dict[str, tuple[str, Form]] = {"LayerNormalization": ("call", _layer_norm)}
"""The same, where vectors are divided by their norms in one operator."""
