"""Stock Keras layers that stand for one Conv2D.

T pairs are T branches and an Add, unless a measurement has said otherwise: a depth_multiplier above
one leaves the fast depthwise kernels of most runtimes. The bias and the activation sit on the last
operation only. A MobileNet block has a BatchNormalization and a ReLU between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...core.fitting.lowering import Branch, branches
from ...core.types import Factorization, NormActivation, as_float
from .copying import copy_layer
from .graph import keras_module


def pair_block(
    layer: Any, factors: Factorization, taken: set[str], *, keeps_name: bool
) -> Callable[..., Any]:
    """What a Conv2D is replaced by: a function of its input, callable any number of times.

    Args:
        layer: The Conv2D.
        factors: Its pairs; a bias of None leaves the pairs without one.
        taken: Names of the model's layers; the new ones avoid them and are added.
        keeps_name: Whether the last operation takes the convolution's own name, as it must where
            that names an output of the model.
    """
    keras = keras_module()

    def fresh(ending: str) -> str:
        name = f"{layer.name}_{ending}"
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    summed = branches(factors)
    single = len(summed) == 1
    last_name = {"name": layer.name} if keeps_name else {}
    ending = _ending(layer)
    made = []
    for t, branch in enumerate(summed):
        final, suffix = t == len(summed) - 1, "" if single else str(t + 1)
        made.append(
            _Branch(
                layer,
                factors,
                branch,
                {
                    kind: fresh(f"{kind}{suffix}")
                    for kind in ("dw", "bn", "relu", "pw")
                    if kind in ("dw", "pw") or branch.between is not None
                },
                use_bias=final and factors.bias is not None,
                extra=(ending | last_name) if single else {},
            )
        )
    common = {"dtype": layer.dtype_policy}
    acts = bool(ending)
    adder = None
    if not single:
        add_name = layer.name if keeps_name and not acts else fresh("add")
        adder = keras.layers.Add(name=add_name, **common)
    finisher = None
    if acts and not single:
        finish_name = layer.name if keeps_name else fresh("act")
        finisher = keras.layers.Activation(
            ending.get("activation", "linear"),
            activity_regularizer=ending.get("activity_regularizer"),
            name=finish_name,
            **common,
        )

    def block(inputs: Any) -> Any:
        outputs = [branch(inputs) for branch in made]
        result = outputs[0] if adder is None else adder(outputs)
        return result if finisher is None else finisher(result)

    return block


def _ending(layer: Any) -> dict[str, Any]:
    """What happens to a convolution's output inside the layer: activation and its penalty."""
    keras = keras_module()
    ending: dict[str, Any] = {}
    if layer.activation is not keras.activations.linear:
        ending["activation"] = _copy(layer.activation)
    if layer.activity_regularizer is not None:
        ending["activity_regularizer"] = layer.activity_regularizer
    return ending


def _copy(activation: Any) -> Any:
    """An activation that is itself a layer is copied, a function is shared."""
    if isinstance(activation, keras_module().layers.Layer):
        return copy_layer(activation)
    return activation


class _Branch:
    """One pair: its layers, with their weights set once they are built by the first call."""

    def __init__(
        self,
        layer: Any,
        factors: Factorization,
        kernels: Branch,
        names: Mapping[str, str],
        *,
        use_bias: bool,
        extra: dict[str, Any],
    ) -> None:
        keras = keras_module()
        depthwise_first = factors.order == "depthwise-first"
        common = {
            "data_format": layer.data_format,
            "dtype": layer.dtype_policy,
            "trainable": layer.trainable,
        }
        last = {
            "use_bias": use_bias,
            "bias_regularizer": layer.bias_regularizer if use_bias else None,
            "bias_constraint": layer.bias_constraint if use_bias else None,
            **extra,
        }
        depthwise = {"name": names["dw"], "use_bias": False}
        pointwise = {"name": names["pw"], "use_bias": False}
        if depthwise_first:
            pointwise |= last
        else:
            depthwise |= last
        self.depthwise = keras.layers.DepthwiseConv2D(
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            depth_multiplier=kernels.depthwise.shape[3],
            depthwise_regularizer=layer.kernel_regularizer,
            **common,
            **depthwise,
        )
        self.pointwise = keras.layers.Conv2D(
            layer.filters, 1, kernel_regularizer=layer.kernel_regularizer, **common, **pointwise
        )
        self.calls: tuple[Any, ...] = (self.depthwise, self.pointwise)
        if not depthwise_first:
            self.calls = (self.pointwise, self.depthwise)
        bias = [as_float(factors.bias)] if use_bias else []
        self.weights = {
            id(self.depthwise): [kernels.depthwise],
            id(self.pointwise): [kernels.pointwise[None, None]],
        }
        self.weights[id(self.calls[-1])] += bias
        if kernels.between is not None:
            self._add_norm_activation(kernels.between, layer, names)

    def _add_norm_activation(
        self, between: NormActivation, layer: Any, names: Mapping[str, str]
    ) -> None:
        """The BatchNormalization and the ReLU of a MobileNet block."""
        keras = keras_module()
        norm = keras.layers.BatchNormalization(
            axis=1 if layer.data_format == "channels_first" else -1,
            epsilon=between.epsilon,
            name=names["bn"],
            dtype=layer.dtype_policy,
            trainable=layer.trainable,
        )
        relu = keras.layers.ReLU(name=names["relu"], dtype=layer.dtype_policy)
        self.calls = (self.depthwise, norm, relu, self.pointwise)
        values = (between.gamma, between.beta, between.mean, between.variance)
        self.weights[id(norm)] = list(values)

    def __call__(self, inputs: Any) -> Any:
        for layer in self.calls:
            inputs = layer(inputs)
        for layer in self.calls:
            values = self.weights.pop(id(layer), None)
            if values is not None:
                layer.set_weights([np.asarray(value, np.float32) for value in values])
        return inputs
