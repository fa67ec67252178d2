"""The small plot under the table of a run."""

from __future__ import annotations

import re

from dsconvert.workflows.reporting.terminal_plot import pareto


def run_of(*files, recommended="b"):
    return {
        "loss_of": "top-1",
        "recommended": recommended,
        "files": [
            {
                "name": name,
                "failure": "",
                "timing": None if time is None else {"value": time, "unit": "ms"},
                "score": {"value": share, "unit": "share", "title": "top-1"},
                "loss": 0.0,
            }
            for name, time, share in files
        ],
    }


def place_of(letter, drawn):
    """Row and column of a file's letter inside the frame."""
    rows = [line.partition("┤")[2] or line.partition("│")[2] for line in drawn.splitlines()]
    return next((n, row.index(letter)) for n, row in enumerate(rows) if letter in row)


def test_up_is_better_and_left_is_faster():
    drawn = pareto(run_of(("a", 2.0, 0.9), ("b", 1.0, 0.8), ("c", None, 0.7), ("d", 3.0, 0.95)))
    (a_row, a_column), (b_row, b_column), (d_row, d_column) = (place_of(x, drawn) for x in "ABC")
    assert d_row < a_row < b_row
    assert b_column < a_column < d_column
    assert drawn.splitlines()[-3:] == ["A a", "B ▸ b", "C d"]
    assert max(map(len, drawn.splitlines())) <= 80
    assert not re.search("\x1b", drawn)


def test_one_point_is_no_plot():
    assert pareto(run_of(("a", 1.0, 0.9), ("c", None, 0.7))) == ""
    assert pareto(run_of(("a", 1.0, 0.9), ("b", 1.0, 0.9))) == ""
