"""The entry point: the command works in a child process, and a crash of native code is a sentence.

TensorFlow, LiteRT, ONNX Runtime and HDF5 can end the process that they work in. The parent is
forked before anything is imported, does nothing but wait, and says what happened.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

_HINTS = {
    "export": "Try another quantization (--quantize dynamic or float16), or the other format.",
    "profile": "Profile the other files alone; this file crashes its runtime.",
    "verify": "The runtime crashes on one of the files: try each with dsconvert profile.",
    "evaluate": "The runtime crashes on one of the files: try each with dsconvert profile.",
}
_PASSED_ON = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)  # Windows lacks some, and forks no process
)
_REPORT = "if the file is sound, please report it with the output of: dsconvert doctor"


def main() -> None:
    """Run the command line; where processes can be forked, in a child."""
    _read_names_as_utf8()
    _open_streams()
    from . import main as command

    if hasattr(os, "fork") and os.environ.get("DSCONVERT_SUPERVISE", "1") != "0":
        sys.exit(supervised(command, sys.argv[1:]))
    command()


def _read_names_as_utf8() -> None:
    """Begin again in UTF-8 mode where the locale has another encoding for names of files.

    Runtimes open a file by its name in UTF-8, whatever the locale says (``LC_ALL=C PYTHONUTF8=0``).
    What is printed keeps the locale's encoding.
    """
    if os.name != "posix" or sys.getfilesystemencoding() == "utf-8":
        return
    surroundings = os.environ | {"PYTHONUTF8": "1"}  # for processes that are started later
    if sys.stdout is not None:
        surroundings.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:replace")
    words = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    os.execve(sys.executable, words, surroundings)


def _open_streams() -> None:
    """Let what a closed stdout or stderr would get go nowhere, and never fail for its encoding."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None or not _fits(number):
            sink = os.open(os.devnull, os.O_RDWR)
            if sink != number:
                os.dup2(sink, number)
            mode = "r" if number == 0 else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _fits(number: int) -> bool:
    """Tell whether a stream may be read from, or written to.

    A shell script that was started without a stderr gives its own file in that place.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
        return True
    try:
        way = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError:  # closed
        return False
    return way != (os.O_WRONLY if number == 0 else os.O_RDONLY)


def supervised(command: Callable[[], object], words: list[str]) -> int:
    """Run a command in a forked child.

    Args:
        command: Ends by `SystemExit`, as Click's commands do.
        words: The command line, for the message.

    Returns:
        The exit code: the child's, or 1 where a signal that it did not ask for ended it.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # the terminal's Ctrl-C comes through the parent, once
        _die_with_parent()
        _run(command, told)
        return 0
    os.close(told)
    for number in _PASSED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:  # a shell's & ignores Ctrl-C
            signal.signal(number, lambda number, _: _pass_on(child, number))
    while True:
        try:
            _, status = os.waitpid(child, 0)
            break
        except InterruptedError:
            continue
    code = os.waitstatus_to_exitcode(status)
    os.set_blocking(heard, False)  # a process that the child left may still hold the other end
    if code >= 0:
        return code if _heard(heard) else _left(code, words)
    return _ended_by(-code, words)


class _Ended(BaseException):
    """Somebody ended the command: it removes its temporary files on the way out."""


def _run(command: Callable[[], object], told: int) -> None:
    """Run the command; a signal that ends it does so once everything is put away.

    Args:
        command: As for `supervised`.
        told: A pipe, to which one byte goes where Python itself comes to the end of the command.
    """
    came: list[int] = []

    def end(number: int, frame: object) -> NoReturn:
        del frame
        came.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one is obeyed at once
        raise _Ended

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)
    try:
        command()
    except OSError:
        raise
    except Exception as error:
        sys.exit(_escaped(error))
    finally:
        os.write(told, b".")
        if came:
            signal.signal(came[0], signal.SIG_DFL)
            os.kill(os.getpid(), came[0])


def _heard(pipe: int) -> bool:
    try:
        return bool(os.read(pipe, 1))
    except BlockingIOError:
        return False


def _left(code: int, words: list[str]) -> int:
    """Say that a library ended the process: its exit code, even 0, says nothing of the work."""
    command = next((word for word in words if not word.startswith("-")), "")
    _say(
        f"Error: a library ended {f'dsconvert {command}'.strip()} with exit code {code} before the "
        "work was done; nothing was written under its name.",
        "TensorFlow does so over a wrong setting (XLA_FLAGS, TF_XLA_FLAGS), OpenBLAS where memory "
        f"is short (ulimit -v). Otherwise {_REPORT}",
    )
    return 1


def _escaped(error: Exception) -> int:
    """Say what went wrong before a command begins, or while it ends; return the exit code."""
    try:
        from .failures import told_of

        message, hint, code = told_of(error)
    except Exception:  # the memory does not even take what tells it
        message, hint, code = "the memory is used up.", "Use a machine with more memory.", 2
    _say(f"Error: {message}", hint)
    return code


def _pass_on(child: int, number: int) -> None:
    try:
        os.killpg(child, number)
    except (ProcessLookupError, PermissionError):
        os.kill(child, number)  # it has not made its group yet


def _ended_by(number: int, words: list[str]) -> int:
    """Say which signal ended the child; end by it too where somebody meant it."""
    if number in (*_PASSED_ON, signal.SIGPIPE, signal.SIGKILL):
        if number == signal.SIGKILL:
            _say("Error: dsconvert was killed (SIGKILL); perhaps the memory was used up.", "")
        return 128 + number
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    command = next((word for word in words if not word.startswith("-")), "")
    what = f"dsconvert {command}".strip()
    _say(
        f"Error: native code brought {what} down ({name}); nothing was written under its name.",
        _HINTS.get(command, _REPORT.capitalize()),
    )
    return 1


def _say(message: str, hint: str) -> None:
    try:
        print(message, file=sys.stderr)  # noqa: T201 - stderr, where click may not be imported
        if hint:
            print(hint, file=sys.stderr)  # noqa: T201
    except (OSError, ValueError):  # a closed stderr: nobody can be told
        pass


def _die_with_parent() -> None:
    """Let the kernel end the child when the parent dies; Linux only."""
    if not sys.platform.startswith("linux"):
        return
    try:
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    except (OSError, AttributeError):
        return
