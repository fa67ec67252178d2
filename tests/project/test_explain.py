"""The explanation is run: every number on its page is what its code gives."""

from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "explain.md"


def test_the_explanation_is_what_its_code_gives() -> None:
    results = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8", report=True)
    assert results.attempted >= 30
    assert results.failed == 0


def test_all_five_steps_are_there() -> None:
    steps = [line for line in PAGE.read_text().splitlines() if line.startswith("## ")]
    assert [step[3] for step in steps[:5]] == list("12345")
