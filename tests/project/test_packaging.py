"""What is installed is what lies in the folders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[2]
ROOMS = ("converter", "models", "deploy")
"""Folders at the top of the repository that are packages of dsconvert."""


def place_of(path: Path) -> Path:
    """Where a file of the repository lies in the wheel."""
    inside = path.relative_to(ROOT)
    return inside if inside.parts[0] == "dsconvert" else Path("dsconvert") / inside


def on_disk() -> set[str]:
    """Dotted names of all packages."""
    return {
        ".".join(place_of(path.parent).parts)
        for top in ("dsconvert", *ROOMS)
        for path in (ROOT / top).rglob("__init__.py")
    }


def test_every_package_is_listed() -> None:
    """An unlisted one works in place and is missing from the wheel."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(settings["tool"]["setuptools"]["packages"]) == on_disk()


def test_the_version_is_read_from_tags_and_never_written() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in settings["project"]
    assert settings["project"]["dynamic"] == ["version"]
    fallback = Version(settings["tool"]["setuptools_scm"]["fallback_version"])
    assert fallback.is_devrelease, "what has no tag is no release"


def test_the_pythons_are_named_alike() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    minors = [f"3.{minor}" for minor in range(8, 20)]
    allowed = [one for one in minors if f"{one}.1" in SpecifierSet(project["requires-python"])]
    named = [one.rpartition(" ")[2] for one in project["classifiers"] if "Python :: 3." in one]
    assert allowed == named


def test_the_changelog_keeps_its_form() -> None:
    """keepachangelog.com: releases with dates, newest first, and kinds of changes."""
    text = (ROOT / "CHANGELOG.md").read_text()
    releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    form = re.compile(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}")
    dated = [one for one in releases if one != "[Unreleased]"]
    assert releases == ["[Unreleased]"] * (len(releases) - len(dated)) + dated
    versions = [Version(form.fullmatch(one)[1]) for one in dated]
    assert versions == sorted(versions, reverse=True)
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_no_other_and_runs(tmp_path: Path) -> None:
    source = tmp_path / "source"  # setuptools would add what an earlier build left in build/
    for top in ("dsconvert", *ROOMS):
        shutil.copytree(ROOT / top, source / top, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command = [*pip, "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {
        str(place_of(path)) for top in ("dsconvert", *ROOMS) for path in (ROOT / top).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules
    assert all(name.startswith("dsconvert/") for name in names)
    assert "dsconvert/py.typed" in names

    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    code = "import dsconvert.cli as c, dsconvert.converter.core.types; print(c.__file__); c.main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "--help"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
    )
    assert done.stdout.startswith(str(unpacked))
    assert "rewrite" in done.stdout
