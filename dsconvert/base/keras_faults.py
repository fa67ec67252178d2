"""Faults of Keras, mended where it is first imported.

Some would make a wrong result look right: a reference that shares a fault with the file it is
compared with proves nothing. These are probed for: a version of Keras without them is left as it
is. Others stop work that can be done.
"""

from __future__ import annotations

import importlib
import logging
import re
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)
_looked_at: set[int] = set()


def mend(keras: ModuleType) -> None:
    """Mend what is known to be wrong in a Keras that runs on TensorFlow; once for each import."""
    if id(keras) in _looked_at or keras.backend.backend() != "tensorflow":
        return
    _looked_at.add(id(keras))
    _mend_sums(keras)
    _mend_scopes()


def _mend_sums(keras: ModuleType) -> None:
    """Let ``ops.add`` broadcast: it takes what has one axis longer than 1 for a bias.

    That of Keras 3.15 adds such values to the last axis or to the second one, whichever has their
    number. Convolutions with ``data_format="channels_first"`` then add a bias of (1, N, 1, 1) to
    the columns of images that are N wide, and the sum of (1, T, 1) and (1, 1, T), which graph
    attention takes of a single sample, stays (1, T, 1).
    """
    import numpy as np

    numpy: Any = importlib.import_module("keras.src.backend.tensorflow.numpy")
    tensorflow: Any = importlib.import_module("tensorflow")
    values = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    column = values[:, :, :1, 0]
    sums = [(values, values[:, :, :1, :1]), (column, column.transpose(0, 2, 1))]
    if all(np.array_equal(np.asarray(numpy.add(one, other)), one + other) for one, other in sums):
        return
    wrong = numpy.add

    def add(x1: Any, x2: Any) -> Any:
        first: Any = getattr(x1, "shape", ())
        second: Any = getattr(x2, "shape", ())
        if len(first) and len(second):
            column = first[-1] == 1 and second[-1] != 1
            if column or (len(second) > 1 and second[-1] == 1):
                x1, x2 = keras.ops.convert_to_tensor(x1), keras.ops.convert_to_tensor(x2)
                dtype = keras.backend.result_type(x1.dtype, x2.dtype)
                return tensorflow.add(keras.ops.cast(x1, dtype), keras.ops.cast(x2, dtype))
        return wrong(x1, x2)

    numpy.add = add
    logger.info("Keras %s adds to other axes than broadcasting does; mended", keras.__version__)


_FIRST = re.compile(r"[A-Za-z0-9.]")
_OUTSIDE = re.compile(r"[^A-Za-z0-9_.\\/>-]")


def _mend_scopes() -> None:
    """Let graphs of TensorFlow be traced of layers with any name that Keras takes.

    Keras opens a scope of the layer's name, and TensorFlow takes no brackets, blanks or letters
    beyond ASCII in one: a model of another backend can be computed and not be trained. The name
    itself, and those of its variables, stay.
    """
    core: Any = importlib.import_module("keras.src.backend.tensorflow.core")
    tensorflow: Any = importlib.import_module("tensorflow")
    scope = core.name_scope
    given = scope.__init__

    def begin(self: Any, name: str, **options: Any) -> None:
        given(self, name, **options)
        plain = _OUTSIDE.sub("_", name)
        if not tensorflow.get_current_name_scope() and not _FIRST.match(plain):
            plain = f".{plain}"  # an outermost scope begins otherwise than those inside it
        if plain != name:
            self._tf_name_scope = tensorflow.name_scope(plain)

    scope.__init__ = begin
