"""The page of a run: one file that needs nothing else, made from report.json alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_up_run import HOSTILE, made_up_run, written

import dsconvert as ds
from dsconvert.base.errors import InputError, MissingExtra
from dsconvert.cli import main
from dsconvert.workflows.reporting import page as page_module
from dsconvert.workflows.reporting.charts import charts, kept
from dsconvert.workflows.reporting.words import PageWords
from dsconvert.workflows.results.optimized import OptimizeResult

pytest.importorskip("jinja2", reason="needs dsconvert[report]")
pytest.importorskip("vl_convert", reason="needs dsconvert[report]")


@pytest.fixture(autouse=True)
def no_library(monkeypatch):
    """Bundling the library takes seconds, and the browser's tests have it."""
    monkeypatch.setattr(page_module, "_library", lambda: "/* library */")


@pytest.fixture
def text(tmp_path):
    written(tmp_path / "run")
    return (tmp_path / ds.report(tmp_path / "run").output).read_text()


class TestPage:
    def test_it_loads_nothing_from_elsewhere(self, text):
        assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
        assert "default-src 'none'" in text

    def test_names_from_a_model_file_are_shown_and_not_obeyed(self, text):
        assert HOSTILE not in text
        assert "&lt;/script&gt;" in text
        (stored,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', text)
        names = {row["layer"] for row in json.loads(stored)["layers-0"]["data"]["values"]}
        assert HOSTILE in names

    def test_the_first_screen_says_what_was_gained_and_which_file_to_use(self, text):
        first = text[text.index("<main") : text.index('id="trade"')]
        assert "4.00× as fast, 8.00× smaller" in first
        assert "run/files/rewritten-int8.tflite" in first
        for what in ("Latency", "Size", "MACs", "top-1"):
            assert f"<dt>{what}</dt>" in first
        assert "3.88–4.12" in first  # the interval
        assert "Target not reached" not in first

    def test_a_missed_target_comes_before_all(self, tmp_path):
        written(tmp_path / "run", missed="the target is 0.1x")
        text = (tmp_path / ds.report(tmp_path / "run").output).read_text()
        assert text.index("Target not reached") < text.index("<h1")

    def test_what_was_not_made_is_told_with_its_reason(self, text):
        assert "not made: its outputs are not finite" in text

    def test_two_runs_stand_side_by_side(self, tmp_path):
        first = written(tmp_path / "run")
        second = written(tmp_path / "run2", folder="run2", model="other.onnx")
        output = tmp_path / "both.html"
        found = ds.report(first, second, output=output)
        text = output.read_text()
        assert found.runs == (str(first), str(second))
        assert "other.onnx" in text
        assert text.count("<h1") == 2
        with pytest.raises(InputError) as error:
            ds.report(first, second, output=output)
        assert error.value.code == "output-exists"

    def test_every_figure_of_the_charts_comes_from_the_report(self):
        run = made_up_run()
        found = charts([run])
        assert set(found) == {"pareto", "layers-0", "training-0", "operators-0"}
        points = {row["file"]: row for row in found["pareto"]["data"]["values"]}
        assert set(points) == {file["name"] for file in run["files"] if not file["failure"]}
        best = points["rewritten-int8.tflite"]
        assert (best["time"], best["quality"], best["use"]) == (0.25, 89.4, True)
        times = [row["time"] for row in found["operators-0"]["data"]["values"]]
        assert sum(times) == pytest.approx(1.0 + 0.4 + 0.25)

    def test_charts_without_figures_are_left_out(self):
        run = made_up_run(training=[], layers=[], files=[])
        assert charts([run]) == {}
        assert PageWords([run]).headline(run) == "No file can be recommended"


def test_the_example_in_the_documents_is_a_report_with_every_chart():
    folder = Path(__file__).parents[2] / "docs" / "example-run"
    run = json.loads((folder / "report.json").read_bytes())
    assert set(charts([run])) == {"pareto", "layers-0", "training-0", "operators-0"}
    assert set(run) == {*OptimizeResult.__struct_fields__}
    assert "× as fast" in page_module.page([run])


class TestQuality:
    @pytest.mark.parametrize(("kind", "value"), [("noise", 20.0), ("changed classes", 99.0)])
    def test_without_labels_it_is_what_is_kept(self, kind, value):
        found = kept({"loss_of": kind}, {"score": None, "loss": 0.01})
        assert found is not None
        assert found[0] == pytest.approx(value)

    def test_what_was_not_measured_is_not_shown(self):
        assert kept({"loss_of": "noise"}, {"score": None, "loss": None}) is None


class TestCommand:
    @pytest.mark.parametrize(
        "content",
        [None, "{", "[]", '{"schema": "other/1"}', '{"schema": "dsconvert.optimized/1"}',
         '{"schema": "dsconvert.optimized/1", "model": 3}'],
    )  # fmt: skip
    def test_what_is_no_report_is_refused(self, tmp_path, content):
        if content is not None:
            (tmp_path / "report.json").write_text(content)
        result = CliRunner().invoke(main, ["report", str(tmp_path), "--json"])
        assert result.exit_code == 2
        assert json.loads(result.stderr)["code"] == "no-report"

    @pytest.mark.parametrize("key", ["ratio", "low", "high"])
    def test_a_time_of_zero_is_refused(self, tmp_path, key):
        written(tmp_path)
        path = tmp_path / "report.json"
        tree = json.loads(path.read_text())
        timed = next(file for file in tree["files"] if file["timing"])
        timed["timing"][key] = 0.0
        path.write_text(json.dumps(tree))
        result = CliRunner().invoke(main, ["report", str(tmp_path), "--json"])
        assert result.exit_code == 2
        assert json.loads(result.stderr)["code"] == "no-report"

    def test_a_file_of_no_bytes_has_no_share(self, tmp_path):
        written(tmp_path)
        path = tmp_path / "report.json"
        tree = json.loads(path.read_text())
        for file in tree["files"]:
            file["size_bytes"] = 0
        path.write_text(json.dumps(tree))
        assert CliRunner().invoke(main, ["report", str(tmp_path)]).exit_code == 0

    def test_it_makes_the_page_anew(self, tmp_path):
        written(tmp_path)
        for _ in range(2):
            result = CliRunner().invoke(main, ["report", str(tmp_path)])
            assert result.exit_code == 0, result.output
        assert (tmp_path / "report.html").exists()

    def test_what_is_missing_is_named(self, tmp_path, monkeypatch):
        written(tmp_path)
        monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
        with pytest.raises(MissingExtra) as error:
            ds.report(tmp_path)
        assert "dsconvert[report]" in str(error.value)
