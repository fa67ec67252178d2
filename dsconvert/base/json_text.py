"""Records as JSON, whatever characters are in the names of files."""

from __future__ import annotations

from typing import Any, Literal


def encoded(record: Any, *, ordered: bool = False) -> bytes:
    r"""Encode a record as JSON.

    The name of a file may be no UTF-8, and a name in a model a half of a character. Python keeps
    such as surrogates, which JSON cannot hold: they are question marks then, as on the terminal.

    Args:
        record: What msgspec encodes.
        ordered: Whether equal records give equal bytes, whatever the order of their keys.

    >>> encoded({"path": "n\udcfft.onnx"})
    b'{"path":"n?t.onnx"}'
    """
    import msgspec

    order: Literal["deterministic"] | None = "deterministic" if ordered else None
    try:
        return msgspec.json.encode(record, order=order)
    except UnicodeEncodeError:
        return msgspec.json.encode(_replaced(msgspec.to_builtins(record)), order=order)


def indented(record: Any) -> bytes:
    """Encode a record as JSON for people, with two spaces for each level."""
    import msgspec

    return msgspec.json.format(encoded(record), indent=2)


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_replaced(key): _replaced(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(inner) for inner in value]
    return value
