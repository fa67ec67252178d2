"""Sequential models that are built once, when all of their layers are there.

Keras rebuilds a Sequential model behind every layer that it reads: of 1,000 layers half a million
calls, which take longer than anybody waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stacked_once() -> Iterator[None]:
    """Let Keras read Sequential models without rebuilding them behind each layer."""
    import keras

    sequential: Any = keras.Sequential
    read, rebuild = sequential.__dict__["from_config"], sequential._maybe_rebuild
    reading = [False]
    """Whether the innermost model that is read is a Sequential one."""

    def rebuilt(model: Any) -> None:
        if not reading[0]:
            rebuild(model)

    def from_config(cls: Any, config: Any, custom_objects: Any = None) -> Any:
        # Where there is an input layer, its shape holds: Keras does not look at this one then.
        shape = config.get("build_input_shape")
        outer, reading[0] = reading[0], True
        try:
            model = read.__func__(
                cls, {**config, "build_input_shape": None}, custom_objects=custom_objects
            )
        finally:
            reading[0] = outer
        if model._layers:
            rebuild(model)
        if not model._functional and shape and isinstance(shape, tuple | list):
            model.build(shape)
        return model

    sequential._maybe_rebuild, sequential.from_config = rebuilt, classmethod(from_config)
    try:
        yield
    finally:
        sequential._maybe_rebuild, sequential.from_config = rebuild, read
