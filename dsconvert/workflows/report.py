"""Make the page of a run, or of two runs side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dsconvert.base.arguments import as_path
from dsconvert.base.tables import Block, Shown

from .optimize.folder_files import PAGE, REPORT
from .optimize.ledger import write_text


class WrittenReport(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """A page that was written.

    Attributes:
        output: The file.
        runs: The folders of the runs that it shows.
    """

    schema: str = "dsconvert.report/1"
    output: str
    runs: tuple[str, ...]

    def blocks(self) -> Iterator[Block]:
        """Yield the file."""
        yield f"{self.output}: one file, which any browser shows offline"


def report(
    folder: str | Path,
    other: str | Path | None = None,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> WrittenReport:
    """Make the page of a run from its report.json, or of two runs side by side.

    Args:
        folder: Of a run that `optimize` made.
        other: Of another run, to be shown beside it.
        output: The .html file; by default report.html in the first folder, which is made anew.
        overwrite: Whether a file that was named may exist.

    Returns:
        The file that was written.

    Raises:
        InputError: If a folder holds no report, or the file cannot be written.
        MissingExtra: If what draws the charts is not installed.

    Example:
        >>> import dsconvert as ds
        >>> asked = ds.OptimizeOptions(formats=("onnx-float32",), epochs=0, max_pairs=1)
        >>> run = ds.optimize("model.onnx", "digits.npz", "run", asked)
        >>> ds.report("run").output
        'run/report.html'
    """
    from dsconvert.base.files import check_writable

    wanted = [folder] if other is None else [folder, other]
    folders = [as_path(one, "a run's folder") for one in wanted]
    path = folders[0] / PAGE if output is None else as_path(output, "output")
    runs = [_read(one) for one in folders]
    check_writable(path, overwrite=overwrite or output is None)
    write_text(path, _page(runs, folders))
    return WrittenReport(output=str(path), runs=tuple(map(str, folders)))


def _read(folder: Path) -> dict[str, Any]:
    """Read a run's report as plain values.

    Raises:
        InputError: If there is none.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.base.files import read_whole

    path = folder / REPORT if folder.is_dir() else folder
    try:
        found: Any = json.loads(read_whole(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is no report of a run: {error}.",
            "Give the folder of a finished run: dsconvert optimize MODEL --data DATA -o run",
            code="no-report",
        ) from error
    if not isinstance(found, dict) or found.get("schema") != "dsconvert.optimized/1":
        raise InputError(
            f"{path} is no report of a run.",
            "Give the folder that dsconvert optimize made.",
            code="no-report",
        )
    return found


def _page(runs: Sequence[dict[str, Any]], folders: Sequence[Path]) -> str:
    """Draw the page; one of another release, or with figures that JSON lacks, as far as that goes.

    Raises:
        InputError: If a report does not hold what the page needs.
    """
    from dsconvert.base.errors import InputError

    from .reporting.page import page
    from .results.optimized import OptimizeResult

    whole, wrong = [], None
    for run, folder in zip(runs, folders, strict=True):
        try:  # what is not written has its default
            whole.append(msgspec.to_builtins(msgspec.convert(run, OptimizeResult)))
        except msgspec.ValidationError as error:
            whole.append(run)
            wrong = wrong or InputError(
                f"the report of {folder} is damaged, or of another release: {error}.",
                "Make it anew: dsconvert optimize MODEL --data DATA -o run",
                code="no-report",
            )
    try:
        return page(whole)
    except Exception as error:  # of the template too
        if wrong is None:
            raise
        raise wrong from error
