"""A candidate that is worse, refused or not written costs the candidate alone."""

from __future__ import annotations

import numpy as np
import pytest

from dsconvert.base.errors import InputError
from dsconvert.base.label_agreement import OutputKind
from dsconvert.deploy.exporting.held_out import HeldOut, _noise_of
from dsconvert.deploy.exporting.improve import Improvement, improve
from dsconvert.deploy.exporting.layer_types import LayerError, QuantizationReport


class Written:
    """A builder whose files have the SQNR, in dB, that it was told."""

    suffix = ".onnx"

    def __init__(self, table, name="plain", method="minmax"):
        self.table, self.name, self.method = table, name, method

    def write(self, path, in_float=()):
        path.write_text(",".join([self.name, *in_float]))
        return ()

    def equalized(self):
        name = self.name.replace("plain", "equalized")
        return Written(self.table, name, self.method), ("cross-layer equalization: 1 pair",)

    def otherwise(self):
        if f"{self.name} mse" not in self.table:
            return None
        return Written(self.table, f"{self.name} mse", "mse")

    def corrected(self, full, quantized, path):
        path.write_text(quantized.read_text() + "+biases")
        return 3

    def write_float(self, path):
        path.write_text("float")


class Figures(HeldOut):
    table: dict[str, float] = {}  # noqa: RUF012

    def sqnr(self, path):
        return self.table[path.read_text()]


@pytest.mark.parametrize(
    ("table", "kept"),
    [
        ({"plain": 10, "equalized": 12, "equalized+biases": 13}, "equalized+biases"),
        ({"plain": 10, "equalized": 12, "equalized+biases": 11}, "equalized"),
        ({"plain": 10, "equalized": 9, "plain+biases": 11}, "plain+biases"),
        ({"plain": 10, "equalized": 10.01, "plain+biases": 10.01}, "plain"),
        ({"plain": 10, "equalized": -np.inf, "plain+biases": -np.inf}, "plain"),
    ],
)
def test_what_does_not_help_is_not_kept(table, kept, tmp_path):
    held_out = Figures((), ())
    held_out.table.clear()
    held_out.table.update(table)
    done = improve(Written(table), tmp_path / "best.onnx", held_out, Improvement())
    assert (tmp_path / "best.onnx").read_text() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["best.onnx"]
    told = " ".join(done.notes)
    assert (
        "cross-layer equalization kept" in told,
        "cross-layer equalization not kept" in told,
    ) == (
        kept.startswith("equalized"),
        kept.startswith("plain"),
    )
    assert ("layers kept" in told) == kept.endswith("biases")
    assert "10.0 dB without" in told
    assert done.method == "minmax"


@pytest.mark.parametrize(
    ("plain", "equalized", "clipped", "kept"),
    [
        (10, 12, 11, "equalized"),
        (10, 12, 13, "equalized mse"),
        (13, 12, 14, "plain mse"),
        (13, 12, 13.01, "plain"),
        (13, 12, -np.inf, "plain"),
    ],
)
def test_ranges_of_either_kind(plain, equalized, clipped, kept, tmp_path):
    better = "plain" if plain > equalized else "equalized"
    held_out = Figures((), ())
    held_out.table.clear()
    held_out.table.update({"plain": plain, "equalized": equalized, f"{better} mse": clipped})
    wish = Improvement(correct_biases=False)
    done = improve(Written(held_out.table), tmp_path / "best.onnx", held_out, wish)
    assert (tmp_path / "best.onnx").read_text() == kept
    assert done.method == ("mse" if "mse" in kept else "minmax")
    told = [note for note in done.notes if note.startswith("ranges by mse")]
    assert len(told) == np.isfinite(clipped)
    assert all(("not kept" in note) == (done.method == "minmax") for note in told)


def test_enough_is_asked_of_every_output(tmp_path, monkeypatch):
    """One output of four is at 3 dB: together they have 9."""
    ones = np.ones((2, 5))
    answers = {
        "plain": (ones + 0.5**0.5, ones, ones, ones),
        "plain,one": (ones + 0.1, ones, ones, ones),
        "broken": (np.full((2, 5), np.inf), ones, ones, ones),
    }

    class Answers:
        def __init__(self, path):
            self.predict = lambda inputs: answers[path.read_text()]
            self.output_kinds = (OutputKind(),) * 4

    monkeypatch.setattr("dsconvert.deploy.exporting.held_out.open_runtime", Answers)
    held_out = HeldOut((), (ones, ones, ones, ones))
    paths = {name: tmp_path / name.replace(",", "-") for name in answers}
    for name, path in paths.items():
        path.write_text(name)
    decibels = {name: (held_out.sqnr(path), held_out.worst(path)) for name, path in paths.items()}
    assert decibels["plain"] == pytest.approx((9.03, 3.01), abs=0.01)
    assert decibels["plain,one"] == pytest.approx((26.02, 20), abs=0.01)
    assert decibels["broken"] == (-np.inf, -np.inf)

    wish = Improvement(equalize="off", correct_biases=False, keep_float="auto", min_sqnr_db=6)
    layers = tuple(
        LayerError(name=name, node=name, op="Conv", signal=1.0, sqnr_db=3.0, finite=True)
        for name in ("one", "two", "three")
    )
    monkeypatch.setattr(
        "dsconvert.deploy.exporting.improve.layer_report",
        lambda full, path, samples: QuantizationReport(samples=2, layers=layers, unmatched=0),
    )
    answers |= {"plain,two": answers["plain"], "plain,three": answers["plain"]}
    answers |= {"plain,one,two": answers["plain,one"], "plain,two,three": answers["plain"]}
    improve(Written({}), tmp_path / "best.onnx", held_out, wish)
    assert (tmp_path / "best.onnx").read_text() == "plain,one"


class Refusing(Figures):
    """A runtime that does not load files of some contents."""

    def sqnr(self, path):
        if self.table[path.read_text()] is None:
            raise InputError(f"{path} cannot be loaded by LiteRT: node 5 failed to prepare")
        return self.table[path.read_text()]


@pytest.mark.parametrize(
    ("table", "kept"),
    [
        ({"plain": 10, "equalized": None, "plain+biases": 11}, "plain+biases"),
        ({"plain": None, "equalized": 10, "equalized+biases": None}, "equalized"),
        ({"plain": 10, "equalized": 9, "plain+biases": None}, "plain"),
    ],
)
def test_a_candidate_that_a_runtime_refuses_costs_the_candidate(table, kept, tmp_path):
    held_out = Refusing((), ())
    held_out.table.clear()
    held_out.table.update(table)
    done = improve(Written(table), tmp_path / "best.onnx", held_out, Improvement())
    assert (tmp_path / "best.onnx").read_text() == kept
    refused = [note for note in done.notes if "was refused" in note]
    assert refused == [
        "a candidate was refused: it cannot be loaded by LiteRT: node 5 failed to prepare"
    ]


def test_a_candidate_that_cannot_be_written_costs_the_candidate(tmp_path, monkeypatch):
    table = {"plain": 10, "equalized": 12, "plain+biases": 9}
    held_out = Figures((), ())
    held_out.table.clear()
    held_out.table.update(table)
    real = Written.write

    def write(self, path, in_float=()):
        if self.name == "equalized":
            raise InputError(f"ONNX Runtime cannot quantize {path}: no type")
        return real(self, path, in_float)

    monkeypatch.setattr(Written, "write", write)
    done = improve(Written(table), tmp_path / "best.onnx", held_out, Improvement())
    assert (tmp_path / "best.onnx").read_text() == "plain"
    assert "a candidate was refused: ONNX Runtime cannot quantize it: no type" in done.notes


def test_a_candidate_of_another_size_counts_as_all_noise():
    """As one whose Resize rounds to another size."""
    reference = np.ones((3, 6, 9, 3))
    assert _noise_of(reference, reference[:, :5], OutputKind()) == [np.inf]
