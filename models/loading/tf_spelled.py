"""How a call of TensorFlow is spelled out in others, as files of tf.keras 2 record them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .graph import is_tensor
from .tf_calls import CONSTANT
from .tree import Config, with_config

Ref = list[Any]
"""A tensor as old files write it: [layer, call, output]."""


class Spelled:
    """The calls that stand for one; the last has its name, whatever reads it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._layers: list[Config] = []

    def __call__(self, function: str, *operands: Any, **keywords: Any) -> Ref:
        """Add a call, on tensors and, as keywords, on numbers and further tensors."""
        refs = [one[:3] if is_tensor(one) else [CONSTANT, -1, one] for one in operands]
        nodes = [[*ref, {} if place else keywords] for place, ref in enumerate(refs)]
        return self._add("TFOpLambda", function, nodes)

    def part(self, ref: Ref, start: int, stop: int | None) -> Ref:
        """Add a slice of the channels of images."""
        whole = {"start": None, "stop": None, "step": None}
        return self.item(ref, [whole] * 3 + [{"start": start, "stop": stop, "step": None}])

    def item(self, ref: Ref, spec: list[Any]) -> Ref:
        """Add ``x[…]``."""
        nodes = [[*ref[:3], {"slice_spec": spec}]]
        return self._add("SlicingOpLambda", "__operators__.getitem", nodes)

    def layers(self) -> list[Config]:
        """Return the calls."""
        *before, last = self._layers
        return [*before, {**with_config(last, name=self._name), "name": self._name}]

    def _add(self, kind: str, function: str, nodes: list[Any]) -> Ref:
        name = f"{self._name}_{len(self._layers) + 1}"
        config = {"name": name, "trainable": True, "dtype": "float32", "function": function}
        self._layers.append(
            {"class_name": kind, "name": name, "config": config, "inbound_nodes": [nodes]}
        )
        return [name, 0, 0]


Spelling = Callable[[Spelled, Any, Config], bool]
"""Spells out a call by its first operand and its keywords; False where it has no equal."""


def of_tensors(*names: str) -> Callable[[Spelling], Spelling]:
    """Let a spelling apply where the first operand and some keywords are tensors."""

    def applied(spelling: Spelling) -> Spelling:
        def checked(do: Spelled, x: Any, keywords: Config) -> bool:
            tensors = [x, *(keywords.get(name) for name in names)]
            return all(map(is_tensor, tensors)) and spelling(do, x, keywords)

        return checked

    return applied
