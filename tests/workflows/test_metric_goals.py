"""Plans, budgets and int8 files judged by a metric of the task instead of top-1."""

from __future__ import annotations

import json

import coloured_shapes
import msgspec
import numpy as np
import onnx
import pytest
import small_networks

import dsconvert as ds
from dsconvert.models.evaluation.metrics import find_metric
from dsconvert.workflows.accuracy_goal import GoalJudge, allowed_drop


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A denoiser, noisy pictures, and the clean ones as their labels."""
    folder = tmp_path_factory.mktemp("denoiser")
    network = small_networks.network("denoiser")
    onnx.save(network.model, folder / "denoiser.onnx")
    clean = coloured_shapes.pictures(64, 2).images
    np.savez(folder / "data.npz", x_train=network.calibration, x_test=network.inputs, y_test=clean)
    return folder


@pytest.mark.parametrize(
    ("drop", "metric", "expected"),
    [
        ("1%", "top1", 0.01),
        (0.02, "map", 0.02),
        ("1%", "psnr", 0.3),  # of 30 dB
        ("0.5", "psnr", 0.5),
        ("10%", "mae", 3.0),
        (2, "mae", 2.0),
    ],
)
def test_a_drop_is_in_points_or_in_the_metrics_unit(drop, metric, expected):
    assert allowed_drop(drop, find_metric(metric)).of(30.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("drop", "metric"),
    [
        ("1", "top1"),
        ("x", "psnr"),
        ("-1", "psnr"),
        ("1_0", "psnr"),
        ("１%", "top1"),
        ("nan", "mae"),
    ],
)
def test_what_is_no_drop(drop, metric):
    with pytest.raises(ds.InputError) as caught:
        allowed_drop(drop, find_metric(metric))
    assert caught.value.code == "not-a-drop"


class _Offset:
    """A model that gives its input plus a constant."""

    input_names, input_shapes, output_names = ("x",), ((None, 2),), ("y",)

    def __init__(self, offset):
        self.offset = offset

    def predict(self, inputs):
        return (inputs[0] + np.float32(self.offset),)


def test_a_loss_is_one_where_less_is_better():
    x = np.zeros((4, 2), np.float32)
    judge = GoalJudge(find_metric("mae"), ds.Data((x,), labels=x + 1), _Offset(0.75))
    assert judge.original == pytest.approx(0.25)
    assert judge.lost(judge.measure(_Offset(0.5))) == pytest.approx(0.25)
    assert judge.lost(judge.measure(_Offset(1.0))) == pytest.approx(-0.25)
    assert judge.lost(judge.measure(_Offset(np.nan))) == np.inf


def test_a_whole_point_is_a_point():
    """0.99 − 0.98 is 1e-17 more than 0.01."""
    x = np.zeros((4, 2), np.float32)
    judge = GoalJudge(find_metric("top1"), ds.Data((x,), labels=np.zeros(4, int)), _Offset(0))
    judge.original = 0.99
    assert judge.lost(msgspec.structs.replace(judge.measure(_Offset(0)), value=0.98)) == 0.01


def test_a_plan_and_a_budget_by_psnr(folder):
    options = ds.PlanOptions(max_pairs=1, samples=32, metric="psnr/peak=1")
    data = folder / "data.npz"
    arguments = {"calibration": data, "options": options}
    accuracy = ds.AccuracyGoal("2", data)
    goals = ds.Goals(macs="0.9x")
    model = folder / "denoiser.onnx"
    planned = ds.plan(model, goals=goals, accuracy=accuracy, **arguments)
    dropped = planned.dropped
    assert (dropped.metric, dropped.unit, dropped.allowed) == ("psnr/peak=1", "dB", 2)
    small = ds.rewrite(model, plan=planned, calibration=data, refine=0).model
    values = [
        ds.evaluate(one, data, metric="psnr/peak=1").metrics[0].value
        for one in (onnx.load(model), small)
    ]
    assert dropped.original == pytest.approx(values[0])
    assert dropped.lost == pytest.approx(values[0] - values[1], abs=0.02)
    assert dropped.lost <= 2
    assert "PSNR" in str(planned)
    target = ds.Target("ort")
    curve = ds.sweep(model, points=2, data=data, target=target, **arguments)
    assert curve.points[0].metric.value == pytest.approx(values[0])
    assert curve.points[0].metric.low < values[0] < curve.points[0].metric.high
    assert curve.points[0].top1 is None
    assert "PSNR" in str(curve)


def test_layers_stay_in_float_until_the_metric_is_kept(folder):
    model, data = folder / "denoiser.onnx", folder / "data.npz"

    def made(drop: float) -> tuple[int, float]:
        """Layers in float, and what the file loses."""
        options = ds.ExportOptions(
            quantize="int8",
            keep_float="auto",
            max_drop=drop,
            test_data=data,
            metric="psnr/peak=1",
        )
        path = folder / "int8.onnx"
        notes = ds.export(model, path, options, calibration=data, overwrite=True).notes
        said = next(note for note in notes if "layers in float" in note)
        values = ds.evaluate([model, path], data, metric="psnr/peak=1")
        return int(said.split()[0]), values[0].metrics[0].value - values[1].metrics[0].value

    count, lost = made(30)
    assert (count, lost > 0) == (0, True)
    fewer, less = made(lost / 2)
    assert fewer > 0
    assert less <= lost / 2


def test_a_metric_without_a_goal_is_refused(folder):
    options = ds.ExportOptions(quantize="int8", metric="psnr")
    with pytest.raises(ds.InputError) as caught:
        ds.export(folder / "denoiser.onnx", folder / "no.onnx", options, calibration=None)
    assert caught.value.code == "metric-not-used"


def test_the_command_line(folder, capsys):
    from dsconvert.cli import main

    words = ["evaluate", str(folder / "denoiser.onnx"), "--data", str(folder / "data.npz")]
    words += ["--metric", "psnr/peak=1", "--metric", "mae"]
    assert main([*words, "--json"], standalone_mode=False) is None
    (found,) = json.loads(capsys.readouterr().out)
    psnr, mae = found["metrics"]
    assert (psnr["unit"], mae["larger_is_better"]) == ("dB", False)
    assert 20 < psnr["low"] < psnr["value"] < psnr["high"] < 60
    main(words, standalone_mode=False)
    text = capsys.readouterr().out
    assert f"{psnr['value']:.2f} dB ({psnr['low']:.2f} to {psnr['high']:.2f})" in text
    table, _, following = text.rpartition("next: ")
    assert following.startswith("dsconvert profile ")
    assert max(map(len, table.splitlines())) <= 80
