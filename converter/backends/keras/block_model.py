"""A Keras model of one convolution and what may replace it, to be exported and timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.planning.block_weights import block_padding, block_weights
from ...core.planning.cost_model import Block
from ...core.types import Choice
from .emit import emit_block
from .graph import keras_module


def block_model(block: Block, choices: Sequence[Choice | None]) -> Any:
    """Write a convolution as each choice says, with the layers that a rewrite would write.

    Args:
        block: The convolution.
        choices: What replaces it; None for the convolution itself.

    Returns:
        A model of one image (1, H, W, C) and one output for each choice, in their order.

    Raises:
        InputError: If nothing comes out of the block, or a choice leaves open what is written.
    """
    keras = keras_module()
    drawn = [block_weights(block, choice) for choice in choices]
    pads, is_same = block_padding(block)
    image = keras.Input(batch_shape=(1, *block.input_size, block.in_channels), name="image")
    read, padding = image, "same" if is_same else "valid"
    if not is_same and np.any(pads):
        read = keras.layers.ZeroPadding2D(pads, name="padding")(image)
    outputs = []
    for number, weights in enumerate(drawn):
        layer = keras.layers.Conv2D(
            block.out_channels,
            block.kernel_size,
            strides=block.strides,
            padding=padding,
            dilation_rate=block.dilation,
            activation=None if block.activation == "none" else block.activation,
            name=f"block{number}",
        )
        if weights.factors is None:
            outputs.append(layer(read))
            layer.set_weights([weights.kernel, weights.bias])
        else:
            outputs.append(emit_block(layer, weights.factors, set(), keeps_name=False)(read))
    return keras.Model(image, outputs, name="blocks")
