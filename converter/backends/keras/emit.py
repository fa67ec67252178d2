"""Stock Keras layers that stand for one Conv2D.

The branches of a block are summed by an Add. The bias and the activation sit on the last operation
only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

from ...core.types import BlockLayer, Branch, Depthwise, Factorization, Float, NormActivation
from .copying import copy_layer
from .graph import keras_module

PART = re.compile(r"(?P<convolution>.+)_(dw|pw|in|out|add|act)\d*_*")
"""The name of a layer of a block, as `emit_block` makes it, and the convolution that it names."""
Built = tuple[Any, list[Float]]
"""A layer, and its weights in the order in which Keras has them."""


def emit_block(
    layer: Any, factors: Factorization, taken: set[str], *, keeps_name: bool
) -> Callable[..., Any]:
    """Return what a Conv2D is replaced by: a function of its input, callable any number of times.

    Args:
        layer: The Conv2D.
        factors: Its block; a bias of None leaves the block without one.
        taken: Names of the model's layers; the new ones avoid them and are added.
        keeps_name: Whether the last operation takes the convolution's own name, as it must where
            that names an output of the model.
    """
    keras = keras_module()

    def fresh(ending: str, number: str = "") -> str:
        name = f"{layer.name}_{ending}{number}"
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    branches = factors.branches()
    single = len(branches) == 1
    ending = _ending(layer)
    extra = ending | ({"name": layer.name} if keeps_name else {}) if single else {}
    made = []
    for number, branch in enumerate(branches, 1):
        suffix = "" if single else str(number)
        bias = factors.bias if number == len(branches) else None
        made.append(_Branch(layer, branch, bias, extra, partial(fresh, number=suffix)))
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
    """Tell what happens to a convolution's output inside the layer: activation and its penalty."""
    keras = keras_module()
    ending: dict[str, Any] = {}
    if layer.activation is not keras.activations.linear:
        ending["activation"] = _copy(layer.activation)
    if layer.activity_regularizer is not None:
        ending["activity_regularizer"] = layer.activity_regularizer
    return ending


def _copy(activation: Any) -> Any:
    """Return an activation that is itself a layer is copied, a function is shared."""
    if isinstance(activation, keras_module().layers.Layer):
        return copy_layer(activation)
    return activation


class _Branch:
    """One branch: its layers, with their weights set once they are built by the first call."""

    def __init__(
        self,
        layer: Any,
        branch: Branch,
        bias: Float | None,
        extra: dict[str, Any],
        fresh: Callable[[str], str],
    ) -> None:
        last = extra
        if bias is not None:
            last = last | {
                "use_bias": True,
                "bias_regularizer": layer.bias_regularizer,
                "bias_constraint": layer.bias_constraint,
            }
        built: list[Built] = []
        for place, part in enumerate(branch):
            built += _layers(layer, part, fresh, last if place == len(branch) - 1 else {})
        if bias is not None:
            built[-1][1].append(bias)
        self.calls = [made for made, _ in built]
        self.pending: list[Built] = built

    def __call__(self, inputs: Any) -> Any:
        for layer in self.calls:
            inputs = layer(inputs)
        for layer, values in self.pending:
            if values:
                layer.set_weights([np.asarray(value, np.float32) for value in values])
        self.pending = []
        return inputs


def _layers(
    layer: Any, part: BlockLayer, fresh: Callable[[str], str], options: dict[str, Any]
) -> list[Built]:
    """Return the layers of one part of a branch, each with its weights."""
    keras = keras_module()
    if isinstance(part, NormActivation):
        return _norm_activation(layer, part, fresh)
    kernel: Array = part.kernel
    common = {
        "name": fresh(part.ending),
        "use_bias": False,
        "data_format": layer.data_format,
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
        **options,
    }
    if isinstance(part, Depthwise):
        depthwise = keras.layers.DepthwiseConv2D(
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            depth_multiplier=kernel.shape[3],
            depthwise_regularizer=layer.kernel_regularizer,
            **common,
        )
        return [(depthwise, [kernel])]
    pointwise = keras.layers.Conv2D(
        kernel.shape[1], 1, kernel_regularizer=layer.kernel_regularizer, **common
    )
    return [(pointwise, [kernel[None, None]])]


def _norm_activation(layer: Any, part: NormActivation, fresh: Callable[[str], str]) -> list[Built]:
    """Return a BatchNormalization and a ReLU."""
    keras = keras_module()
    norm = keras.layers.BatchNormalization(
        axis=1 if layer.data_format == "channels_first" else -1,
        epsilon=part.epsilon,
        name=fresh("bn"),
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
    )
    relu = keras.layers.ReLU(name=fresh("relu"), dtype=layer.dtype_policy)
    return [(norm, [part.gamma, part.beta, part.mean, part.variance]), (relu, [])]
