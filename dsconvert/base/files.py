"""Writing files so that a failed run leaves what was there."""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DsconvertError, InputError

_NO_ROOM = (
    errno.ENOSPC,
    errno.EFBIG,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EPERM,
)
"""What the system says of a file that cannot be written or finished."""
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""Those of them that are told from the sentence alone."""


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""What a text in another encoding, or of Windows' editors, begins with."""
_MOST = 64 << 20
"""Bytes that a plan, a recipe or a record may have."""

_SCRATCH = re.compile(r"tmp[a-z0-9_]{8}|dsconvert[-.].*")
"""Names of folders of temporary files: Python's, and those of this tool."""
_HIDDEN = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
"""Names of folders in which `replacing` has a file written; the file's own is in it."""
_written: set[tuple[str, int, int]] = set()
"""The files that `replacing` made in this process: their paths, times of change and sizes."""


def written_here(path: Path) -> bool:
    """Tell whether this process wrote a file, and nobody has changed it since."""
    return _state(path) in _written


def _state(path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return str(path.resolve()), state.st_mtime_ns, state.st_size


def read_whole(path: Path, most: int = _MOST) -> bytes:
    """Read a text that people or dsconvert wrote, in UTF-8: a plan, a recipe, a record.

    A device that never ends is not read, and a named pipe that nobody writes to not waited for.

    Args:
        path: The file; a link is followed.
        most: Bytes that it may have.

    Raises:
        OSError: If it cannot be read, is no regular file, or has more bytes.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "No name of a file has a zero in it", str(path))
    ways = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, os.O_RDONLY | ways)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "It is no regular file", str(path))
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"It has more than {most:,} bytes", str(path))
    return _in_utf8(content)


def _in_utf8(content: bytes) -> bytes:
    """Return text that begins with a mark of its encoding as UTF-8; Windows' shells write such."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            with suppress(UnicodeDecodeError):
                return content.decode(encoding).encode()
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_folder(path: Path) -> None:
    """Refuse a folder in the place of a file: "." and "" among them, which have no name to change.

    Raises:
        InputError: If it is one.
    """
    if path.is_dir():
        raise InputError(
            f"cannot write {path}: it is a folder.", "Name a file.", code="output-is-a-folder"
        )


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Refuse early what `replacing` would refuse late.

    Raises:
        InputError: If the folder does not exist or may not be written to, or the file exists and
            ``overwrite`` is false.
    """
    if not path.parent.is_dir():
        _refuse_file_as_folder(path)
        raise InputError(
            f"cannot write {path}: the folder {path.parent} does not exist.",
            f"Try: mkdir -p {path.parent}",
            code="folder-not-found",
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise _unwritable(path, "it may not be written to")
    refuse_folder(path)
    if path.suffix in (".onnx", ".tflite") and not _is_text(str(path)):
        raise InputError(
            f"cannot write {path}: its name is no UTF-8, and no runtime could open it.",
            "Give it a name in UTF-8 with -o.",
            code="not-writable",
        )
    if (path.exists() or path.is_symlink()) and not overwrite:  # a link may lead nowhere
        raise InputError(
            f"{path} exists already.",
            "Name another file, or add --overwrite.",
            code="output-exists",
        )


def _refuse_file_as_folder(path: Path) -> None:
    """Refuse a file where a folder should be: no folder can be made there.

    Raises:
        InputError: With the file.
    """
    for folder in path.parents:
        if folder.is_dir():
            return
        if folder.exists():
            raise InputError(
                f"cannot write {path}: {folder} is a file, not a folder.",
                "Name a file in a folder with -o.",
                code="folder-not-found",
            )


_LONGEST_NAME = 200
"""Bytes of a name that leave room for more before and behind it; file systems take 255."""


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False
    return True


def _plain_name(path: Path) -> str:
    """Return the name of a temporary file: the file's own, unless it leaves no room for more."""
    if path.suffix == ".onnx":  # whose weights may lie in a file that bears its name
        return path.name
    return path.name if len(os.fsencode(path.name)) <= _LONGEST_NAME else f"file{path.suffix}"


@contextmanager
def replacing(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place when the block succeeds.

    The temporary file has the same suffix, since Keras and others choose the format by it.

    Raises:
        InputError: As `check_writable`.
    """
    check_writable(path, overwrite=overwrite)
    try:
        name = _plain_name(path)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=path.parent))
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    try:
        temporary = folder / name
        yield temporary
        if overwrite:
            temporary.replace(path)
        else:
            _place(temporary, path)
        with suppress(OSError):  # somebody removed it at once
            _written.add(_state(path))
    except Exception as error:
        if not lacks_room(error):
            raise
        raise _unfinished(path, _number(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def take_room(path: Path, size: int) -> None:
    """See that a new file of so many bytes has room, for writers that crash where it has not.

    Raises:
        OSError: If it has not; on systems that can tell.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        path.unlink()


def refuse_without_room(folders: Iterable[Path], size: int) -> None:
    """Refuse folders of which one has no room for so many bytes, as far as the system tells.

    Asked after a failure: libraries write half a file, and say that it is damaged.

    Args:
        folders: Where a library wrote.
        size: Bytes that it needed in each.

    Raises:
        InputError: With the first that has not.
    """
    for folder in folders:
        descriptor, name = tempfile.mkstemp(prefix=".room.", dir=folder)
        os.close(descriptor)
        try:
            take_room(Path(name), size)
        except OSError as error:
            raise InputError(
                f"{folder} has no room for {size:,} bytes: {error.strerror}.",
                "Free some space, or name another folder: TMPDIR=/large/tmp.",
                code="not-writable",
            ) from error
        finally:
            Path(name).unlink(missing_ok=True)


def lacks_room(error: BaseException) -> bool:
    """Tell whether an error is the system's, of a file that cannot be written or finished."""
    return not isinstance(error, DsconvertError) and _number(error) in _NO_ROOM


def is_unwritable(error: BaseException) -> bool:
    """Tell whether an error, or the refusal made of one, is of a file that cannot be finished."""
    return lacks_room(error) or getattr(error, "code", "") == "not-writable"


def _number(error: BaseException) -> int:
    """Return the system's number of an error, 0 if it is none of the system's.

    libhdf5 keeps it in its sentence. TensorFlow has an error of its own, that of a lack of memory,
    with the system's sentence in it.
    """
    if isinstance(error, OSError):
        named = re.search(r"errno = (\d+)", str(error))
        return error.errno or (int(named[1]) if named else 0)
    return next((number for number in _FULL if os.strerror(number) in str(error)), 0)


def _place(temporary: Path, path: Path) -> None:
    """Give a file its name unless something took that name meanwhile.

    Raises:
        InputError: If something did; the file is kept beside it.
    """
    if _linked(temporary, path):
        return
    for number in range(2, 1000):
        beside = path.with_name(f"{path.stem}-{number}{path.suffix}")
        if _linked(temporary, beside):
            raise InputError(
                f"{path} exists already: something wrote it meanwhile. This result is {beside}.",
                f"Compare the two; then: mv {beside} {path}",
                code="output-exists",
            )
    raise InputError(f"{path} exists already.", "Name another file.", code="output-exists")


def _linked(temporary: Path, path: Path) -> bool:
    """Give a file a second name; False if the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: take the name, then replace it
        try:
            path.open("xb").close()
        except FileExistsError:
            return False
        temporary.replace(path)
    return True


def _unfinished(path: Path, number: int) -> InputError:
    """Return the error of a file that was begun.

    It may lie in a hidden folder beside the file that was asked for, which is the one to name, or
    among temporary files, to which -o does nothing.
    """
    elsewhere = "name a file elsewhere with -o."
    for folder in path.parents:
        hidden = _HIDDEN.fullmatch(folder.name)
        if hidden and Path(hidden[1]).suffix == path.suffix:
            path = folder.parent / hidden[1]
        if folder.parent == Path(tempfile.gettempdir()) and _SCRATCH.fullmatch(folder.name):
            elsewhere = "name another folder for temporary files: TMPDIR=/large/tmp."
    return InputError(
        f"cannot write {path}: {os.strerror(number)}.",
        f"Free some space, or {elsewhere}",
        code="not-writable",
    )


def _unwritable(path: Path, cause: str) -> InputError:
    return InputError(
        f"cannot write {path}: the folder {path.parent}: {cause}.",
        "Name a file in a folder of yours.",
        code="not-writable",
    )
