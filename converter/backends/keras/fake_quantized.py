"""A Keras model computed as its int8 .tflite file will compute it, and differentiable.

Weights are rounded per output channel and symmetrically, activations per tensor (Jacob et al.,
arXiv:1712.05877). Gradients pass through the rounding where a value is within its range
(straight-through, Bengio et al., arXiv:1308.3432). Norms behind a convolution, or behind a sum of
convolutions, are folded into the kernels before these are rounded, and activations that the file
fuses are not rounded twice: what is rounded here is what the file stores.

The layers are those of the model: what changes their weights changes the model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.base.tensors import in_float32

from .graph import Step, flatten, keras_module
from .quantizable import activation_name, check_quantizable, has_kernel, is_relu
from .read import is_depthwise

_BITS = 8
_UNMOVED = (
    *("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"),
    *("Reshape", "Flatten", "Permute", "ZeroPadding1D", "ZeroPadding2D", "Cropping2D"),
)
"""Layers whose output has the scale of their input."""
_NOTHING = ("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "Identity")
"""Layers that do nothing in inference."""
_IN_PLACE = ("Add", "Subtract", "Multiply")
"""Layers and operations that TFLite computes in the place of an operand."""
_FUSED = ("linear", "relu", "relu6")
"""Activations that the operators compute themselves."""
_FIXED = {"softmax": (0.0, 255 / 256), "sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
"""Ranges that the format fixes."""
_BATCH = 64


@dataclass(frozen=True)
class _Fold:
    """A norm that a convolution takes in, and whether its bias too."""

    norm: Any
    biased: bool


class FakeQuantized:
    """A model that is run with the rounding of int8, in inference mode.

    Args:
        model: A functional or Sequential model in float32.
        calibration: What the ranges of activations come from, (n, ...) for each input: from the
            least to the greatest value, as in the converter.

    Attributes:
        states: The ranges, which `calibrate` sets.

    Raises:
        InputError: If the model has layers with kernels of other kinds.
    """

    def __init__(self, model: Any, calibration: Sequence[Array]) -> None:
        import tensorflow as tf

        self.model = model
        self.graph = flatten(model)
        self._calibration = calibration
        self._makers = {
            value: number for number, step in enumerate(self.graph.steps) for value in step.writes
        }
        self._readers = self._read_by()
        check_quantizable(self.graph.steps)
        self._folds: dict[int, _Fold] = {}
        self._gone = set(self._folded())
        self._range_of = self._ranges()
        numbers = sorted(set(self._range_of.values()))
        self._place = {number: place for place, number in enumerate(numbers)}
        self.states = [tf.Variable(tf.zeros((len(numbers), 2)), trainable=False, name="ranges")]
        self._fixed = self._fixed_ranges()
        self._observe = tf.function(self._extremes, autograph=False, reduce_retracing=True)

    def calibrate(self) -> None:
        """Take the ranges of the calibration data with the weights as they are now."""
        count = len(self._calibration[0])
        found = []
        for start in range(0, count, _BATCH):
            batch = [array[start : start + _BATCH] for array in self._calibration]
            found.append(np.asarray(self._observe([np.asarray(x, np.float32) for x in batch])))
        extremes = np.stack(found)
        ranges = np.stack([extremes[..., 0].min(axis=0), extremes[..., 1].max(axis=0)], axis=-1)
        ranges = np.stack([np.minimum(ranges[:, 0], 0), np.maximum(ranges[:, 1], 0)], axis=-1)
        ranges[:, 1] = np.maximum(ranges[:, 1], ranges[:, 0] + 1e-6)  # a tensor of zeros
        for place, limits in self._fixed.items():
            ranges[place] = limits
        self.states[0].assign(ranges)

    def run(self, inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Compute the outputs from one tensor per input, (n, ...), with the rounding of int8.

        No features are compared: those of a network in int8 are not those of its teacher.

        Outputs whose range the format fixes, as probabilities, are not rounded: those below 1/512
        would become 0, whose logarithm is no target and which has no gradient.
        """
        values = self._values(inputs, rounded=True, exact=self._probabilities)
        return [values[number] for number in self.graph.outputs], []

    def answer(self, inputs: Sequence[Any]) -> list[Any]:
        """Compute the outputs as `run` does, all of them rounded, as the file gives them."""
        values = self._values(inputs, rounded=True)
        return [values[number] for number in self.graph.outputs]

    @property
    def _probabilities(self) -> set[int]:
        return {x for x in self.graph.outputs if self._place.get(x) in self._fixed}

    def _extremes(self, inputs: Sequence[Any]) -> Any:
        """Return the least and the greatest value of each range's own tensor, (ranges, 2)."""
        import tensorflow as tf

        values = self._values(inputs, rounded=False)

        def extremes(number: int) -> Any:
            return tf.stack([tf.reduce_min(values[number]), tf.reduce_max(values[number])])

        found = {number: extremes(number) for number in self._place}
        for number, place in self._overwritten().items():
            if number in found:
                seen = tf.stack([found[number], extremes(place)])
                low, high = tf.reduce_min(seen[:, 0]), tf.reduce_max(seen[:, 1])
                found[number] = tf.stack([low, high])
        return tf.stack(list(found.values()))

    def _overwritten(self) -> dict[int, int]:
        """Map values to what stands in their place when the converter looks at them.

        While it calibrates, TFLite writes a sum over its first operand that nothing else reads, and
        what an operator reads is looked at after the operator has run.
        """
        found = {}
        for step in self.graph.steps:
            if type(step.operation).__name__ not in _IN_PLACE:
                continue
            shape = self.graph.symbolic[step.writes[0]].shape
            for value in step.reads.values():
                if self._alone(value) and self.graph.symbolic[value].shape == shape:
                    found[value] = self._seen_after(step)
                    break
        return found

    def _seen_after(self, step: Step) -> int:
        """Number the value that the operator of a step stores: behind what is fused into it."""
        value = step.writes[0]
        while value not in self._range_of:
            (reader,) = self._readers[value]
            value = self.graph.steps[reader].writes[0]
        return value

    def _values(
        self, inputs: Sequence[Any], *, rounded: bool, exact: Collection[int] = ()
    ) -> dict[int, Any]:
        """Compute all values, rounded where the file stores them, but for some."""
        values = {
            number: self._stored(number, value, rounded)
            for number, value in zip(self.graph.inputs, inputs, strict=True)
        }
        for number, step in enumerate(self.graph.steps):
            if number in self._gone:
                values[step.writes[0]] = values[next(iter(step.reads.values()))]
            elif has_kernel(step.operation):
                self._linear(number, step, values, rounded)
            else:
                step.run(values)
            for value in step.writes:
                stored = rounded and value not in exact
                values[value] = self._stored(value, in_float32(values[value]), stored)
        return values

    def _stored(self, number: int, value: Any, rounded: bool) -> Any:
        """Round a value that the file stores."""
        import tensorflow as tf

        if not rounded or number not in self._range_of:
            return value
        low, high = self._limits(number)
        return tf.quantization.fake_quant_with_min_max_vars(value, low, high, num_bits=_BITS)

    def _step_size(self, number: int) -> Any:
        """Return the step between two stored values of a tensor."""
        low, high = self._limits(number)
        return (high - low) / 255

    def _limits(self, number: int) -> tuple[Any, Any]:
        """Return the least and the greatest value that a tensor can store."""
        import tensorflow as tf

        low, high = tf.unstack(self.states[0][self._place[self._range_of[number]]])
        return low, high

    def _linear(self, number: int, step: Step, values: dict[int, Any], rounded: bool) -> None:
        """Compute a convolution or a dense layer with its folded, rounded kernel."""
        import tensorflow as tf

        keras, layer = keras_module(), step.operation
        value = values[next(iter(step.reads.values()))]
        kernel, bias = self._folded_weights(number, layer)
        if rounded:
            others = list(range(len(kernel.shape) - 1))
            size = tf.maximum(tf.reduce_max(tf.abs(kernel), axis=others), 1e-9)
            kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
                kernel, -size, size, num_bits=_BITS, narrow_range=True
            )
            if bias is not None:  # rounded to the steps of the sums, as int32
                steps = self._step_size(next(iter(step.reads.values()))) * size / 127
                bias = bias + tf.stop_gradient(tf.round(bias / steps) * steps - bias)
        if isinstance(layer, keras.layers.Dense):
            made = tf.matmul(value, kernel) if len(value.shape) == 2 else value @ kernel
        else:
            options = {
                "strides": layer.strides,
                "padding": layer.padding,
                "data_format": layer.data_format,
                "dilation_rate": layer.dilation_rate,
            }
            if is_depthwise(layer):
                kernel = tf.reshape(kernel, layer.kernel.shape)
                made = keras.ops.depthwise_conv(value, kernel, **options)
            else:
                made = keras.ops.conv(value, kernel, **options)
        if bias is not None:
            made = made + bias
        if activation_name(layer.activation) not in _FUSED:
            # The file stores what such an activation reads, and the activation's own output.
            made = self._stored(_before(step), made, rounded)
            values[_before(step)] = made
        values[step.writes[0]] = layer.activation(made)

    def _folded_weights(self, number: int, layer: Any) -> tuple[Any, Any]:
        """Return the kernel, the output channels on its last axis, and the bias, or None."""
        import tensorflow as tf

        kernel = in_float32(layer.kernel.value)
        bias = in_float32(layer.bias.value) if layer.use_bias else None
        if is_depthwise(layer):
            kernel = tf.reshape(kernel, (*kernel.shape[:2], 1, -1))
        fold = self._folds.get(number)
        if fold is None:
            return kernel, bias
        norm = fold.norm
        gain = tf.math.rsqrt(in_float32(norm.moving_variance.value) + norm.epsilon)
        if norm.scale:
            gain = gain * in_float32(norm.gamma.value)
        bias = 0.0 if bias is None else bias * gain
        if fold.biased:
            bias = bias - in_float32(norm.moving_mean.value) * gain
            bias = bias + in_float32(norm.beta.value) if norm.center else bias
        return kernel * gain, bias

    def _read_by(self) -> dict[int, list[int]]:
        readers: dict[int, list[int]] = {}
        for number, step in enumerate(self.graph.steps):
            for value in step.reads.values():
                readers.setdefault(value, []).append(number)
        return readers

    def _alone(self, value: int) -> bool:
        """Tell whether one step, and nothing else, reads a value."""
        return len(self._readers.get(value, ())) == 1 and value not in self.graph.outputs

    def _folded(self) -> Iterator[int]:
        """Find the norms that go into convolutions, and yield their steps."""
        makers, steps = self._makers, self.graph.steps

        def term(value: int) -> int | None:
            """Return the step of the linear convolution whose output only the fold reads."""
            maker = makers.get(value)
            if maker is None or not self._alone(value) or not has_kernel(steps[maker].operation):
                return None
            layer = steps[maker].operation
            once = len(self.graph.calls(layer)) == 1
            return maker if once and activation_name(layer.activation) == "linear" else None

        for number, step in enumerate(steps):
            if type(step.operation) is not keras_module().layers.BatchNormalization:
                continue
            (read,) = step.reads.values()
            terms = [term(read)]
            adds = makers.get(read)
            if terms == [None] and adds is not None and self._alone(read):
                if type(steps[adds].operation).__name__ != "Add":
                    continue
                terms = [term(value) for value in steps[adds].reads.values()]
            found = [one for one in terms if one is not None]
            if len(found) < len(terms):
                continue
            for one in found:
                self._folds[one] = _Fold(step.operation, one == found[-1])
            yield number

    def _ranges(self) -> dict[int, int]:
        """Map each value that the file stores to the value that its range comes from."""
        unstored = {
            next(iter(step.reads.values()))
            for number, step in enumerate(self.graph.steps)
            if number in self._gone or self._is_fused(step)
        }
        found = {number: number for number in self.graph.inputs}
        for step in self.graph.steps:
            read = next(iter(step.reads.values()), -1)
            keeps = type(step.operation).__name__ in (*_NOTHING, *_UNMOVED)
            for value in step.writes:
                if value not in unstored:
                    found[value] = found[read] if keeps and read in found else value
            if (
                has_kernel(step.operation)
                and activation_name(step.operation.activation) not in _FUSED
            ):
                found[_before(step)] = _before(step)
        return found

    def _is_fused(self, step: Step) -> bool:
        """Tell whether a step is a ReLU that the operator which makes its input computes."""
        if not is_relu(step.operation):
            return False
        (read,) = step.reads.values()
        maker = self._makers.get(read)
        if maker is None or not self._alone(read):
            return False
        if maker in self._gone:
            maker = self._makers[next(iter(self.graph.steps[maker].reads.values()))]
        operation = self.graph.steps[maker].operation
        if has_kernel(operation):
            return activation_name(operation.activation) == "linear"
        return type(operation).__name__ in ("Add", "Subtract", "Multiply", "BatchNormalization")

    def _fixed_ranges(self) -> dict[int, tuple[float, float]]:
        """Return the ranges of outputs that the format fixes, by their place."""
        found = {}
        for step in self.graph.steps:
            kind = activation_name(getattr(step.operation, "activation", None))
            kind = kind or type(step.operation).__name__.lower()
            own = self._range_of.get(step.writes[0])
            if kind in _FIXED and own == step.writes[0]:
                found[self._place[own]] = _FIXED[kind]
        return found


def _before(step: Step) -> int:
    """Number the value that an activation inside a layer reads: no value of the graph."""
    return -1 - step.writes[0]
