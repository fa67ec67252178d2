"""Which ONNX operators the import knows, and how ONNX's own tests of them go.

    python benchmarks/onnx_coverage.py

prints the table and writes it into docs/onnx-ops.md, between its markers.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

if TYPE_CHECKING:
    from backend_cases import Outcome

BEGIN, END = "<!-- table: python benchmarks/onnx_coverage.py -->", "<!-- end of table -->"


def main() -> None:
    table = coverage()
    print(table)
    document = ROOT / "docs" / "onnx-ops.md"
    before, rest = document.read_text().split(BEGIN)
    document.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}")


def coverage() -> str:
    """The table, in Markdown."""
    import onnx
    from backend_cases import covered, outcomes

    by_operator = defaultdict(list)
    for outcome in outcomes(covered()):
        by_operator[outcome.operator].append(outcome)
    ran = [o for results in by_operator.values() for o in results if not o.left_out]
    passed = sum(o.passed for o in ran)
    lines = [
        f"{len(covered())} operators; {passed} of {len(ran)} cases of onnx {onnx.__version__} pass "
        f"({100 * passed / len(ran):.1f} %).",
        "",
        "| operator | passed / cases | left out, or failed |",
        "|---|---|---|",
    ]
    for operator in sorted(covered()):
        results = by_operator.get(operator, [])
        count = [o for o in results if not o.left_out]
        score = f"{sum(o.passed for o in count)} / {len(count)}" if count else "no case"
        lines.append(f"| `{operator}` | {score} | {notes(results)} |")
    others = {k: v for k, v in by_operator.items() if k not in covered()}
    total = [o for results in others.values() for o in results if not o.left_out]
    names = ", ".join(name for name in sorted(others) if any(not o.left_out for o in others[name]))
    lines += [
        "",
        f"Operators that are known only spelled out in others, as onnx expands them: "
        f"{sum(o.passed for o in total)} of {len(total)} cases of {names}.",
        *([notes(total)] if notes(total) else []),
    ]
    return "\n".join(lines)


def notes(results: list[Outcome]) -> str:
    """What is to be said of the cases of an operator that did not pass."""
    from backend_cases import known

    left = Counter(f"left out: {o.left_out}" for o in results if o.left_out)
    failed = Counter(f"failed: {known(o.case) or o.failure}" for o in results if o.failure)
    return "; ".join(f"{n} {what}" for n, what in (left + failed).items())


if __name__ == "__main__":
    main()
