"""One BLAS thread for the many small products and solves of a fit.

NumPy and SciPy each bring an OpenBLAS with threads of its own, which wait for work by spinning. A
fit goes from one to the other at every step, and each then waits for a processor on which the other
spins. On two idle processors a three-factor fit of 32 → 32 channels took 18 s, and 0.7 s with one
thread; on busy ones it took a minute. One of 256 → 256 channels took 22 s and 12 s.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ParamSpec, TypeVar

import scipy.linalg  # noqa: F401 - a library that is loaded later would not be found
from threadpoolctl import ThreadpoolController

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


@functools.cache
def _controller() -> ThreadpoolController:
    """Find the libraries, once: NumPy's, and SciPy's, which is loaded above."""
    return ThreadpoolController()


def processors() -> int:
    """Count the processors that this process may use, and that fits may use side by side."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_blas_thread() -> AbstractContextManager[object]:
    """Compute with one BLAS thread inside the block, in every thread of this process.

    Whoever runs fits side by side holds this around all of them: a fit that ends would give the
    others their threads back.
    """
    limit: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limit


def single_threaded(function: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Let a function compute with one BLAS thread, whatever the caller's number is.

    Its result then does not depend on the number of processors either.
    """

    @functools.wraps(function)
    def run(*args: _Given.args, **kwargs: _Given.kwargs) -> _Made:
        with one_blas_thread():
            return function(*args, **kwargs)

    return run
