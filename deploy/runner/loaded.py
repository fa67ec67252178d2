"""What the runner knows of a runtime: how it loads a file, and how it times a file's operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .operators import OperatorMedian

    Array = NDArray[np.generic]


class Engine(NamedTuple):
    """A loaded file with its inputs in place.

    Attributes:
        run: Invokes once; nothing is converted or copied in.
        read: The outputs of the last run, as the file stores them.
    """

    run: Callable[[], Any]
    read: Callable[[], list[Array]]


class LoadedFile(NamedTuple):
    """A loaded file.

    Attributes:
        prepare: Takes one array per input, as the file stores them; to be called once.
        notes: Says, after `prepare`, what a reader might take for granted and is not the case.
    """

    prepare: Callable[[Sequence[Array]], Engine]
    notes: Callable[[], list[str]] = list


class OperatorRuns(NamedTuple):
    """What a runtime's profiler is asked for.

    Attributes:
        path: The file.
        names: Of its inputs, as its signature calls them.
        arrays: One per input, as the file stores them.
        threads: Of the runtime.
        runs: Invocations that count.
        folder: Where files may be left.
    """

    path: str
    names: list[str]
    arrays: list[Array]
    threads: int
    runs: int
    folder: str


class RunnerRuntime(NamedTuple):
    """A runtime as the runner uses it.

    Attributes:
        title: Its name for people.
        modules: Modules in the order in which they are tried, and the packages that may bring each.
        open: Loads a file with the module, its path and the number of threads; raises whatever the
            runtime raises, RuntimeError if the file would run elsewhere than asked.
        operators: Times the operators of a file; called in a process of its own, which it may end.
    """

    title: str
    modules: tuple[tuple[str, tuple[str, ...]], ...]
    open: Callable[[Any, str, int], LoadedFile]
    operators: Callable[[Any, OperatorRuns], list[OperatorMedian]]
