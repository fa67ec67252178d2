"""sweep as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plan_commands import done, filled, refused

from dsconvert.workflows import sweep as sweep_workflow


@pytest.fixture(scope="module")
def folder(digits, digits_cnn, tmp_path_factory) -> Path:
    return filled(digits, digits_cnn, tmp_path_factory.mktemp("cli_plan"))


class TestSweep:
    command = "sweep model.onnx --calibration data.npz --points 3 --max-pairs 2 --runtime ort"

    @pytest.fixture(autouse=True)
    def by_macs(self, monkeypatch):
        """Sweep always measures; here it shall not."""
        import contextlib

        session = sweep_workflow.plan_session

        @contextlib.contextmanager
        def unmeasured(model, goals, **settings):
            from dsconvert.converter.core.planning.goals import Goals

            settings["target"] = None
            timeless = Goals(max_error=1.0)
            with session(model, goals or timeless, **settings) as found:
                yield found

        monkeypatch.setattr(sweep_workflow, "plan_session", unmeasured)

    def test_the_curve(self, folder):
        result = done(f"{self.command} --json -o sweep.json --overwrite", folder)
        record = json.loads(result.stdout)
        points = record["points"]
        assert (folder / "sweep.json").read_text() == result.stdout
        assert record["schema"] == "dsconvert.sweep/1"
        macs = [point["totals"]["macs"] for point in points]
        output_errors = [point["totals"]["harm"] for point in points]
        assert macs == sorted(macs, reverse=True)
        assert output_errors == sorted(output_errors)
        assert (output_errors[0], points[0]["pairs"]) == (0, {})
        assert set(points[-1]["pairs"]) == {"middle", "last"}
        assert all(point["top1"] is None for point in points)
        assert all(set(point["channels"]) <= set(point["pairs"]) for point in points)

    def test_blocks_are_told_from_pairs(self, folder):
        lines = done(self.command, folder).stdout.splitlines()
        assert " ".join(lines[0].split()) == "MACs parameters output error rewritten T or R"
        points = json.loads(done(f"{self.command} --json", folder).stdout)["points"]
        for line, point in zip(lines[1:], points, strict=False):
            words = [
                f"R{point['channels'][name]}" if name in point["channels"] else f"T{pairs}"
                for name, pairs in point["pairs"].items()
            ]
            assert line.split()[5:] == words

    def test_with_data_every_point_is_evaluated(self, folder):
        result = done(f"{self.command} --data test.npz", folder)
        lines = result.stdout.splitlines()
        assert lines[0].split() == [
            "MACs", "parameters", "output", "error", "top-1", "rewritten", "T", "or", "R"
        ]  # fmt: skip
        *points, following = lines[1:]
        assert following.startswith("next: dsconvert plan ")
        assert len(points) == 3
        best, *_, worst = (float(point.split("%")[0].split()[-1]) for point in points)
        assert best > 90
        assert worst < best

    def test_the_plan_that_comes_next_is_for_the_same_target_and_can_be_had(self):
        from types import SimpleNamespace

        import click

        from dsconvert.cli.next_command import after_sweep

        costs = (100.0, 90.0, 80.0)
        points = [SimpleNamespace(totals=SimpleNamespace(cost=cost)) for cost in costs]
        result = SimpleNamespace(unit="cycles", points=points, model="m.h5")
        with click.Context(click.Command("sweep")) as context:
            context.params |= {"device": "ethos-u55-128", "threads": 1, "runtime": None}
            (line,) = after_sweep(result)
        assert "--device ethos-u55-128 --target-latency 0.9x" in line
        assert "--threads" not in line

    def test_data_without_labels(self, folder):
        refused(f"{self.command} --data data.npz", folder, 2, "labels")

    def test_the_file_is_not_overwritten_unasked(self, folder):
        (folder / "mine.json").write_text("mine")
        refused(f"{self.command} -o mine.json", folder, 2, "exists already")
        assert (folder / "mine.json").read_text() == "mine"
