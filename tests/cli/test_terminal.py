"""Names, paths and messages come out as they are."""

from __future__ import annotations

import ast
import importlib.metadata as metadata
import io
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from onnx_nets import small_cnn
from rich.table import Table

from dsconvert.cli import main, terminal

ROOT = Path(__file__).parents[2]
TRICKY = "[bold]a[/bold] [/b] dsconvert[ssh] :bug: [link=x]y"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("place", ["line", "cell", "header", "title", "caption"])
def test_text_is_printed_as_it_is(place):
    out = io.StringIO()
    console = terminal.console(out)
    console.width = 200
    table = Table(title=TRICKY, caption=TRICKY) if place in ("title", "caption") else Table()
    table.add_column(TRICKY if place == "header" else "name")
    table.add_row(TRICKY if place == "cell" else "as wide as the title" * 4)
    console.print(TRICKY if place == "line" else table)
    assert TRICKY in out.getvalue()


def test_progress_names_what_it_works_on_as_it_is(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with terminal.progress(TRICKY, 1) as advance:
        advance()
    assert TRICKY in sys.stderr.getvalue()


def test_extras_are_named(monkeypatch):
    true = metadata.version

    def version(name: str) -> str:
        if name == "asyncssh":
            raise metadata.PackageNotFoundError(name)
        return true(name)

    monkeypatch.setattr(metadata, "version", version)
    result = CliRunner().invoke(main, ["doctor"])
    assert "pip install --upgrade 'dsconvert[ssh]'" in result.stdout


def test_names_of_layers_and_files_are_printed(tmp_path):
    model = small_cnn()
    model.graph.node[0].name = "body[0]/conv[/]"
    path = tmp_path / "a [red] model.onnx"
    onnx.save(model, path)
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert result.exit_code == 0, result.output
    assert "body[0]/conv[/]" in result.stdout
    refused = CliRunner().invoke(main, ["inspect", str(tmp_path / "[/none].onnx")])
    assert "[/none].onnx" in refused.stderr


def test_nothing_else_makes_a_console():
    """One made elsewhere would read styles in names."""
    makers = [
        str(path.relative_to(ROOT))
        for room in ("dsconvert", "converter", "deploy", "models")
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Console"
    ]
    assert makers == ["dsconvert/cli/terminal.py"]
