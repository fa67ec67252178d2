"""What a dry run says of times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsconvert.workflows.optimize.estimates import Estimates, _refined, speed

KNOWN = Estimates(
    macs=12.5e6,
    candidates=7,
    images=(5000, 1000, 500, 2000),
    files=4,
    refined=60.0,
    epochs=3,
    speed=50e9,
)


@pytest.mark.parametrize(
    ("stage", "form", "more"),
    [
        ("plan", "", {"candidates": 14}),
        ("plan", "", {"images": (5000, 2000, 500, 2000)}),
        ("rewrite", "", {"refined": 120.0}),
        ("finetune", "", {"epochs": 6}),
        ("finetune", "", {"macs": 50e6}),
        ("finetune", "", {"speed": 10e9}),
        ("export-a-int8.tflite", "tflite-int8", {"images": (5000, 1000, 1000, 2000)}),
        ("evaluate", "", {"images": (5000, 1000, 500, 4000)}),
        ("profile", "", {"files": 8}),
    ],
)
def test_more_work_takes_longer(stage, form, more):
    assert replace(KNOWN, **more).seconds(stage, form) > KNOWN.seconds(stage, form) > 0


def test_int8_takes_longer_than_float32_and_all_of_it_is_minutes():
    int8 = KNOWN.seconds("export-a", "tflite-int8")
    assert int8 > KNOWN.seconds("export-a", "tflite-float32")
    assert int8 > KNOWN.seconds("export-a", "onnx-int8")
    stages = ("plan", "rewrite", "finetune", "evaluate", "profile")
    assert 60 < sum(map(KNOWN.seconds, stages)) < 3600


@pytest.mark.parametrize(("wish", "expected"), [(None, 60), ("0", 0), ("30", 30), ("400steps", 40)])
def test_refinement_as_it_was_asked_for(wish, expected):
    assert _refined(wish) == pytest.approx(expected)


def test_the_machine_is_measured():
    assert speed() > 1e8
