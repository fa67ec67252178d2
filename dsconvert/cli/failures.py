"""The boundary where every error of a command becomes a sentence and an exit code.

Refusals carry their own words. What the operating system refuses, such as a file that cannot be
read, ends with exit code 2. Anything else is a bug of dsconvert: exit code 70, that of sysexits.h
for such, with how to report it. Tracebacks are shown with ``-v``.
"""

from __future__ import annotations

import errno
import shlex
import sys
import traceback
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import click

BUG = 70
_PAGE = "docs/errors.md"
"""Where each code is explained; a test compares the two."""
_ENDS_OF_STREAMS = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EFBIG)
_PRINTERS = ("click", "rich", "dsconvert.cli.terminal")
"""The modules that write to stdout and stderr."""


_MOST_REASON = 300
"""Characters of what is said of the memory: TensorFlow tells the whole graph."""


_EXHAUSTED = "ResourceExhaustedError"
"""What TensorFlow raises where it gets no memory, or a file no room."""


class _Told(NamedTuple):
    """What is said of an error."""

    code: str
    message: str
    hint: str
    exit_code: int


def exit_on_error(
    work: Callable[[], None], *, as_json: bool, verbose: bool, shown: Callable[[str], str]
) -> None:
    """Do the work of a command; on an error say what happened on stderr, and exit.

    Args:
        work: What to do.
        as_json: Whether to say it as JSON.
        verbose: Whether to say the error's code, and show the traceback of what is no refusal.
        shown: Makes text fit for a terminal.

    Raises:
        OSError: If a stream of this process ended or is full: whoever prints knows what to say.
        SystemExit: After any other error.
    """
    from dsconvert.base.errors import DsconvertError

    try:
        work()
    except DsconvertError as error:
        cause = _exhausted_behind(error)
        told = _used_up(cause) if cause else _Told(error.code, *error.words, error.exit_code)
    except (click.exceptions.ClickException, click.exceptions.Exit, click.exceptions.Abort):
        raise
    except OSError as error:
        if error.errno in _ENDS_OF_STREAMS and _while_printing(error):
            raise
        told = _refused_by_the_system(error)
        _show_cause(verbose)
    except Exception as error:
        told = _used_up(error) if _is_memory(error) else _bug(error)
        _show_cause(verbose)
    else:
        return
    _exit(told, as_json=as_json, verbose=verbose, shown=shown)


def exit_in_json(error: click.UsageError) -> NoReturn:
    """Say as JSON what cannot be meant by the words that were typed, or by a recipe; and exit."""
    hint = f"Try: {error.ctx.command_path} --help" if error.ctx else ""
    told = _Told("usage", error.format_message(), hint, error.exit_code)
    _exit(told, as_json=True, verbose=False, shown=str)


def told_of(error: Exception) -> tuple[str, str, int]:
    """Return what is said of an error that is no refusal: a message, a hint and the exit code."""
    told = _used_up(error) if _is_memory(error) else _bug(error)
    return told.message, told.hint, told.exit_code


def _exit(told: _Told, *, as_json: bool, verbose: bool, shown: Callable[[str], str]) -> NoReturn:
    if as_json:
        from dsconvert.base.json_text import encoded

        record = {"schema": "dsconvert.error/1", "code": told.code, "message": told.message}
        record |= {"hint": told.hint, "docs": f"{_PAGE}#{told.code}"}
        click.echo(encoded(record).decode(), err=True)
        sys.exit(told.exit_code)
    click.secho(shown(f"Error: {told.message}"), fg="red", err=True)
    if told.hint:
        click.echo(shown(told.hint), err=True)
    if verbose:  # the hint is the next step; who asks for more gets the page too
        click.echo(f"docs: {_PAGE}#{told.code}\ncode: {told.code}", err=True)
    sys.exit(told.exit_code)


def _show_cause(verbose: bool) -> None:
    if verbose:
        click.echo(traceback.format_exc(), err=True)


def _while_printing(error: OSError) -> bool:
    """Tell whether an error comes from printing, and not from a file that is written or read."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = str(frames[-1].f_globals.get("__name__", ""))
    return any(module == name or module.startswith(f"{name}.") for name in _PRINTERS)


def _is_memory(error: BaseException) -> bool:
    """Tell whether the memory was used up: TensorFlow has an error of its own for that."""
    if isinstance(error, ImportError):  # a library that does not fit
        return "failed to map segment" in str(error) or "allocate memory" in str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == _EXHAUSTED


def _exhausted_behind(error: BaseException) -> BaseException | None:
    """Return TensorFlow's want of memory that a refusal came from: it is no fault of the file's.

    A plain MemoryError may well be one: of a header that tells of more than there is.
    """
    from dsconvert.base.files import lacks_room

    cause = error.__cause__
    while cause is not None and type(cause).__name__ != _EXHAUSTED:
        cause = cause.__cause__
    return None if cause is None or lacks_room(cause) else cause


def _used_up(error: BaseException) -> _Told:
    lines = " ".join(str(error).split())[:_MOST_REASON]
    return _Told(
        "out-of-memory",
        f"the memory is used up{f': {lines}' if lines else ''}.",
        "Give fewer samples or a smaller model, or use a machine with more memory.",
        2,
    )


def _refused_by_the_system(error: OSError) -> _Told:
    """Say what the operating system refused, and of which file."""
    what = error.strerror or str(error) or type(error).__name__
    where = "" if error.filename is None else f"{error.filename}: "
    return _Told("system-error", f"{where}{what}.", "Check the path and its permissions.", 2)


def _bug(error: Exception) -> _Told:
    """Say that this is no fault of the input's, where it happened, and how to report it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "dsconvert" in frame.filename] or list(frames)
    place = f"{own[-1].filename.rpartition('dsconvert')[2].lstrip('/')}:{own[-1].lineno}"
    lines = " ".join(str(error).split())
    words = " ".join(map(shlex.quote, sys.argv[1:]))
    return _Told(
        "internal-error",
        f"a bug in dsconvert: {type(error).__name__}{f': {lines}' if lines else ''} ({place}).",
        f"Please report it with the output of: dsconvert doctor; and of: dsconvert {words} -v",
        BUG,
    )
