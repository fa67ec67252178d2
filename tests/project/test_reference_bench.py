"""How benchmarks keep their results: what is there is not done again, and fills the documents."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("common", "steps", "charts", "run_all", "large_networks")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The scripts' shared modules, with the filters of warnings as they were."""
    import importlib
    import warnings

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    with warnings.catch_warnings():
        found = {name: importlib.import_module(name) for name in MODULES}
    for name in found:
        monkeypatch.delitem(sys.modules, name)
    return found


def test_a_step_is_done_once(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    Shelf = modules["steps"].Shelf
    done = []

    def work() -> dict[str, int]:
        done.append(1)
        return {"answer": len(done)}

    shelf = Shelf(tmp_path, False)
    assert shelf.step("one", {"epochs": 1, "include": ("a",)}, work) == {"answer": 1}
    assert shelf.step("one", {"epochs": 1, "include": ("a",)}, work) == {"answer": 1}
    assert shelf.step("one", {"epochs": 2, "include": ("a",)}, work) == {"answer": 2}
    assert Shelf(tmp_path, True).step("one", {"epochs": 2, "include": ("a",)}, work) == {
        "answer": 3
    }


def test_a_step_that_fails_leaves_nothing(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    def work() -> None:
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        modules["steps"].Shelf(tmp_path, False).step("one", {}, work)
    assert list(tmp_path.rglob("*.json")) == []


def test_a_table_is_printed_and_kept(
    modules: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules["common"].table("T = 1, no data (1)", ["a", "b"], [[1, "x"]], folder=tmp_path)
    assert "### T = 1, no data (1)\n\n| a | b |\n|---|---|\n| 1 | x |" in capsys.readouterr().out
    kept = json.loads((tmp_path / "t-1-no-data-1.json").read_text())
    assert kept["columns"] == ["a", "b"]
    assert kept["rows"] == [["1", "x"]]
    assert "Python" in kept["machine"]


def test_tables_get_between_the_markers(
    modules: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "page.md"
    document.write_text(
        "before\n<!-- table: one -->\nold\n<!-- end -->\n"
        "<!-- table: two -->\nNot run.\n<!-- end -->\nafter\n"
    )
    modules["common"].table("One", ["a"], [[1], [2]], folder=tmp_path)
    modules["charts"].fill(document, tmp_path)
    assert document.read_text() == (
        "before\n<!-- table: one -->\n| a |\n|---|\n| 1 |\n| 2 |\n<!-- end -->\n"
        "<!-- table: two -->\nNot run.\n<!-- end -->\nafter\n"
    )
    assert "two was not run" in capsys.readouterr().out


def test_what_lacks_its_data_is_left_out(
    modules: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_all = modules["run_all"]
    for name in ("cifar10", "mnist"):
        (tmp_path / f"{name}.npz").touch()
    given = [
        *("--models", tmp_path, "--data", tmp_path / "cifar10.npz"),
        *("--mnist", tmp_path / "mnist.npz", "--cifar100", tmp_path / "cifar100.npz"),
    ]
    monkeypatch.setattr(sys, "argv", ["run_all.py", *map(str, given)])
    found = dict(run_all.scripts(run_all.arguments()))
    assert "large" not in found
    assert f"large: left out, there is no {tmp_path}/cifar100.npz" in capsys.readouterr().out
    assert found["published"] == [str(word) for word in given]
    assert found["latency"] == [str(word) for word in given[:4]]
    (tmp_path / "cifar100.npz").touch()
    assert dict(run_all.scripts(run_all.arguments()))["large"] == [str(word) for word in given[6:]]


def test_an_interrupted_training_goes_on_to_the_same_weights(
    modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras = pytest.importorskip("keras")
    from dsconvert.models.training import batches

    networks, steps = modules["large_networks"], modules["steps"]
    x = np.random.default_rng(0).random((16, 8, 8, 3), dtype=np.float32)
    y = np.arange(16) % 2
    data = steps.Labelled("noise", tmp_path, x, y, x, y)
    training = networks.Training(epochs=2, mixed_precision=False, batch=4)
    state = tmp_path / "training.keras"

    def model() -> object:
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()]
        head = [keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
        return keras.Sequential([keras.Input((8, 8, 3)), *layers, *head])

    straight, resumed = model(), model()
    networks.train_by_labels(straight, data, training, state)
    assert not state.exists()
    drawn = batches.epoch_batches

    def interrupted(*given: object, epoch: int, **how: object) -> object:
        if epoch == 1:
            raise KeyboardInterrupt
        return drawn(*given, epoch=epoch, **how)

    with monkeypatch.context() as patch:
        patch.setattr(batches, "epoch_batches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            networks.train_by_labels(resumed, data, training, state)
    assert state.exists()
    networks.train_by_labels(resumed, data, training, state)
    for one, other in zip(straight.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 1_596_172), ("mobilenet_v2", 665_364)]
)
def test_larger_networks_have_the_parameters_that_are_reported(
    modules: dict[str, ModuleType], name: str, parameters: int
) -> None:
    pytest.importorskip("keras")
    model = getattr(modules["large_networks"], name)((32, 32, 3), 100)
    assert model.count_params() == parameters
    assert model.output_shape == (None, 100)
