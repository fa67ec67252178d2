"""What dsconvert raises: one tree, told apart by what the reader can do about it.

DsconvertError
├── InputError       the input cannot be used; exit code 2
│   └── MissingExtra an optional dependency is not installed; exit code 2
└── GateFailed       the work was done and its result was refused; exit code 1

Every message says what went wrong, where, what was got and what is allowed; ``hint`` is the next
thing to try; ``code`` is the same from release to release, for programs and tests.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import ClassVar, NamedTuple

from .keras_faults import mend
from .keras_settings import apply_own_settings
from .option_words import as_arguments
from .quiet import without_greeting


class Words(NamedTuple):
    """An error's texts with options, as the command line prints them.

    Attributes:
        message: What, where, got, allowed.
        hint: The next thing to try, or an empty string.
    """

    message: str
    hint: str


class DsconvertError(Exception):
    """Base of all errors a user can meet.

    Raise it with the words of the command line; `message`, `hint` and ``str`` show the same as
    arguments of functions.

    Args:
        message: What, where, got, allowed.
        hint: The next command or action to try, or an empty string.
        code: A stable name in kebab-case, e.g. "model-not-found"; by default the class's own.

    Attributes:
        exit_code: Of the command line.
        code: The stable name.

    Example:
        >>> import dsconvert as ds
        >>> try:
        ...     ds.load("absent.keras")
        ... except ds.DsconvertError as error:
        ...     print(type(error).__name__, error.code)
        InputError model-not-found
    """

    exit_code = 1
    default_code: ClassVar[str] = "failed"

    def __init__(self, message: str, hint: str = "", *, code: str = "") -> None:
        super().__init__(message)
        self.words = Words(message, hint)
        self.code = code or self.default_code

    @property
    def message(self) -> str:
        """Tell what is wrong, where, what was got and what is allowed, in the words of Python."""
        return as_arguments(self.words.message)

    @property
    def hint(self) -> str:
        """The next thing to try, in the words of Python; or an empty string."""
        return as_arguments(self.words.hint)

    def add_hint(self, text: str) -> None:
        """Say one more thing to try, or to know."""
        self.words = self.words._replace(hint=f"{self.words.hint} {text}".strip())

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InputError(DsconvertError):
    """The input (a file, an argument, an array) cannot be used.

    Example:
        >>> import dsconvert as ds
        >>> try:
        ...     ds.plan("model.keras", calibration="absent.npz")
        ... except ds.InputError as error:
        ...     print(error.message)
        absent.npz does not exist.
    """

    exit_code = 2
    default_code = "invalid-input"


class MissingExtra(InputError):
    """An optional dependency that this action needs is not installed.

    Example:
        >>> import dsconvert as ds
        >>> issubclass(ds.MissingExtra, ds.InputError)
        True
    """

    default_code = "missing-extra"


class GateFailed(DsconvertError):
    """The result was produced but did not pass its check.

    Example:
        >>> import dsconvert as ds
        >>> ds.GateFailed("the outputs differ", code="outputs-differ").code
        'outputs-differ'
    """

    exit_code = 1
    default_code = "gate-failed"


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say in one sentence how to get it.

    Args:
        module: The module to import, e.g. ``"onnxruntime"``.
        extra: The extra that brings it, e.g. ``"onnx"``.
        purpose: What it is needed for, e.g. ``"to run .onnx files"``.

    Raises:
        MissingExtra: If the module, or one that it imports, is not installed.
        InputError: If Keras is told to run on something else than TensorFlow, and that is missing.
    """
    try:
        found = without_greeting(module)
    except (ModuleNotFoundError, ValueError) as error:
        if module == "keras":
            refuse_backend(error)
        if not isinstance(error, ModuleNotFoundError):
            raise
        missing = (error.name or module).split(".")[0]  # the module, or what it needs in turn
        raise MissingExtra(
            f"{missing} is needed {purpose} and is not installed.",
            f"Try: pip install 'dsconvert[{extra}]'",
        ) from error
    if module == "keras":
        apply_own_settings(found)
        mend(found)
    return found


def refuse_backend(error: Exception) -> None:
    """Say so where Keras was not imported for the backend that it is told to run on.

    Args:
        error: What its import raised.

    Raises:
        InputError: If a backend is the cause.
    """
    missing = (getattr(error, "name", None) or "").split(".")[0]
    unknown = re.search(r"Unable to import backend ?: *(\S+)", str(error))
    backend = unknown[1] if unknown else missing if missing in ("torch", "jax") else None
    if backend is not None:
        raise InputError(
            f"Keras is told to run on {backend} (KERAS_BACKEND, or keras.json in ~/.keras), which "
            "cannot be imported; dsconvert works with Keras on TensorFlow.",
            "Set the environment variable KERAS_BACKEND=tensorflow.",
            code="other-backend",
        ) from error
