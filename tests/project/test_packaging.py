"""What is installed is what lies in the folders."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("converter", "models", "deploy")


def on_disk() -> set[str]:
    """Dotted names of all packages in the rooms."""
    return {
        "dsconvert." + ".".join(path.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }


def test_every_package_is_listed() -> None:
    """An unlisted one works in place and is missing from the wheel."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(settings["tool"]["setuptools"]["packages"]) == on_disk()


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_no_other(tmp_path: Path) -> None:
    source = tmp_path / "source"  # setuptools would add what an earlier build left in build/
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command = [*pip, "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {
        f"dsconvert/{path.relative_to(ROOT)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules
    assert all(name.startswith("dsconvert/") for name in names)
    assert "dsconvert/converter/py.typed" in names
