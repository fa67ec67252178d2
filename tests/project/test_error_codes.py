"""Programs and tests tell errors apart by their codes, so every refusal has one of its own."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASES = {"DsconvertError", "InputError", "GateFailed"}
KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def sources() -> list[Path]:
    rooms = ("converter", "deploy", "dsconvert", "models")
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def trees() -> Iterator[tuple[Path, ast.AST]]:
    for path in sources():
        yield path.relative_to(ROOT), ast.parse(path.read_text())


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


def test_codes_are_words_with_hyphens():
    codes = {
        str(keyword.value.value)
        for _, tree in trees()
        for call in made(tree)
        for keyword in call.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    }
    assert len(codes) > 100
    assert [code for code in sorted(codes) if not KEBAB.fullmatch(code)] == []


@pytest.mark.parametrize(("text", "number"), [("InputError('a', code='b')", 1), ("f('a')", 0)])
def test_calls_are_found(text, number):
    assert len(list(made(ast.parse(text)))) == number
