"""What `make audit` makes of pip-audit's answers, here of a program that gives them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit"
SOUND = {"name": "sound", "version": "1", "vulns": []}
WEAK = {"name": "weak", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI"}


def audit(folder: Path, out: str, err: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(
        f"import sys; print({out!r}); print({err!r}, file=sys.stderr); sys.exit({code})"
    )
    return subprocess.run(
        [sys.executable, AUDIT, sys.executable, program],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("packages", "code"),
    [([SOUND], 0), ([SOUND, WEAK], 1), ([WEAK, UNKNOWN], 1), ([SOUND, UNKNOWN], 2), ([], 2)],
)
def test_codes(tmp_path, packages, code):
    found = audit(tmp_path, json.dumps({"dependencies": packages}), code=int(WEAK in packages))
    assert found.returncode == code, found
    assert ("PYSEC-1" in found.stdout) == (WEAK in packages)


def test_what_could_not_be_looked_up_is_an_error(tmp_path):
    found = audit(tmp_path, json.dumps({"dependencies": [SOUND, UNKNOWN]}))
    assert found.returncode == 2
    assert "unknown" in found.stderr


def test_no_network_is_no_traceback(tmp_path):
    found = audit(tmp_path, "", "Traceback (most recent call last):\nConnectionError: no", code=1)
    assert found.returncode == 2
    assert "ConnectionError" in found.stderr
    assert "Traceback" not in found.stderr
