"""Plans by time and by cycles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plan_commands import done, filled, planned, refused


@pytest.fixture(scope="module")
def folder(digits, digits_cnn, tmp_path_factory) -> Path:
    return filled(digits, digits_cnn, tmp_path_factory.mktemp("cli_plan"))


MEASURED = {
    "litert": ("model.keras", "", "LiteRT float32, 1 thread"),
    "ort": ("model.onnx", "", "ONNX Runtime float32, 1 thread"),
    "ort-int8": ("model.onnx", "--precision int8", "ONNX Runtime int8, 1 thread"),
    # Older than what quantization per channel needs.
    "ort-int8-old": ("opset11.onnx", "--precision int8", "ONNX Runtime int8, 1 thread"),
}


@pytest.mark.slow
@pytest.mark.parametrize("target", MEASURED)
def test_a_measured_plan(folder, target):
    model, options, words = MEASURED[target]
    command = f"plan {model} -o measured.json --overwrite --calibration data.npz --max-pairs 2"
    result = done(f"{command} {options} --json", folder)
    record = json.loads(result.stdout)
    plan, timed = planned(record), record["timed"]
    assert plan.target.startswith(words)
    assert plan.unit == "ms"
    assert plan.before.cost > 0
    width = 1 if "int8" in options else 4
    assert plan.before.bytes == width * plan.before.params
    for layer in plan.layers:
        assert layer.cost_before.value > 0
        if layer.choice is not None:
            assert layer.cost_after.ratio_high < 1
            assert layer.cost_after.faster
        else:
            assert layer.reason.code in ("no-gain", "kept")
    if plan.chosen:
        assert timed["unit"] == "ms"
        assert timed["ratio_low"] <= timed["after"] / timed["before"] <= timed["ratio_high"]
        error = (timed["after"] - timed["predicted"]) / timed["after"]
        assert timed["error"] == pytest.approx(error)
    table = done(f"{command} {options}", folder).stdout
    assert f"target: {plan.target}" in table
    done(f"rewrite {model} -o m{Path(model).suffix} --overwrite --plan measured.json", folder)


@pytest.mark.slow
def test_a_plan_for_an_npu(folder):
    pytest.importorskip("ethosu.vela")
    command = "plan model.keras -o npu.json --overwrite --calibration data.npz --max-pairs 1"
    result = done(f"{command} --device ethos-u55-128 --json", folder)
    record = json.loads(result.stdout)
    plan = planned(record)
    assert plan.unit == "cycles"
    assert "Ethos-U55-128" in plan.target
    if plan.chosen:
        assert record["timed"]["unit"] == "cycles"
        assert record["timed"]["before"] == plan.before.cost
    refused(f"{command} --device ethos-u55-128 --target-latency 3ms", folder, 2, "gives cycles")
