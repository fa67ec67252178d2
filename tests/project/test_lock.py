"""The lock holds what pyproject.toml asks for, on each platform; `make lock` renews it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from dsconvert.deploy.profiling.doctor import TESTED

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements" / "dev.lock").read_text()
PLATFORMS = [
    {
        **{"sys_platform": system, "platform_machine": machine},
        **{"python_version": python, "python_full_version": f"{python}.5"},
    }
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
    for python in ("3.11", "3.12", "3.13")
]


def asked(extra: str, platform: dict[str, str]) -> Iterator[Requirement]:
    """Follow the extras that name others."""
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(extra, ())]:
        one = Requirement(line)
        if one.name == "dsconvert":
            for other in one.extras:
                yield from asked(other, platform)
        elif one.marker is None or one.marker.evaluate(default_environment() | platform):
            yield one


def locked(platform: dict[str, str]) -> dict[str, Version]:
    """Read what the lock installs on a platform."""
    found = {}
    for line in re.findall(r"^(\S+==.*?) *\\\\?$", LOCK, re.MULTILINE):
        one = Requirement(line)
        if one.marker is None or one.marker.evaluate(default_environment() | platform):
            (exact,) = one.specifier
            assert one.name not in found, "one release a platform"
            found[canonicalize_name(one.name)] = Version(exact.version)
    return found


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda it: "-".join([*it.values()][:3]))
def test_the_lock_holds_what_is_asked_for(platform):
    found = locked(platform)
    for one in asked("dev", platform):
        assert one.name in found, "make lock KEEP=1"
        assert one.specifier.contains(found[one.name]), (one, found[one.name])


def test_every_release_has_hashes():
    blocks = re.split(r"^(?=\S+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) > 50
    assert [block for block in blocks if "--hash=sha256:" not in block] == []


def test_the_doctor_names_the_releases_of_the_lock():
    found = locked(PLATFORMS[0])
    assert {name: ".".join(map(str, found[name].release[:2])) for name in TESTED} == TESTED
