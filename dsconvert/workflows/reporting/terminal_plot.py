"""The files of a run as points in a terminal: time against accuracy."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from .charts import kept

_WIDTH, _HEIGHT = 78, 16
LETTERS = string.ascii_uppercase


def pareto(run: Mapping[str, Any]) -> str:
    """Draw each file by its time and by how good it is, in characters without colour.

    Args:
        run: A report, as plain values.

    Returns:
        Lines of at most 78 characters; empty where fewer than two files have both figures.
    """
    import plotext

    points: list[tuple[float, float]] = []
    names, title, unit = [], "", "ms"
    for file in run["files"]:
        timing, quality = file.get("timing"), kept(run, file)
        if file["failure"] or timing is None or quality is None:
            continue
        title, unit = quality[1], timing["unit"]
        points.append((timing["value"], quality[0]))
        chosen = file["name"] == run["recommended"]
        names.append(f"{'▸ ' if chosen else ''}{file['name']}")
    if len(set(points)) < 2:
        return ""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limit_size(False, False)  # else the plot shrinks to what a pipe is taken for
    plotext.plotsize(_WIDTH, _HEIGHT)
    for letter, (time, good) in zip(LETTERS, points, strict=False):
        plotext.scatter([time], [good], marker=letter)
    plotext.xlabel(f"time of one inference ({unit})" if unit == "ms" else "cycles")
    plotext.title(f"{title}: up and left is better")
    for limits, values in (
        (plotext.xlim, [time for time, _ in points]),
        (plotext.ylim, [good for _, good in points]),
    ):
        around = 0.15 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 1.0
        limits(min(values) - around, max(values) + around)
    drawn = plotext.uncolorize(plotext.build())
    plotext.clear_figure()
    legend = (f"{letter} {name}" for letter, name in zip(LETTERS, names, strict=False))
    return "\n".join([*(line.rstrip() for line in drawn.splitlines()), *legend])
