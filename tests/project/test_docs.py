"""What the documents show was run: here it is run again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
write_digits(Path("digits.npz"))
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


def test_documents_name_only_options_that_exist() -> None:
    text = "".join(page.read_text() for page in PAGES)
    helps = "".join(CliRunner().invoke(main, [name, "--help"]).output for name in main.commands)
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - OTHERS
    assert options
    assert {option for option in options if option not in helps} == set()


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
