"""Names, paths and messages come out as they are."""

from __future__ import annotations

import ast
import importlib.metadata as metadata
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conv_stacks import conv_stack
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
    result = CliRunner().invoke(main, ["inspect", "-v", str(path)])
    assert result.exit_code == 0, result.output
    assert "body[0]/conv[/]" in result.stdout
    refused = CliRunner().invoke(main, ["inspect", str(tmp_path / "[/none].onnx")])
    assert "[/none].onnx" in refused.stderr


def _named(node: ast.AST) -> list[str]:
    """What a call calls, or what a class is made from."""
    if isinstance(node, ast.ClassDef):
        return [ast.unparse(base) for base in node.bases]
    return [ast.unparse(node.func)] if isinstance(node, ast.Call) else []


def test_nothing_else_makes_a_console():
    """One made elsewhere would read styles in names."""
    makers = [
        str(path.relative_to(ROOT))
        for room in ("dsconvert", "converter", "deploy", "models")
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        for made in _named(node)
        if made.rpartition(".")[2] == "Console"
    ]
    assert makers == ["dsconvert/cli/terminal.py"]


def test_control_characters_are_shown_and_not_obeyed():
    assert terminal.visible("a\x1b[2J\x07\tb\n\x9b") == "a\\x1b[2J\\x07\tb\n\\x9b"
    assert terminal.visible("a\u202eb\u2028c") == "a\\u202eb\\u2028c"


def test_a_name_with_a_line_break_tells_no_result_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("faulty.toml").write_text('"x\\npassed \\u001b" = 1\n')
    np.savez("d.npz", **{"x\npassed": np.ones(3)})
    conv_stack(Path("m.onnx"), [3])
    for words in (
        ["inspect", "no\npassed.onnx"],
        ["inspect", "m.onnx", "--recipe", "faulty.toml"],
        ["evaluate", "m.onnx", "--data", "d.npz"],
    ):
        told = CliRunner().invoke(main, words).stderr
        assert "passed" in told
        assert not any(line.startswith("passed") for line in told.splitlines())
        assert "\x1b" not in told


@pytest.mark.parametrize("columns", ["0", "1", "5"])
def test_a_terminal_without_width_shows_the_result(tmp_path, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    conv_stack(tmp_path / "m.onnx", [3, 3])
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.onnx")]).stdout
    assert "can be replaced" in " ".join(shown.split())


@pytest.mark.parametrize(
    "words",
    [
        "inspect m.onnx --seed -1",
        "rewrite m.onnx --memory inf",
        "rewrite m.onnx --memory 1e400GiB",
        "profile m.onnx --min-seconds nan",
        "profile m.onnx --min-seconds inf",
        "profile m.onnx --cpus 0-99999999999",
        "devices --timeout inf",
        "verify a.onnx b.onnx --min-sqnr nan",
        "finetune m.keras --teacher t.keras --data d.npz --learning-rate nan",
    ],
)
def test_numbers_that_are_none_or_out_of_range_are_bad_input(words):
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 2
    assert not isinstance(result.exception, ArithmeticError | ValueError | MemoryError)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_does_not_end_the_command(closed):
    program = "from dsconvert.cli.supervisor import main; main()"
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", program, "zoo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words", ["zoo", "zoo --json", "--help", "zoo --help", "inspect none.onnx"]
)
def test_output_that_nobody_reads_ends_the_command_as_sigpipe_does(words):
    """1 would say that a check failed, as ``set -o pipefail`` sees it behind ``| head``."""
    program = "from dsconvert.cli.supervisor import main; main()"
    unread, end = os.pipe()
    os.close(unread)
    command = [sys.executable, "-c", program, *words.split()]
    errors = end if "none" in words else subprocess.PIPE
    done = subprocess.run(command, stdout=end, stderr=errors, check=False)
    os.close(end)
    assert done.returncode == 141
    assert not done.stderr


def test_a_stderr_that_takes_nothing_does_not_end_the_command(tmp_path):
    """A shell script that was started without one gives its own file in that place."""
    (tmp_path / "script").touch()
    program = "from dsconvert.cli.supervisor import main; main()"
    path = tmp_path / "net.onnx"
    onnx.save(small_cnn(), path)
    with (tmp_path / "script").open() as script:
        done = subprocess.run(
            [sys.executable, "-c", program, "verify", path, path, "--samples", "2"],
            stdout=subprocess.PIPE, stderr=script, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert "passed" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_full_stdout_is_a_sentence():
    program = "from dsconvert.cli.supervisor import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "zoo"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "cannot be printed" in done.stderr


def test_an_encoding_that_lacks_characters_replaces_them():
    program = "from dsconvert.cli.supervisor import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "zoo"],
        capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_memory_is_given_back_where_it_has_a_bound(monkeypatch):
    """TensorFlow reads it at its first array; commands without --memory leave it alone."""
    name = "TF_ONEDNN_USE_SYSTEM_ALLOCATOR"
    monkeypatch.setenv(name, "")
    monkeypatch.delenv(name)
    runner = CliRunner()
    assert runner.invoke(main, ["verify", "nothing.onnx", "nothing.onnx"]).exit_code == 2
    assert name not in os.environ
    assert runner.invoke(main, ["inspect", "nothing.onnx"]).exit_code == 2
    assert os.environ[name] == "1"
