"""Settings of the user's Keras that would make the layers built here others.

``floatx`` float16, a policy mixed_float16, or ``image_data_format`` channels_first: from
~/.keras/keras.json, or set in the session that calls a function. What a model says itself holds in
any case.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")

_lock = threading.Lock()
_running = 0
"""Functions that run now, in any thread."""
_theirs: tuple[str, str] | None = None
"""The user's floatx and image_data_format while any does, if Keras is loaded."""
_for_good = False


class _OfThread(threading.local):
    """What Keras keeps for each thread: the policy.

    Attributes:
        running: Functions that run now, one inside another.
        policy: The user's while any does, if Keras is loaded.
    """

    running = 0
    policy: Any = None


_here = _OfThread()


def use_own_settings() -> None:
    """Let no settings of the user's Keras reach what this process computes: a command's."""
    global _for_good
    _for_good = True


def apply_own_settings(keras: ModuleType) -> None:
    """Set Keras' own defaults where a command or a function of ours runs; called when it loads."""
    global _theirs
    config = keras.config
    with _lock:
        if _running and _theirs is None:
            _theirs = config.floatx(), config.image_data_format()
        if _running or _for_good:
            config.set_floatx("float32")
            config.set_image_data_format("channels_last")
    if _here.running and _here.policy is None:
        _here.policy = config.dtype_policy()
    if _here.running or _for_good:
        config.set_dtype_policy("float32")


def with_own_settings(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Return a function that computes with Keras' own defaults, and gives the user's back."""

    @wraps(function)
    def run(*args: Given.args, **options: Given.kwargs) -> Result:
        with _own_settings():
            return function(*args, **options)

    return run


@contextmanager
def _own_settings() -> Iterator[None]:
    global _running
    keras = sys.modules.get("keras")
    with _lock:
        _running += 1
    _here.running += 1
    if keras is not None and hasattr(keras, "config"):  # else it is being imported
        apply_own_settings(keras)
    try:
        yield
    finally:
        _give_back()


def _give_back() -> None:
    """Set what the user had set, if this was the last function of the thread, or of all."""
    global _running, _theirs
    _here.running -= 1
    if not _here.running and _here.policy is not None:
        sys.modules["keras"].config.set_dtype_policy(_here.policy)
        _here.policy = None
    with _lock:
        _running -= 1
        if not _running and _theirs is not None:
            floatx, image_data_format = _theirs
            sys.modules["keras"].config.set_floatx(floatx)
            sys.modules["keras"].config.set_image_data_format(image_data_format)
            _theirs = None
