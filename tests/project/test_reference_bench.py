"""How benchmarks keep their results: what is there is not done again, and fills the documents."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The scripts' shared modules, with the filters of warnings as they were."""
    import importlib
    import warnings

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    with warnings.catch_warnings():
        found = {name: importlib.import_module(name) for name in ("common", "steps", "charts")}
    for name in found:
        monkeypatch.delitem(sys.modules, name)
    return found


def test_a_step_is_done_once(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    Shelf = modules["steps"].Shelf
    done = []

    def work() -> dict[str, int]:
        done.append(1)
        return {"answer": len(done)}

    shelf = Shelf(tmp_path, False)
    assert shelf.step("one", {"epochs": 1, "include": ("a",)}, work) == {"answer": 1}
    assert shelf.step("one", {"epochs": 1, "include": ("a",)}, work) == {"answer": 1}
    assert shelf.step("one", {"epochs": 2, "include": ("a",)}, work) == {"answer": 2}
    assert Shelf(tmp_path, True).step("one", {"epochs": 2, "include": ("a",)}, work) == {
        "answer": 3
    }


def test_a_step_that_fails_leaves_nothing(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    def work() -> None:
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        modules["steps"].Shelf(tmp_path, False).step("one", {}, work)
    assert list(tmp_path.rglob("*.json")) == []


def test_a_table_is_printed_and_kept(
    modules: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules["common"].table("T = 1, no data (1)", ["a", "b"], [[1, "x"]], folder=tmp_path)
    assert "### T = 1, no data (1)\n\n| a | b |\n|---|---|\n| 1 | x |" in capsys.readouterr().out
    kept = json.loads((tmp_path / "t-1-no-data-1.json").read_text())
    assert kept["columns"] == ["a", "b"]
    assert kept["rows"] == [["1", "x"]]
    assert "Python" in kept["machine"]


def test_tables_get_between_the_markers(
    modules: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "page.md"
    document.write_text(
        "before\n<!-- table: one -->\nold\n<!-- end -->\n"
        "<!-- table: two -->\nNot run.\n<!-- end -->\nafter\n"
    )
    modules["common"].table("One", ["a"], [[1], [2]], folder=tmp_path)
    modules["charts"].fill(document, tmp_path)
    assert document.read_text() == (
        "before\n<!-- table: one -->\n| a |\n|---|\n| 1 |\n| 2 |\n<!-- end -->\n"
        "<!-- table: two -->\nNot run.\n<!-- end -->\nafter\n"
    )
    assert "two was not run" in capsys.readouterr().out
