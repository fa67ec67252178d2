"""How a command speaks: the result on stdout, everything else on stderr.

While a command works, stdout leads to stderr, so that no library can mix its chatter into the
result; what the command returns is printed on the real one.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from dsconvert.base.messages import LOGGER

from .failures import exit_on_error

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.base.tables import Block

_quiet = False
_UNBOUNDED = 200
"""Columns of text that goes to a file or a pipe."""
_NARROWEST = 20
"""Columns that a table gets in any case: in fewer nothing is left of it."""
_INTERRUPTED = 130
"""The exit code of what Ctrl-C ended: 128 and the signal's number."""
_UNREAD = 141
"""The exit code of what SIGPIPE ends, which Python ignores; 1 would say that a check failed."""
_BETWEEN_LINES = 30.0
"""Seconds between two lines of progress off a terminal."""


def speaks(
    after: Callable[[Any], Iterable[str]] | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """Make a function that returns a result a command that prints it.

    The function's options must include those of `options.common`. It may raise DsconvertError,
    which becomes a message and an exit code; anything else too, see `failures`.
    A result with ``passed`` False is printed, and the exit code is 1; with ``interrupted`` True
    it is that of Ctrl-C, as only a part of the work was done.

    Args:
        after: Lines for people after the result's own, e.g. the next command.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(*args: Any, as_json: bool, verbose: int, quiet: bool, **options: Any) -> None:
            global _quiet
            _quiet = quiet
            _set_up_logging(verbose, quiet)
            _leave_settings_outside()
            if "memory" in options:
                _let_memory_go()
            with _stdout_kept() as out:
                results: list[Any] = []

                def work() -> None:
                    results.append(function(*args, **options))
                    if as_json:
                        _print_json(out, results[0])
                    else:
                        found = results[0]
                        blocks = found.details() if verbose else found.blocks()
                        _print(out, blocks, after(found) if after else ())

                exit_on_error(work, as_json=as_json, verbose=bool(verbose), shown=one_line)
            if getattr(results[0], "passed", True) is False:
                sys.exit(1)
            if getattr(results[0], "interrupted", False):
                sys.exit(_INTERRUPTED)

        command.after = after  # type: ignore[attr-defined]
        return command

    return decorate


def _print_json(out: TextIO, result: Any) -> None:
    from dsconvert.base.json_text import indented

    out.write(indented(getattr(result, "record", result)).decode() + "\n")


def _print(out: TextIO, blocks: Iterable[Block], after: Iterable[str]) -> None:
    """Print lines and tables, these within the width of the terminal."""
    from rich.table import Table as Grid

    from dsconvert.base.table_width import fitted

    to_people = console(out)
    if to_people.is_terminal:
        to_people.soft_wrap = True
    elif os.environ.get("COLUMNS", "0") == "0":  # a file or a pipe has no width
        to_people.width = _UNBOUNDED
    to_people.width = max(to_people.width, _NARROWEST)
    shown = (
        part
        for block in blocks
        for part in ([block] if isinstance(block, str) else fitted(block, to_people.width))
    )
    for block in shown:
        if isinstance(block, str):
            to_people.print(one_line(block))
            continue
        grid = Grid(box=None, pad_edge=False)
        for title, right in block.columns:
            grid.add_column(title, justify="right" if right else "left")
        for cells in block.full_rows():
            grid.add_row(*map(one_line, cells))
        to_people.print(grid)
    for line in after:  # a command that is copied must stay on its line
        to_people.print(visible(line), soft_wrap=True)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What steers a terminal; the last two ranges begin lines, and turn the direction of text."""


def visible(text: str) -> str:
    """Show control characters as escapes: a name in a model file must not steer the terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Show text on one line, below the empty ones that it begins with.

    A name with a line break in it could tell a result that is none.
    """
    words = text.lstrip("\n")
    return "\n" * (len(text) - len(words)) + visible(words).replace("\n", "\\n")


def console(out: TextIO) -> Console:
    """Make the printer that each command uses: names, paths and messages come out as they are.

    Rich would take ``[ssh]`` in a string for a style and ``:1:`` for an emoji. Styles of our own
    are `rich.text.Text` objects.
    """
    from rich import console as rich

    class Ended(rich.Console):
        """Ends as we do where nobody reads on; Rich would say 1, that a check failed."""

        def on_broken_pipe(self) -> None:
            end_unread()

    return Ended(file=out, highlight=False, markup=False, emoji=False)


@contextmanager
def _stdout_kept() -> Iterator[TextIO]:
    """Give the real stdout; within, everything else that writes there reaches stderr."""
    kept = sys.stdout
    kept.flush()
    try:
        descriptor = kept.fileno()
    except (OSError, ValueError):  # a test's or a notebook's stdout has no file
        sys.stdout = sys.stderr
        try:
            yield kept
        finally:
            sys.stdout = kept
        return
    saved = os.dup(descriptor)
    os.dup2(sys.stderr.fileno(), descriptor)
    # What the terminal's encoding lacks is replaced: the work is done, and its result is shown.
    real = os.fdopen(os.dup(saved), "w", encoding=kept.encoding, errors="replace")
    try:
        yield real
        real.flush()
    except OSError as error:
        _unprinted(error)
    finally:
        with suppress(OSError):  # what could not be written is written no more
            real.close()
        with suppress(OSError):
            kept.flush()
        os.dup2(saved, descriptor)
        os.close(saved)


def end_unread() -> NoReturn:
    """End as programs do whose output nobody reads any more (``| head``): without a word."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # at its end Python would fail over what is left in the stream
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, stream.fileno())
            os.close(sink)
    sys.exit(_UNREAD)


def _unprinted(error: OSError) -> None:
    """End with a sentence where the result cannot be printed, and silently where nobody reads it.

    Raises:
        OSError: If it is about something else than the output.
    """
    if isinstance(error, BrokenPipeError):
        end_unread()
    if error.errno not in (errno.ENOSPC, errno.EIO, errno.EFBIG) or error.filename is not None:
        raise error
    click.secho(f"Error: the result cannot be printed: {error.strerror}.", fg="red", err=True)
    sys.exit(2)


class _Notes(logging.Handler):
    """Prints notes for the user on stderr, in colour."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one note."""
        text = getattr(record, "options", record.getMessage())
        click.secho(one_line(f"Note: {text}"), fg="yellow", err=True)


def _let_memory_go() -> None:
    """Let TensorFlow give memory back that it needs no more: --memory is a promise.

    Its own pool keeps the most that it ever had, of VGG16 after loading 0.8 GiB. Whoever set the
    variable has chosen.
    """
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")


def _set_up_logging(verbose: int, quiet: bool) -> None:
    """Our own log on stderr; TensorFlow's native chatter off unless asked for."""
    if verbose < 2:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    level = (
        logging.ERROR if quiet else [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    )
    logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger().setLevel(logging.WARNING if verbose < 2 else logging.DEBUG)
    logging.getLogger("dsconvert").setLevel(level)
    notes = logging.getLogger(LOGGER)
    notes.handlers, notes.propagate = [_Notes()], False
    for name in ("absl", "tensorflow", "tf2onnx", "h5py"):
        logging.getLogger(name).setLevel(logging.ERROR if verbose < 2 else logging.DEBUG)


def _leave_settings_outside() -> None:
    """Let neither warnings as errors nor a Keras of other settings change what a command does."""
    import warnings

    from dsconvert.base.keras_settings import use_own_settings

    if any(option.startswith("error") for option in sys.warnoptions):  # PYTHONWARNINGS=error
        warnings.resetwarnings()
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
    use_own_settings()


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; see `core.progress`. Silent with --quiet; off a terminal lines."""
    if _quiet:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        click.echo(visible(f"{label} …"), err=True)
        yield _lines(label, total)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


def _lines(label: str, total: int) -> Callable[[], None]:
    """Tell the progress where nobody sees a bar: a line every half minute, with the time left."""
    started = told = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal told, done
        done += 1
        now = time.monotonic()
        if now - told >= _BETWEEN_LINES and done < total:
            told = now
            left = (now - started) / done * (total - done)
            click.echo(visible(f"{label}: {done} of {total}, about {left:.0f} s left"), err=True)

    return advance
