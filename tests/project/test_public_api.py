"""What `import dsconvert as ds` shows: all of it documented, typed, and shown at work."""

from __future__ import annotations

import doctest
import importlib.metadata
import inspect
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import dsconvert as ds
from dsconvert.base.errors import DsconvertError

FUNCTIONS = [name for name in ds.__all__ if inspect.isfunction(getattr(ds, name))]
CLASSES = [name for name in ds.__all__ if inspect.isclass(getattr(ds, name))]
MODELS = ("model", "student", "teacher", "reference")
"""What parameters and attributes that hold a model are called."""


def test_dir_shows_what_a_user_needs():
    assert dir(ds) == ds.__all__ == sorted(ds._MODULE_OF)
    assert len(FUNCTIONS) + len(CLASSES) == len(ds.__all__)
    wanted = "load import_onnx load_data inspect plan rewrite finetune evaluate export verify"
    assert {*wanted.split(), "profile", "compare"} <= {*FUNCTIONS}
    records = "Goals Target ExportOptions FinetuneSettings DsconvertError InputError MissingExtra"
    assert {*records.split(), "GateFailed"} <= {*CLASSES}


def test_editors_see_the_same_names():
    """The imports under TYPE_CHECKING and the table of places are one list, in two forms."""
    text = Path(ds.__file__ or "").read_text()
    block = text[text.index("if TYPE_CHECKING:") : text.index("_PLACES")]
    seen = {}
    for module, names in re.findall(r"from \.([\w.]+) import (.+)", block):
        seen |= dict.fromkeys(names.split(", "), module)
    assert seen == ds._MODULE_OF


def test_what_is_not_there_is_told_as_python_does():
    with pytest.raises(AttributeError, match="no attribute 'prospect'"):
        _ = ds.prospect


def test_importing_is_light():
    code = """
import sys
import dsconvert as ds
dir(ds)
heavy = {"numpy", "scipy", "msgspec", "click", "rich", "tensorflow", "keras", "onnx"}
sys.exit(f"imported {heavy & set(sys.modules)}" if heavy & set(sys.modules) else 0)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_all(name):
    function = getattr(ds, name)
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    sections = re.findall(r"^(Args|Returns|Raises|Example):$", text, re.MULTILINE)
    wanted = ["Args"] * bool(signature.parameters) + ["Returns", "Raises", "Example"]
    assert sections == wanted
    described = re.findall(r"^    (\w+): ", text[: text.index("Returns:")], re.MULTILINE)
    assert described == list(signature.parameters)
    assert len(signature.parameters) <= 10


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_all(name):
    kind = getattr(ds, name)
    text = inspect.getdoc(kind) or ""
    assert "Example:" in text
    if not issubclass(kind, DsconvertError):
        fields = getattr(kind, "__struct_fields__", None) or [*kind.__dataclass_fields__]
        described = re.findall(r"^    (\w+): ", text, re.MULTILINE)
        assert described[: len(fields)] == list(fields)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_model_is_of_any_type(name):
    function = getattr(ds, name)
    for one in (function, *typing.get_overloads(function)):
        assert "Any" not in str(inspect.signature(one))


def test_no_model_of_a_result_is_of_any_type():
    from dsconvert.workflows.results.imported import ImportedModel
    from dsconvert.workflows.results.rewritten import RewrittenModel
    from dsconvert.workflows.results.tuned import TunedModel

    for kind in (ds.ModelFile, ImportedModel, RewrittenModel, TunedModel):
        assert "Any" not in str(kind.__annotations__["model"])


def test_a_model_object_gives_a_model_of_its_kind():
    kinds = {
        str(inspect.signature(one).parameters["model"].annotation): one.__annotations__["return"]
        for one in typing.get_overloads(ds.rewrite)
    }
    assert kinds["keras.Model"] == "RewrittenModel[keras.Model]"
    assert kinds["onnx.ModelProto"] == "RewrittenModel[onnx.ModelProto]"


@pytest.mark.parametrize("name", ds.__all__)
def test_the_example_runs(name, place, monkeypatch):
    monkeypatch.chdir(place)
    text = inspect.getdoc(getattr(ds, name)) or ""
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert example.examples
    runner = doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    runner.run(example, out=said.append)
    assert not said, "".join(said)
    for file in place.iterdir():  # each example finds the same files
        if file.name not in ("model.keras", "model.onnx", "digits.npz"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()


def test_the_version_is_the_package_s() -> None:
    assert ds.__version__ == importlib.metadata.version("dsconvert")
