"""Faults of Keras that would make a wrong result look right, mended where Keras is first imported.

A reference that shares a fault with the file it is compared with proves nothing. Each fault is
probed
for: a version of Keras without it is left as it is.
"""

from __future__ import annotations

import importlib
import logging
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)
_looked_at: set[int] = set()


def mend(keras: ModuleType) -> None:
    """Mend what is known to be wrong in a Keras that runs on TensorFlow; once for each import."""
    if id(keras) in _looked_at or keras.backend.backend() != "tensorflow":
        return
    _looked_at.add(id(keras))
    _mend_channels_first_bias(keras)


def _mend_channels_first_bias(keras: ModuleType) -> None:
    """Add a bias of shape (1, N, 1, 1) to the channels, also where images are N columns wide.

    ``ops.add`` of Keras 3.15 takes such a bias for one of the last axis if that axis has N values:
    convolutions with ``data_format="channels_first"`` then add it to the columns.
    """
    import numpy as np

    numpy: Any = importlib.import_module("keras.src.backend.tensorflow.numpy")
    tensorflow: Any = importlib.import_module("tensorflow")
    values = np.zeros((1, 2, 3, 2), np.float32)
    bias = np.array([1, 2], np.float32).reshape(1, 2, 1, 1)
    if np.array_equal(np.asarray(numpy.add(values, bias)), values + bias):
        return
    wrong = numpy.add

    def add(x1: Any, x2: Any) -> Any:
        shape: Any = getattr(x2, "shape", ())
        if len(shape) > 1 and shape[-1] == 1:
            x1, x2 = keras.ops.convert_to_tensor(x1), keras.ops.convert_to_tensor(x2)
            if x1.dtype == x2.dtype:
                return tensorflow.add(x1, x2)
        return wrong(x1, x2)

    numpy.add = add
    logger.info("Keras %s adds channels-first biases to columns; mended", keras.__version__)
