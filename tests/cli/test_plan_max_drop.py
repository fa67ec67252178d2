"""Plans that keep an accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import call
from plan_commands import MACS, done, filled, planned, read_plan


@pytest.fixture(scope="module")
def folder(digits, digits_cnn, tmp_path_factory) -> Path:
    return filled(digits, digits_cnn, tmp_path_factory.mktemp("cli_plan"))


class TestMaxDrop:
    command = f"{MACS.replace('0.5x', '0.9x')} --data test.npz --labels --max-pairs 2"

    def test_reached(self, folder):
        result = done(f"{self.command} --max-drop 40% --json", folder)
        record = json.loads(result.stdout)
        dropped, plan = record["dropped"], planned(record)
        assert (dropped["allowed"], dropped["refined"]) == (0.4, None)
        assert dropped["lost"] <= 0.4
        assert dropped["original"] > 0.9
        assert 1 <= len(dropped["tried"]) <= 5
        assert plan.after.macs <= 0.9 * plan.before.macs
        assert [*plan.goal, dropped["lost"]] in dropped["tried"]
        assert read_plan(folder / "plan.json") == plan
        # What it says of the plan is true of the plan's rewrite.
        done(
            "rewrite model.onnx -o ds.onnx --overwrite --plan plan.json --calibration data.npz",
            folder,
        )
        (report,) = json.loads(done("evaluate ds.onnx --data test.npz --json", folder).stdout)
        assert report["top1"]["value"] == pytest.approx(dropped["original"] - dropped["lost"])

    def test_an_unreadable_time_is_refused_before_anything_is_measured(self, folder):
        result = call(f"{self.command} --max-drop 40% --refine soon --json", folder)
        assert json.loads(result.stderr.splitlines()[-1])["code"] == "not-a-time"
        assert "Measuring" not in result.stderr

    def test_the_table_says_what_was_tried(self, folder):
        lines = done(f"{self.command} --max-drop 40%", folder).stdout.splitlines()
        assert any(line.startswith("tried MACs ≤ ") and "points" in line for line in lines)
        assert any("points (allowed: 40.00 points)" in line for line in lines)

    def test_not_reached(self, folder):
        command = self.command.replace("plan.json", "short.json").replace("0.9x", "0.56x")
        result = call(f"{command} --max-drop 0%", folder)
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        assert "the best plan tried loses" in result.stderr
        assert "0.00 points allowed" in result.stderr
        assert f"It is in {folder / 'short.json'}" in result.stderr
        assert read_plan(folder / "short.json").chosen
