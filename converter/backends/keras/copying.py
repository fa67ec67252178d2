"""A second layer like a given one."""

from __future__ import annotations

import warnings
from types import FunctionType
from typing import Any

from .graph import keras_module


def copy_layer(layer: Any) -> Any:
    """Return a new layer or operation of the same configuration, not yet built, so without weights.

    Python functions are taken over as they are. Keras' own way back from a configuration goes by
    their names: it refuses lambdas and functions that were not registered, and mistakes a user's
    ``relu`` for its own.
    """
    keras = keras_module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lambdas, which are not read back from here
        config = layer.get_config()
    for key in config:
        value = getattr(layer, key, None)
        if isinstance(value, FunctionType):
            config[key] = value
    if type(layer) is keras.layers.Lambda:  # its from_config() takes no functions
        config |= {"mask": layer.mask, "arguments": layer.arguments}
        return keras.layers.Lambda(**config | {"output_shape": layer._output_shape})
    return type(layer).from_config(config)
