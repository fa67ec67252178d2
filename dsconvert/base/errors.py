"""What dsconvert raises: one tree, told apart by what the reader can do about it.

DsconvertError
├── InputError       the input cannot be used; exit code 2
│   └── MissingExtra an optional dependency is not installed; exit code 2
└── GateFailed       the work was done and its result was refused; exit code 1

Every message says what went wrong, where, what was got and what is allowed;
``hint`` is the next thing to try.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class DsconvertError(Exception):
    """Base of all errors a user can meet.

    Args:
        message: What, where, got, allowed.
        hint: The next command or action to try, or an empty string.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InputError(DsconvertError):
    """The input (a file, an option, an array) cannot be used."""

    exit_code = 2


class MissingExtra(InputError):
    """An optional dependency that this action needs is not installed."""


class GateFailed(DsconvertError):
    """The result was produced but did not pass its check."""

    exit_code = 1


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say in one sentence how to get it.

    Args:
        module: The module to import, e.g. ``"onnxruntime"``.
        extra: The extra that brings it, e.g. ``"onnx"``.
        purpose: What it is needed for, e.g. ``"to run .onnx files"``.

    Raises:
        MissingExtra: If the module, or one that it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).split(".")[0]  # the module, or what it needs in turn
        raise MissingExtra(
            f"{missing} is needed {purpose} and is not installed.",
            f"Try: pip install 'dsconvert[{extra}]'",
        ) from error
