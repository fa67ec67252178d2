"""Compare two saved runs of `profile`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsconvert.deploy.profiling.records import Measurement

    from .results.measured import ComparedRuns


def compare(
    first: str | Path | Sequence[Measurement],
    second: str | Path | Sequence[Measurement],
    *,
    allow: Collection[str] = (),
    seed: int = 0,
) -> ComparedRuns:
    """Compare two runs of `profile`, file by file; refuse what is not comparable.

    Args:
        first: What `profile` returned, or a file that its result was saved to.
        second: The other run; ratios are its times over the first's.
        allow: What may differ, where that is the question: "device", "cpu", "threads", "cpus",
            "runtime", "version".
        seed: Of the bootstrap.

    Returns:
        The pairs of files with their median times, in ms, and what is faster.

    Raises:
        InputError: If the runs are not comparable, with all that differs, or share no file.

    Example:
        >>> import dsconvert as ds
        >>> quick = ds.ProfileOptions(runs=5, min_seconds=0)
        >>> before = ds.profile("model.onnx", options=quick)
        >>> path = before.save("before.json")
        >>> after = ds.profile("model.onnx", options=quick)
        >>> compared = ds.compare("before.json", after)
        >>> compared.pairs[0].same_file
        True
    """
    from dsconvert.deploy.profiling.compare_runs import compare_runs, read_run

    from .results.measured import ComparedRuns
    from .results.shown import shown

    runs = [read_run(run) if isinstance(run, str | Path) else run for run in (first, second)]
    return shown(ComparedRuns, compare_runs(*runs, allow=allow, seed=seed))
