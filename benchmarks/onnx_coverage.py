"""Which ONNX operators the import knows, how ONNX's own tests of them go, and what is rewritten.

    python benchmarks/onnx_coverage.py
    python benchmarks/onnx_coverage.py rewrite

prints the tables, or the one named (import, rewrite), and writes them into docs/onnx-ops.md,
between their markers.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

if TYPE_CHECKING:
    from backend_cases import Outcome

DOCUMENT = ROOT / "docs" / "onnx-ops.md"
END = "<!-- end of table -->"


def main() -> None:
    for what in sys.argv[1:] or ("import", "rewrite"):
        table = {"import": coverage, "rewrite": rewrites}[what]()
        print(table)
        begin = f"<!-- table: {what} -->"
        before, rest = DOCUMENT.read_text().split(begin)
        _, after = rest.split(END, 1)
        DOCUMENT.write_text(f"{before}{begin}\n{table}\n{END}{after}")


def rewrites() -> str:
    """Return the table of operators that carry weights, and what a rewrite makes of them."""
    import logging
    import tempfile

    from kernel_operators import GRAPHS, both_ways

    logging.getLogger("dsconvert").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        rows = {name: both_ways(name, Path(folder)) for name in GRAPHS}
    plain = sum(told == "rewritten" for told, _ in rows.values())
    more = sum(told == "rewritten" for _, told in rows.values())
    lines = [
        f"{len(rows)} forms of operators; {plain} rewritten, {more} more with `--dequantize`.",
        "",
        "| operator | `rewrite` | with `--dequantize` |",
        "|---|---|---|",
    ]
    return "\n".join(lines + [f"| {name} | {' | '.join(told)} |" for name, told in rows.items()])


def coverage() -> str:
    """Return the table, in Markdown."""
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
        "| operator | passed / cases | TFLite | left out, or failed |",
        "|---|---|---|---|",
    ]
    for operator in sorted(covered()):
        results = by_operator.get(operator, [])
        count = [o for o in results if not o.left_out]
        score = f"{sum(o.passed for o in count)} / {len(count)}" if count else "no case"
        passing = [o.case for o in count if o.passed]
        lines.append(f"| `{operator}` | {score} | {in_tflite(passing)} | {notes(results)} |")
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


def in_tflite(names: list[str]) -> str:
    """Tell whether one of these cases converts to TFLite's builtin operators and gives the same."""
    import numpy as np
    import onnx_graphs
    from backend_cases import cases, differences

    from dsconvert.models.onnx_import import import_onnx

    found = [case for case, _ in cases() if case.name in names]
    # Of floats where there are such, not spelled out in others, not empty.
    found.sort(key=lambda c: ("expanded" in c.name, c.inputs[0].dtype != np.float32))
    found = [case for case in found if all(x.size and x.ndim for x in case.inputs)]
    if not found:
        return "–"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            got = onnx_graphs.in_tflite(import_onnx(found[0].model), found[0].inputs)
    except Exception as error:  # the converter's errors share no base class
        missing = [name for name in re.findall(r"'?tf\.(\w+)", str(error)) if name[0].isupper()]
        return f"no builtin for {missing[0]}" if missing else f"no: {str(error)[:60]}"
    return differences(got, found[0]) or "yes"


def notes(results: list[Outcome]) -> str:
    """Return what is to be said of the cases of an operator that did not pass."""
    from backend_cases import known

    left = Counter(f"left out: {o.left_out}" for o in results if o.left_out)
    failed = Counter(f"failed: {known(o.case) or o.failure}" for o in results if o.failure)
    return "; ".join(f"{n} {what}" for n, what in (left + failed).items())


if __name__ == "__main__":
    main()
