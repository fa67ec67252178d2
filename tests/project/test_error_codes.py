"""Programs and tests tell errors apart by their codes, so every refusal has one of its own."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASES = {"DsconvertError", "InputError", "GateFailed"}
PAGE = (ROOT / "docs" / "errors.md").read_text()
REASONS, FINDINGS = "\n# Reasons", "\n# Findings"
KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def sources() -> list[Path]:
    rooms = ("converter", "deploy", "dsconvert", "models")
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


@cache
def trees() -> list[tuple[Path, ast.AST]]:
    return [(path.relative_to(ROOT), ast.parse(path.read_text())) for path in sources()]


def made(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls that make one of the errors themselves."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in BASES:
            yield node


def test_every_error_is_made_with_a_code():
    without = [
        f"{path}:{call.lineno}"
        for path, tree in trees()
        for call in made(tree)
        if "code" not in {keyword.arg for keyword in call.keywords}
    ]
    assert without == []


def test_every_class_of_errors_has_a_code():
    without = [
        f"{path}: {node.name}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and {getattr(base, "id", "") for base in node.bases} & BASES
        and not any(
            "default_code" in ast.unparse(statement).split("=")[0] for statement in node.body
        )
    ]
    assert without == []


def words_of(node: ast.AST) -> set[str]:
    """The texts that an expression may come to."""
    if isinstance(node, ast.IfExp):
        return words_of(node.body) | words_of(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def codes_of(*makers: str) -> set[str]:
    """The codes that the calls of these names give to what they make."""
    return {
        code
        for _, tree in trees()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in makers
        for keyword in call.keywords
        if keyword.arg == "code"
        for code in words_of(keyword.value)
    }


def default_codes() -> set[str]:
    """Those of the classes."""
    return {
        code
        for _, tree in trees()
        for statement in ast.walk(tree)
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        and "default_code" in ast.unparse(statement).split("=")[0]
        and statement.value is not None
        for code in words_of(statement.value)
    }


def told_codes() -> set[str]:
    """Those of what is no refusal of ours: of the system, of a bug."""
    tree = ast.parse((ROOT / "dsconvert/cli/failures.py").read_text())
    return {
        code
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "_Told"
        for code in words_of(call.args[0])
    }


def subclasses() -> set[str]:
    """Errors that are made under names of their own."""
    return {
        node.name
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and {getattr(base, "id", "") for base in node.bases} & BASES
    }


def test_codes_are_words_with_hyphens():
    codes = codes_of(*BASES)
    assert len(codes) > 100
    assert [code for code in sorted(codes) if not KEBAB.fullmatch(code)] == []


def test_the_page_explains_every_code_and_no_other():
    explained = re.findall(r"^### `(.*)`$", PAGE.split(REASONS)[0], re.MULTILINE)
    assert [code for code in explained if explained.count(code) > 1] == []
    in_the_source = codes_of(*BASES, *subclasses()) | default_codes() | told_codes()
    assert in_the_source - set(explained) == set(), "explain them in docs/errors.md"
    assert set(explained) - in_the_source == set(), "remove them from docs/errors.md"


def test_every_code_is_explained_in_words():
    entries = re.split(r"^### `.*`$", PAGE.split(REASONS)[0], flags=re.MULTILINE)[1:]
    assert [entry for entry in entries if len(entry.split("\n## ")[0].split()) < 4] == []


def test_the_page_explains_the_reasons_and_findings():
    from typing import get_args

    from dsconvert.base.output_fidelity.finding import FindingCode

    reasons, findings = PAGE.split(REASONS)[1].split(FINDINGS)
    row = re.compile(r"^\| `(.*?)` \|", re.MULTILINE)
    indirect = {"subgraph", "function"}  # given to a helper
    assert set(row.findall(reasons)) == codes_of("Reason") | indirect
    literals = [one for part in get_args(FindingCode) for one in get_args(part) or (part,)]
    assert set(row.findall(findings)) == set(literals)


@pytest.mark.parametrize(("text", "number"), [("InputError('a', code='b')", 1), ("f('a')", 0)])
def test_calls_are_found(text, number):
    assert len(list(made(ast.parse(text)))) == number
