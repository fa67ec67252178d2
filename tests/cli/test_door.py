"""What a new user meets first: help, what is to be gained, words, widths and the next command."""

from __future__ import annotations

import shlex
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from conv_stacks import conv_stack

from dsconvert.base.table_width import fitted, natural_width
from dsconvert.base.tables import Table, as_text
from dsconvert.cli import main, terminal
from dsconvert.converter.core.planning.goals import Goals
from dsconvert.workflows.formatting import fit
from dsconvert.workflows.plan import _missed
from dsconvert.workflows.results.planned import NetworkTimes


def call(*words, columns="80"):
    result = CliRunner(env={"COLUMNS": columns}).invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_without_arguments_the_help_is_the_result():
    result = CliRunner().invoke(main, [])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Usage:" in result.stdout
    assert "inspect" in result.stdout


class TestInspect:
    def test_a_network_of_1x1_layers_is_told_in_one_line(self, tmp_path):
        path = conv_stack(tmp_path / "m.onnx", [1] * 12 + [3])
        first, *rest = call("inspect", path)
        assert "1 of 13 convolutions" in first
        assert "43 % of the MACs" in first  # 9 of 12 + 9 parts
        assert "left alone: 12 × 1×1 (nothing to separate)" in rest
        assert len(rest) < 9  # no line for each of those left alone
        assert call("inspect", path, "-v")[3:] != rest[2:]

    def test_nothing_to_gain_names_what_pays_instead(self, tmp_path):
        path = conv_stack(tmp_path / "m.onnx", [1, 1])
        first, *_, last = call("inspect", path, columns="300")
        assert "saves nothing" in first
        assert shlex.split(last)[:4] == ["next:", "dsconvert", "export", str(path)]
        assert "int8" in last

    def test_much_to_gain_names_the_whole_way(self, tmp_path):
        path = conv_stack(tmp_path / "m.onnx", [3, 3], channels=16)
        *_, last = call("inspect", path, columns="300")
        assert shlex.split(last)[:4] == ["next:", "dsconvert", "optimize", str(path)]

    @pytest.mark.parametrize("words", [[], ["-v"]])
    def test_lines_keep_within_80_columns(self, tmp_path, words):
        path = conv_stack(tmp_path / "m.onnx", [1, 3, 3], channels=16)
        np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(16, 16, 16, 16)))
        *lines, _ = call("inspect", path, "--calibration", tmp_path / "d.npz", *words)
        assert max(map(len, lines)) <= 80

    def test_the_weights_errors_are_for_the_curious(self, tmp_path):
        path = conv_stack(tmp_path / "m.onnx", [3, 3])
        assert not any("W − Ŵ" in line for line in call("inspect", path))
        assert any("W − Ŵ" in line for line in call("inspect", path, "-v"))


class TestWords:
    @pytest.mark.parametrize(
        ("error", "word"),
        [(0.012, "excellent"), (0.1, "excellent"), (0.11, "good"), (0.31, "needs fine-tuning")],
    )
    def test_a_fit_is_a_word_first(self, error, word):
        assert fit(error).startswith(f"{word}, ")
        assert f"{100 * error:.1f} %" in fit(error)

    def test_an_unknown_fit_is_none(self):
        assert fit(None) == "–"


class TestMissedTarget:
    def times(self, after, low, high):
        return NetworkTimes(
            unit="ms",
            before=2.0,
            after=after,
            predicted=0.9,
            error=0.0,
            ratio_low=low,
            ratio_high=high,
        )

    def test_a_target_that_is_surely_missed_is_told_with_what_was_reached(self):
        told = _missed(Goals(latency="0.5x"), self.times(1.1, 0.53, 0.57))
        assert "0.55x" in told
        assert "0.53" in told

    def test_an_amount_is_a_share_too(self):
        assert _missed(Goals(latency="1ms"), self.times(1.1, 0.53, 0.57))
        assert not _missed(Goals(latency="1.2ms"), self.times(1.1, 0.53, 0.57))

    def test_what_the_noise_hides_is_not_missed(self):
        assert not _missed(Goals(latency="0.5x"), self.times(1.02, 0.49, 0.53))

    def test_other_goals_have_no_time(self):
        assert not _missed(Goals(macs="0.5x"), self.times(1.9, 0.9, 1.0))
        assert not _missed(Goals(latency="0.5x"), None)


class TestWidth:
    @pytest.fixture
    def table(self):
        found = Table(("file", "reason"), ("p50", "p99"), least=("p99",))
        found.add("a/long/path/to/one/file.tflite", "because of a long story", "1 ms", "2 ms")
        found.add("b", "no", "1 ms", "2 ms")
        return found

    def test_a_table_that_fits_stays(self, table):
        assert fitted(table, 80) == [table]

    def test_the_least_columns_go_first_and_are_named(self, table):
        shown, said = fitted(table, 61)
        assert [title for title, _ in shown.columns] == ["file", "reason", "p50"]
        assert "p99" in said

    def test_then_reasons_become_footnotes(self, table):
        shown, footnote, _ = fitted(table, 50)
        assert footnote == "[1] because of a long story"
        assert shown.rows[0][:2] == ["a/long/path/to/one/file.tflite", "[1]"]
        assert shown.rows[1][1] == "no"

    def test_a_column_in_which_nothing_is_known_goes(self, table):
        table.rows = [(*row[:2], "–", row[3]) for row in table.rows]
        assert [title for title, _ in table.without_empty().columns] == ["file", "reason", "p99"]

    def test_words_that_fit_stay_in_their_cell(self):
        found = Table(("layer", "became"), ("fit",))
        found.add("conv1", "left alone: " + "for a long reason " * 4, "")
        found.add("conv2", "2 × depthwise-first", "12 %")
        found.add("conv3", "left alone: " + "for a longer reason " * 5, "")
        shown, *notes = fitted(found, 60)
        assert [row[1] for row in shown.rows] == ["[1]", "2 × depthwise-first", "[2]"]
        assert [note[:3] for note in notes] == ["[1]", "[2]"]

    def test_names_shrink_last_and_keep_their_end(self, table):
        shown, *_ = fitted(table, 32)
        assert shown.rows[0][0].endswith("file.tflite")
        assert shown.rows[0][0].startswith("…")
        assert natural_width(shown) <= 32

    @pytest.mark.parametrize("width", range(30, 90, 7))
    def test_no_table_is_wider_than_it_was_allowed(self, table, width):
        shown, *_ = fitted(table, width)
        assert max(map(len, as_text([shown]).splitlines())) <= width
        assert len(table.rows[0]) == 4  # the given one stays


def test_progress_off_a_terminal_tells_the_time_left(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with terminal.progress("Counting", 3) as advance:
        for _ in range(3):
            advance()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["Counting: 1 of 3", "Counting: 2 of 3"]
    assert all("left" in line for line in lines[1:])
