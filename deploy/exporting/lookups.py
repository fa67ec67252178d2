"""Tables of words or numbers inside a model, which neither file format has operators for."""

from __future__ import annotations

import re

_TABLES = re.compile(
    r"LookupTable|HashTable|StringToHash|StringSplit|StringLower|StaticRegex|AsString"
)


def without_tables(told: str, otherwise: str) -> str:
    """Return what to do about a model that a format cannot hold.

    Args:
        told: Why it cannot; names the operations.
        otherwise: What to do where no table is the cause, as to try the other format.

    Example:
        >>> without_tables("no TFLite kernel for HashTableV2", "Export to .onnx.")[:36]
        'Look words and numbers up before the'
        >>> without_tables("no TFLite kernel for Einsum", "Export to .onnx.")
        'Export to .onnx.'
    """
    if not _TABLES.search(told):
        return otherwise
    return (
        "Look words and numbers up before the model, and export the layers behind the lookup: "
        "keras.Model(lookup.output, model.output). Neither format has tables of its own."
    )
