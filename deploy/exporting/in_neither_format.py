"""What neither file format has operators for: tables of words or numbers, inverse matrices."""

from __future__ import annotations

import re

_TABLES = re.compile(
    r"LookupTable|HashTable|StringToHash|StringSplit|StringLower|StaticRegex|AsString"
)
_NEITHER = re.compile(
    r"\b(InTopKV2|ImageProjectiveTransformV3|RGBToHSV|HSVToRGB|MatrixInverse|MatrixSolve|Svd|Qr"
    r"|SelfAdjointEigV2|Cholesky|Erfinv|Digamma|Cross|Complex|I?FFT(2D|3D)?|IRFFT(2D|3D)?)\b"
)
_FLEX = (
    ", or keep TensorFlow's own operations with --allow-flex: what runs the file must then bring "
    "the Flex delegate."
)
"""As the refusal of a .tflite file says it."""


def what_helps(told: str, otherwise: str) -> str:
    """Return what to do about a model that a format cannot hold.

    Args:
        told: Why it cannot; names the operations.
        otherwise: What to do where no table is the cause, as to try the other format.

    Example:
        >>> what_helps("no TFLite kernel for HashTableV2", "Export to .onnx.")[:36]
        'Look words and numbers up before the'
        >>> what_helps("no TFLite kernel for Svd", "Export to .onnx.")[-38:]
        ' neither format has it as an operator.'
        >>> what_helps("no TFLite kernel for Einsum", "Export to .onnx.")
        'Export to .onnx.'
    """
    if _NEITHER.search(told):
        flex = _FLEX if _FLEX in otherwise else "."
        told = "Leave it to the program around the model: neither format has it as an operator"
        return told + flex
    if not _TABLES.search(told):
        return otherwise
    return (
        "Look words and numbers up before the model, and export the layers behind the lookup: "
        "keras.Model(lookup.output, model.output). Neither format has tables of its own."
    )
