"""The record of a runtime: what it is called, what it runs, and how it loads a file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from .session import Session

Precision = Literal["float32", "float16", "int8"]
"""The coarsest that a file stores: "int8" for any integer weights or activations, dynamic ones and
int16 activations included; "float16" for bfloat16 as well."""


class OpenFile(Protocol):
    """Loads a file to run it on this machine's CPU."""

    def __call__(self, path: Path, threads: int) -> Session:
        """Load a file.

        Args:
            path: A file of one of the runtime's suffixes.
            threads: For one invocation.

        Raises:
            InputError: If the file is corrupt, or has inputs or outputs that are no numeric
                tensors.
            MissingExtra: If the runtime is not installed.
        """
        ...


@dataclass(frozen=True)
class Runtime:
    """A runtime; `registry.RUNTIMES` holds all of them.

    Attributes:
        name: What ``--runtime`` and records call it, e.g. "ort".
        title: Its name for people, e.g. "ONNX Runtime".
        suffixes: The files that it runs; the first is the one that is written for it.
        packages: Packages that may bring it; the first is the one to install.
        module: What of it is imported.
        extra: The extra of dsconvert that installs it.
        tested: The version that the test suite was run with.
        precisions: Of the files that it runs.
        open: Loads a file.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    packages: tuple[str, ...]
    module: str
    extra: str
    tested: str
    precisions: tuple[Precision, ...]
    open: OpenFile

    def runs(self, path: Path) -> bool:
        """Tell from the suffix whether it runs a file."""
        return path.suffix.lower() in self.suffixes

    @property
    def version(self) -> str:
        """The version of its package that is installed; empty if none is. Loads nothing."""
        for package in self.packages:
            try:
                return metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        return ""

    @property
    def purpose(self) -> str:
        """Return what it is needed for, as `require` says it."""
        return f"to run {' and '.join(self.suffixes)} files in {self.title}"
