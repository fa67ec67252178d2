"""Keras layers and operations under names that tell the node they came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from dsconvert.base.errors import InputError

from .graph import Node
from .values import Sizes, common_shape

_LARGE = 4096
"""From this number of elements on, a constant operand is held by a layer."""


class KerasMaker:
    """Makes layers and operations of one model, each with a name of its own."""

    def __init__(self) -> None:
        import keras

        self.keras = keras
        self._names: set[str] = set()

    def name(self, wanted: str) -> str:
        """Return a name that Keras allows and that no other layer has."""
        clean = re.sub(r"[^\w.-]+", "_", wanted, flags=re.ASCII).strip("_-.") or "layer"
        unique, number = clean, 0
        while unique in self._names:
            number += 1
            unique = f"{clean}_{number}"
        self._names.add(unique)
        return unique

    def layer(self, node: Node, kind: str, *, suffix: str = "", **config: Any) -> Any:
        """Return a stock Keras layer called after the node.

        Args:
            node: The node.
            kind: The layer's class in `keras.layers`.
            suffix: Appended to the name, for layers beside the main one: ``"_pad"``.
            config: Its arguments.
        """
        return self.layer_named(node.name + suffix, kind, **config)

    def layer_named(self, name: str, kind: str, **config: Any) -> Any:
        """As `layer`, with a name of its own."""
        config.setdefault("dtype", "float32")
        return getattr(self.keras.layers, kind)(name=self.name(name), **config)

    def apply(self, node: Node, function: str, *args: Any, **options: Any) -> Any:
        """Call `keras.ops.<function>` and call the operation after the node.

        Operations are only made through here: a name that Keras counted out could be that of
        another node.
        """
        if function == "add" and _taken_for_bias(*args):
            negative = self.apply(node, "negative", args[1]) if is_symbolic(args[1]) else -args[1]
            return self.apply(node, "subtract", args[0], negative)
        made = _find(self.keras.ops, function)(*args, **options)
        self.rename(made[0] if isinstance(made, list | tuple) else made, node.name)
        return made

    def view(self, node: Node, tensor: Any, key: tuple[slice, ...]) -> Any:
        """Return a strided slice of a Keras tensor."""
        part = tensor[key]
        self.rename(part, node.name)
        return part

    def held(self, operand: Any, near: Any, least: int = _LARGE) -> Any:
        """Return a large array as the output of a layer that holds it, anything else as it is.

        Arrays that operations are called with become text in the model's configuration.

        Args:
            operand: A Keras tensor or an array.
            near: Any Keras tensor: a layer needs an input, though it makes nothing of it.
            least: Values from which on an array counts as large.
        """
        if is_symbolic(operand) or operand.size < least or operand.dtype.kind != "f":
            return operand
        first = self.keras.ops.get_item(near, (0,) * len(near.shape))
        self.rename(first, "constant_near")
        zero = self.keras.ops.zeros_like(first, dtype="int32")
        self.rename(zero, "constant_row")
        table = self.layer_named(
            "constant", "Embedding", input_dim=1, output_dim=operand.size, trainable=False
        )
        row = table(zero)
        table.embeddings.assign(operand.reshape(1, -1))
        tensor = self.keras.ops.reshape(row, operand.shape)
        self.rename(tensor, "constant_shaped")
        return tensor

    def reshape(
        self, tensor: Any, source: Sequence[Sizes], target: Sequence[Sizes], name: str
    ) -> Any:
        """Reshape a Keras tensor, with a free batch and one more free size at most.

        Args:
            tensor: The Keras tensor.
            source: Its shape in Keras axes, once per probe.
            target: The new shape in Keras axes, once per probe.
            name: What to call the layer.

        Raises:
            InputError: If more sizes are free than Keras can leave open.
        """
        sizes = common_shape(target)
        free = [axis for axis, size in enumerate(sizes) if size is None]
        keeps_batch = all(a[:1] == b[:1] for a, b in zip(source, target, strict=True))
        inner = [-1 if size is None else size for size in sizes]
        if keeps_batch and len([axis for axis in free if axis > 0]) <= 1 and len(sizes) > 1:
            layer = self.keras.layers.Reshape(
                tuple(inner[1:]), name=self.name(name), dtype=tensor.dtype
            )
            return layer(tensor)
        if len(free) > 1:
            raise InputError(
                f"the reshape that makes {name!r} leaves {len(free)} sizes open; Keras can leave "
                "the batch and one more.",
                "Fix the input's height and width, or give images: theirs are taken.",
                code="free-sizes",
            )
        reshaped = self.keras.ops.reshape(tensor, tuple(inner))
        self.rename(reshaped, name)
        return reshaped

    def rename(self, tensor: Any, wanted: str) -> None:
        """Name the operation behind a tensor: Keras would only number it."""
        operation = tensor._keras_history.operation
        operation.name = self.name(wanted)


def is_symbolic(operand: Any) -> bool:
    """Tell whether an operand is a Keras tensor of the model, and no array."""
    return hasattr(operand, "_keras_history")


def _taken_for_bias(a: Any, b: Any) -> bool:
    """Tell whether Keras would add ``b`` along another axis than it stands on.

    On TensorFlow `keras.ops.add` takes a ``b`` that has one axis larger than 1 for the bias of
    ``a``'s channels where the sizes allow it, whichever axis that is: (4, 1) is added to (…, 4, 4)
    as (4,) is. Of integers TFLite knows no bias.
    """
    first, second = (tuple(getattr(x, "shape", ())) for x in (a, b))
    large = [axis for axis, size in enumerate(second) if size is None or size > 1]
    if len(large) != 1 or len(first) < 2 or second[large[0]] not in (first[1], first[-1]):
        return False
    on_channels = large[0] == len(second) - 1 and len(second) <= len(first)
    whole = "int" in str(getattr(b, "dtype", ""))
    return whole or not on_channels or first[-1] != second[-1]


def _find(module: Any, path: str) -> Callable[..., Any]:
    for part in path.split("."):
        module = getattr(module, part)
    return module  # type: ignore[no-any-return]
