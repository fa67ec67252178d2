"""What the documents show was run: here it is run again."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from dsconvert.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
"""What a user reads."""
OTHERS = {"--docs"}
"""Options of programs that are not dsconvert."""


@pytest.mark.slow
def test_the_api_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    prepare = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
from digits import train_digits, write_digits
write_digits(Path("digits.npz"), most=300)
train_digits(Path("digits.npz"), Path("model.h5"), epochs=1)
"""
    result = subprocess.run(
        [sys.executable, "-c", prepare + code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "rewritten.keras").exists()
    assert (tmp_path / "model.tflite").exists()
    assert "Accuracy(" in result.stdout


def shown_commands() -> Iterator[tuple[Path, str]]:
    """Every call of dsconvert in the blocks and between the words of the pages."""
    for page in PAGES:
        blocks = re.split(r"^```", page.read_text(), flags=re.MULTILINE)
        for words in blocks[::2]:
            for command in re.findall(r"`dsconvert ([^`]*)`", words):
                yield page, command
        for block in blocks[1::2]:
            lines = block.replace("\\\n", " ")
            for command in re.findall(r"^(?:\$ )?dsconvert (.*)$", lines, re.MULTILINE):
                yield page, command


def faults_of(command: str) -> str:
    """What the command line would say against it before it reads a file."""
    name, *words = shlex.split(command, comments=True)
    if name.startswith("-") or name == "COMMAND":
        return ""
    if name not in main.commands:
        return f"no command {name}"
    words = words[: words.index(">")] if ">" in words else words
    called = main.commands[name]
    context = click.Context(called, info_name=name)
    try:
        given, _, _ = called.make_parser(context).parse_args(words)
        for param in called.params:
            if isinstance(param, click.Option) and param.name in given:
                param.type_cast_value(context, given[param.name])
    except click.UsageError as error:
        return error.format_message()
    return ""


def test_every_command_that_is_shown_can_be_said_so() -> None:
    shown = list(shown_commands())
    assert len(shown) > 60
    wrong = [f"{page.name}: {one}: {why}" for page, one in shown if (why := faults_of(one))]
    assert wrong == []


@pytest.mark.parametrize(
    "command", ["inspct m.h5", "export m.h5 --quantise int8", "export m.h5 --quantize int9"]
)
def test_commands_that_cannot_be_said_are_found(command: str) -> None:
    assert faults_of(command)


def test_documents_name_only_options_that_exist() -> None:
    text = "".join(page.read_text() for page in PAGES)
    helps = "".join(CliRunner().invoke(main, [name, "--help"]).output for name in main.commands)
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - OTHERS
    assert options
    assert {option for option in options if option not in helps} == set()


def sessions() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sessions", ROOT / "docs" / "sessions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_of_a_command_ends_in_a_session() -> None:
    assert {session.page.stem for session in sessions().sessions()} == set(main.commands)


@pytest.mark.slow
def test_the_sessions_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = sessions()
    documents.prepare(tmp_path, epochs=1, most=300)
    monkeypatch.chdir(tmp_path)
    for session in documents.sessions():
        for command in () if session.long else session.commands:
            words, _, file = command.partition(" > ")
            result = CliRunner().invoke(main, shlex.split(words)[1:])
            assert result.exit_code == 0, f"{session.page.name}: {command}\n{result.output}"
            assert result.stdout
            if file:
                Path(file).write_text(result.stdout)


def test_the_reference_has_every_public_name() -> None:
    import dsconvert

    text = (ROOT / "docs" / "reference.md").read_text()
    names = re.findall(r"^\.\. auto\w+:: dsconvert\.(\w+)$", text, re.MULTILINE)
    assert sorted(names) == sorted(dsconvert.__all__)


def test_every_command_has_a_page() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "commands").glob("*.md")}
    assert pages == set(main.commands)
    index = (ROOT / "docs" / "commands.md").read_text()
    headings = re.findall(r"^## \[`(\w+)`\]\(commands/\1\.md\)$", index, re.MULTILINE)
    assert set(headings) == set(main.commands)


def test_links_between_documents_lead_somewhere() -> None:
    for document in (*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_plan_shown_is_a_plan_with_every_field() -> None:
    import msgspec

    from dsconvert.converter.core.types import LayerPlan, Plan

    text = (ROOT / "docs" / "plan.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)

    plan = msgspec.json.decode(example, type=Plan)

    assert list(plan.chosen) == ["conv2d_1"]
    shown = msgspec.json.decode(example)
    assert set(shown) == set(Plan.__struct_fields__)
    assert {key for layer in shown["layers"] for key in layer} == set(LayerPlan.__struct_fields__)


def test_the_picture_of_the_packages_is_current() -> None:
    command = [sys.executable, str(ROOT / "docs" / "draw_layers.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run: python docs/draw_layers.py"
