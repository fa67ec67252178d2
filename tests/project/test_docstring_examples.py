"""The examples in docstrings run; those of public functions do in a test with files at hand."""

import doctest
import importlib
import inspect
import shutil
from pathlib import Path

import pytest

import dsconvert as ds

ROOT = Path(__file__).parents[2]
ROOMS = {"dsconvert": "dsconvert"}
ROOMS |= {room: f"dsconvert.{room}" for room in ("converter", "deploy", "models")}


def modules():
    """The names of all modules that show something."""
    for room, package in ROOMS.items():
        for path in sorted((ROOT / room).rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                parts = path.relative_to(ROOT / room).with_suffix("").parts
                yield ".".join([package, *(part for part in parts if part != "__init__")])


def examples(name):
    """The examples of a module; without those that another test runs."""
    module = importlib.import_module(name)
    public = {inspect.getdoc(getattr(ds, one)) for one in ds.__all__}
    public = {text.strip() for text in public if text}
    for one in doctest.DocTestFinder().find(module, name):
        if one.examples and inspect.cleandoc(one.docstring).strip() not in public:
            yield one


@pytest.mark.parametrize("name", [*modules()])
def test_what_a_docstring_shows_is_what_happens(name, place, tmp_path, monkeypatch):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    runner, said = doctest.DocTestRunner(verbose=False), []
    for example in examples(name):
        runner.run(example, out=said.append)
    assert not said, "".join(said)


def test_there_are_such():
    assert sum(len(list(examples(name))) for name in modules()) > 30
