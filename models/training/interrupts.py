"""Ends of training from outside that wait for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Give a function that tells between steps whether a first Ctrl-C or SIGTERM has come.

    Within a step a part of the weights has moved and another has not. A second signal does not
    wait.

    Raises:
        KeyboardInterrupt: At once for the second signal.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del number, frame
        if asked:
            raise KeyboardInterrupt
        asked = True

    def came() -> bool:
        return asked

    if threading.current_thread() is not threading.main_thread():
        yield came  # only the main thread gets signals
        return
    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
