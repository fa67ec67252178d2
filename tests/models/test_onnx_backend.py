"""ONNX's own node tests against the import; docs/onnx-ops.md is their table."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
from backend_cases import KNOWN, cases, covered, known, outcomes
from packaging.version import Version

TABLE = Path(__file__).parents[2] / "docs" / "onnx-ops.md"


@pytest.mark.slow
def test_onnx_own_cases_pass() -> None:
    if not cases() and Version(onnx.__version__) < Version("1.23"):
        pytest.skip("this release of onnx keeps its cases in files")
    results = [o for o in outcomes(covered()) if not o.left_out]
    failed = {o.case: o.failure for o in results if o.failure}
    assert len(results) > 700
    assert {name: why for name, why in failed.items() if not known(name)} == {}
    idle = [pattern for pattern in KNOWN if not any(re.search(pattern, name) for name in failed)]
    assert not idle, "these pass by now"
    assert len(failed) <= 0.05 * len(results)


def test_the_table_names_the_operators_that_have_handlers() -> None:
    listed = re.findall(r"^\| `(\w+)`", TABLE.read_text(), re.MULTILINE)
    assert len(set(listed)) == len(listed)
    assert set(listed) == set(covered()), "run: python benchmarks/onnx_coverage.py"
