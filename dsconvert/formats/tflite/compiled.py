"""Files that Vela compiled for an Ethos-U NPU: one operator stands for most of the network."""

from __future__ import annotations

from pathlib import Path

from dsconvert.base.errors import InputError, require

from .checking import check_tflite, reading

ETHOS_U = "ethos-u"
"""The operator that stands for what Vela compiled."""
HINT = "Give the int8 file that it was made from."


def is_compiled(path: Path) -> bool:
    """Tell whether a .tflite file runs on an Ethos-U NPU alone.

    Raises:
        InputError: If it is no such file, or a damaged one.
        MissingExtra: If what reads .tflite files is not installed.
    """
    check_tflite(path)  # first: a damaged count of operators would be counted to its end
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to read .tflite files")
    with reading(path):
        model = schema.Model.GetRootAs(path.read_bytes())
        codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
        return any((code.CustomCode() or b"").decode(errors="replace") == ETHOS_U for code in codes)


def check_not_compiled(path: Path) -> None:
    """Refuse a file whose operators cannot be seen any more.

    Raises:
        InputError: If Vela compiled it (code "compiled-file"), or it is no .tflite file.
        MissingExtra: If what reads .tflite files is not installed.
    """
    if is_compiled(path):
        raise InputError(
            f"{path} was compiled for an Ethos-U NPU: its operators and tensors cannot be seen "
            "any more.",
            HINT,
            code="compiled-file",
        )
