"""What SECURITY.md says of running code has a test each, which it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "SECURITY.md").read_text()
NAMED = re.findall(r"`([\w/]+\.py(?:::\w+)+)`", TEXT)


def exists(name: str) -> bool:
    """Tell whether a file holds a test: ``file.py::test`` or ``file.py::Class::test``."""
    file, *names = name.split("::")
    path = TESTS / file
    body = ast.parse(path.read_text()).body if path.is_file() else []
    for one in names:
        found = [node for node in body if getattr(node, "name", None) == one]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return names[-1].startswith("test_")


def test_every_named_test_exists():
    assert [name for name in NAMED if not exists(name)] == []
    assert not exists("project/test_security.py::test_nothing")
    assert not exists("project/test_nothing.py::test_nothing")


def test_every_line_of_what_runs_names_one():
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 8
    assert [row for row in rows if not re.search(r"`[\w/]+\.py(?:::\w+)+` \|$", row)] == []
