"""One BLAS thread for the many small products and solves of a fit.

NumPy and SciPy each bring an OpenBLAS with threads of its own, which wait for work by spinning. A
fit goes from one to the other at every step, and each then waits for a processor on which the other
spins. On two idle processors a three-factor fit of 32 → 32 channels took 18 s, and 0.7 s with one
thread; on busy ones it took a minute. One of 256 → 256 channels took 22 s and 12 s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import scipy.linalg  # noqa: F401 - a library that is loaded later would not be found
from threadpoolctl import ThreadpoolController

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


@functools.cache
def _controller() -> ThreadpoolController:
    """Find the libraries, once: NumPy's, and SciPy's, which is loaded above."""
    return ThreadpoolController()


def single_threaded(function: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Let a function compute with one BLAS thread, whatever the caller's number is.

    Its result then does not depend on the number of processors either.
    """

    @functools.wraps(function)
    def run(*args: _Given.args, **kwargs: _Given.kwargs) -> _Made:
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return run
