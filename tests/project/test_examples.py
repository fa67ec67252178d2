"""The notebooks in `examples/` run from their first cell to the assertions in their last."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from sshd import SSHD

EXAMPLES = Path(__file__).parents[2] / "examples"
WITHOUT_SSHD = SSHD is None or shutil.which("ssh-keygen") is None
needs_sshd = pytest.mark.skipif(WITHOUT_SSHD, reason="needs sshd: apt-get install openssh-server")
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))


def code_cells(notebook: str) -> list[dict]:
    cells = json.loads((EXAMPLES / notebook).read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_examples_are_there():
    assert NOTEBOOKS == [
        "board_over_ssh.ipynb",
        "keras_classifier.ipynb",
        "onnx_without_tensorflow.ipynb",
    ]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_outputs_and_ends_in_assertions(name):
    cells = code_cells(name)
    assert [cell["outputs"] for cell in cells] == [[]] * len(cells)
    assert {cell["execution_count"] for cell in cells} == {None}
    assert "\nassert " in "\n" + "".join(cells[-1]["source"])


@pytest.mark.parametrize("name", ["README.md", "docs/api.md"])
def test_the_documents_name_each_notebook(name):
    text = (EXAMPLES.parent / name).read_text()
    assert [one for one in NOTEBOOKS if f"examples/{one})" not in text] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(one, marks=needs_sshd) if one == "board_over_ssh.ipynb" else one
        for one in NOTEBOOKS
    ],
)
def test_a_notebook_runs(name):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(EXAMPLES)}},
    )
    client.execute()  # raises what a cell raises

    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert notebook.cells[-1].outputs == []
