"""One name for one thing, and docstrings that say what a thing does."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUESTIONS = {"how", "what", "when", "where", "whether", "which", "who", "why"}
"""First words of docstrings that do not say what a function does."""


def sources() -> list[Path]:
    rooms = ("converter", "deploy", "dsconvert", "models")
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def classes(tree: ast.Module) -> list[str]:
    """The public classes of a file."""
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def vague(tree: ast.AST) -> list[str]:
    """The functions whose docstring begins as a question."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (words := re.findall(r"\w+", ast.get_docstring(node) or ""))
        and words[0].lower() in QUESTIONS
    ]


def test_no_public_class_has_the_name_of_another():
    places = defaultdict(list)
    for path in sources():
        for name in classes(ast.parse(path.read_text())):
            places[name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_docstrings_of_functions_are_no_questions():
    found = {
        str(path.relative_to(ROOT)): names
        for path in sources()
        if (names := vague(ast.parse(path.read_text())))
    }
    assert found == {}


@pytest.mark.parametrize(("words", "found"), [("Whether.", ["f"]), ("Tell whether.", []), ("", [])])
def test_such_docstrings_are_found(words, found):
    assert vague(ast.parse(f'def f():\n    """{words}"""')) == found
