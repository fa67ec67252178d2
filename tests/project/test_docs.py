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
    documents = ("README.md", "docs/commands.md", "docs/how-it-works.md")
    text = "".join((ROOT / document).read_text() for document in documents)
    helps = "".join(CliRunner().invoke(main, [name, "--help"]).output for name in main.commands)
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--editable"}
    assert options
    assert {option for option in options if option not in helps} == set()


def test_links_between_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CHANGELOG.md"):
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
