"""The table of operators: one small function each, registered by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from .graph import Node
from .values import Tensor

if TYPE_CHECKING:
    from .builder import KerasBuilder

Handler = Callable[[Node, "KerasBuilder"], "Tensor | Sequence[Tensor]"]
H = TypeVar("H", bound=Handler)

HANDLERS: dict[str, Handler] = {}


def op(*names: str) -> Callable[[H], H]:
    """Register the handler of one or several operators of ONNX' own domain.

    A handler draws one node: it reads its operands and attributes through the `KerasBuilder`, makes
    Keras layers or operations through it, and returns one `Tensor` per output, made with
    `KerasBuilder.result`. It is only called for nodes that depend on the model's inputs.
    """

    def register(handler: H) -> H:
        for name in names:
            if name in HANDLERS:
                raise ValueError(f"two handlers for {name}")
            HANDLERS[name] = handler
        return handler

    return register
