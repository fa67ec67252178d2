"""The sizes of what a Keras file asks for: its weights against those stored, its activations.

Keras makes the weights of each layer by its configuration, filled with random values, before it
reads those of the file: a damaged number takes all memory then.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Shape
from dsconvert.base.size_bounds import bytes_of, check_tensor, fixed_batch, with_small_sizes

from .tree import Config, name_of, objects

_ALWAYS = 1 << 20
"""Values that a layer may have whatever is stored: states of a layer that no file holds."""
_TIMES = 4
"""Times as many values as are stored that all layers may have: some are made and not used."""
_COUNTS = {
    *("filters", "kernel_size", "strides", "dilation_rate", "pool_size", "groups"),
    *("units", "depth_multiplier"),
}
_SAVE_AGAIN = "Load the model where it was made and save it again: model.save('model.keras')."


@contextmanager
def bounded_weights(path: Path, stored: int) -> Iterator[None]:
    """Refuse, while a model is built, a weight that the file cannot hold; before it is made.

    Args:
        path: The file.
        stored: Values that it holds.

    Raises:
        InputError: If a layer asks for more.
    """
    import keras

    real = keras.layers.Layer.add_weight
    refused: list[InputError] = []
    total = 0

    def add_weight(layer: Any, shape: Any = None, *arguments: Any, **named: Any) -> Any:
        nonlocal total
        sizes = _sizes(shape)
        count = math.prod(sizes)
        total += count
        if count > stored + _ALWAYS or total > _TIMES * (stored + _ALWAYS):
            told = "×".join(map(str, sizes))
            refused.append(
                InputError(
                    f"{path}: its weights do not fit its architecture: {layer.name} asks for a "
                    f"weight of {told}, {total:,} values with those before it, and the file holds "
                    f"{stored:,}.",
                    _SAVE_AGAIN,
                    code="weights-do-not-fit",
                )
            )
            raise refused[0]
        return real(layer, shape, *arguments, **named)

    keras.layers.Layer.add_weight = add_weight
    try:
        yield
    except Exception:
        if refused:  # Keras puts words of its own around what a layer raises
            raise refused[0] from None
        raise
    finally:
        keras.layers.Layer.add_weight = real


def check_windows(path: Path, config: Config) -> None:
    """Refuse layers whose windows and channels are no whole numbers of at least 1.

    Keras cuts a stride of 0.5 down to 0 itself, and then divides by it, or does not.

    Args:
        path: The file.
        config: What it says of the model.

    Raises:
        InputError: With the layer, the setting and its value.
    """
    for item in objects(config):
        if not any(kind in item["class_name"] for kind in ("Conv", "Dense", "Pool")):
            continue
        for key in _COUNTS & item["config"].keys():
            value = item["config"][key]
            numbers = value if isinstance(value, list | tuple) else [value]
            for number in numbers:
                if isinstance(number, int | float) and not (
                    1 <= number < math.inf and number % 1 == 0
                ):
                    raise InputError(
                        f"{path}: {key} of {name_of(item)} is {value}: whole numbers of at least 1 "
                        "are allowed.",
                        _SAVE_AGAIN,
                        code="bad-configuration",
                    )


def _sizes(shape: Any) -> tuple[int, ...]:
    """Return the sizes of a weight; what is none of a kind that is known counts as 1."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape or ())
    return tuple(abs(size) if isinstance(size, int) else 1 for size in sizes)


def check_activations(path: Path, model: Any) -> None:
    """Refuse a model in which a layer gives, or pads its input to, more than the bound.

    Args:
        path: Its file.
        model: The model; sizes that it leaves free are those of a small image.

    Raises:
        InputError: If a layer does; see `dsconvert.base.size_bounds`.
    """
    inputs = sum(_bytes(tensor, with_small_sizes(tensor.shape)) for tensor in model.inputs)
    batch = fixed_batch(tuple(tensor.shape) for tensor in model.inputs)
    for what, tensor, shape in _tensors(model):
        check_tensor(str(path), what, shape, _element(tensor), inputs, batch)


def largest_of(model: Any) -> int:
    """Bytes of the largest tensor that a model computes of one sample; free sizes are small."""
    return max((_bytes(tensor, shape) for _, tensor, shape in _tensors(model)), default=0)


def _tensors(model: Any, known: dict[int, Shape] | None = None) -> Iterator[tuple[str, Any, Shape]]:
    """Yield what each layer of a model computes: its name, the symbolic tensor, and its shape."""
    known = {} if known is None else known
    graph = getattr(model, "_functional", None) or model
    for tensor in graph.inputs:
        shape = known.setdefault(id(tensor), with_small_sizes(tensor.shape))
        yield "the input", tensor, shape
    for operation in getattr(graph, "operations", ()):
        inner = getattr(operation, "_functional", None) or operation
        if getattr(inner, "operations", None) and getattr(inner, "inputs", None):
            yield from _tensors(operation, known)
        for node in operation._inbound_nodes:
            read = [known.get(id(tensor)) for tensor in node.arguments.keras_tensors]
            if len(read) == 1 and read[0] is not None:
                padded = _padded(operation, read[0])
                if padded is not None:
                    tensor = node.arguments.keras_tensors[0]
                    yield f"the padded input of {operation.name}", tensor, padded
            for tensor in node.outputs:
                shape = known.setdefault(id(tensor), _given(operation, tensor, read))
                yield f"the output of {operation.name}", tensor, shape


def _given(operation: Any, tensor: Any, read: list[Shape | None]) -> Shape:
    """Return the shape that an operation gives, where it is free: of what it reads."""
    declared = tuple(tensor.shape)
    if None in declared[1:] and len(read) == 1 and read[0] is not None:
        with suppress(Exception):  # it gives several, or cannot tell
            shape = tuple(operation.compute_output_shape(read[0]))
            if len(shape) == len(declared):
                return tuple(1 if size is None else int(size) for size in shape)
    return tuple(1 if size is None else size for size in declared)


def _padded(layer: Any, shape: Shape) -> Shape | None:
    """Return what the input of a window is padded to, to keep its size; None for no window."""
    window = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
    if window is None or getattr(layer, "padding", None) != "same":
        return None
    if "Transpose" in type(layer).__name__ or not isinstance(window, tuple):
        return None
    dilation = getattr(layer, "dilation_rate", 1)
    steps = dilation if isinstance(dilation, tuple) else (dilation,) * len(window)
    first = 2 if getattr(layer, "data_format", "") == "channels_first" else 1
    sizes = list(shape)
    for axis, (size, step) in enumerate(zip(window, steps, strict=False), first):
        if axis < len(sizes):
            sizes[axis] = (sizes[axis] or 1) + (size - 1) * step
    return tuple(sizes)


def _bytes(tensor: Any, shape: Shape) -> int:
    return bytes_of(shape, _element(tensor))


def _element(tensor: Any) -> int:
    """Bytes of a value, by the number in the name of its type; 1 of those without one."""
    bits = re.search(r"\d+", str(tensor.dtype))
    return max(1, int(bits[0]) // 8) if bits else 1
