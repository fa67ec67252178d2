"""Figures as people read them."""

from __future__ import annotations

from dsconvert.workflows import formatting


def test_a_change_says_its_direction() -> None:
    assert formatting.change(200, 100) == "2.00× fewer"
    assert formatting.change(100, 150) == "1.50× more"
    assert formatting.change(None, 100) == "–"
