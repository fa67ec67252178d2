"""Walking a Keras model's configuration, a tree of JSON objects, without changing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Config = dict[str, Any]
"""A JSON object. One that describes a Keras object has ``class_name`` and ``config``."""

MODEL_CLASSES = frozenset({"Functional", "Model", "Sequential"})


def is_object(value: Any) -> bool:
    """Tell whether a JSON value describes a Keras object with a configuration of its own."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("class_name"), str)
        and isinstance(value.get("config"), dict)
    )


def objects(value: Any) -> Iterator[Config]:
    """Yield every Keras object at any depth: the outer one first, then what it holds, in order."""
    if is_object(value):
        yield value
    children = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for child in children:
            yield from objects(child)


def edit(value: Any, change: Callable[[Config], Config | None]) -> tuple[Any, list[Config]]:
    """Return a copy of the tree in which every Keras object went through ``change``.

    Inner objects are changed before the objects that hold them.

    Args:
        value: The tree.
        change: Takes an object, returns what stands in its place, or None to leave it.

    Returns:
        The new tree, and the objects that were changed, as they were before.
    """
    changed: list[Config] = []

    def visit(node: Any) -> Any:
        if isinstance(node, list):
            return [visit(child) for child in node]
        if not isinstance(node, dict):
            return node
        node = {key: visit(child) for key, child in node.items()}
        replacement = change(node) if is_object(node) else None
        if replacement is None:
            return node
        changed.append(node)
        return replacement

    return visit(value), changed


def with_config(item: Config, /, *without: str, **values: Any) -> Config:
    """Return a copy of a Keras object whose configuration lacks some keys and has others."""
    kept = {key: value for key, value in item["config"].items() if key not in without}
    return {**item, "config": kept | values}


def name_of(item: Config) -> str:
    """Return the name of a layer, or its class where the file gives no name."""
    return str(item["config"].get("name") or item.get("name") or item["class_name"])


def counted(items: Iterable[Config], what: str = "layer") -> str:
    """Return what was changed, in words: ``"13 DepthwiseConv2D layers and 1 Dense layer"``."""
    counts = Counter(str(item["class_name"]) for item in items)
    parts = [f"{n} {name} {what}{'s' if n > 1 else ''}" for name, n in sorted(counts.items())]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
