"""Plans within a microcontroller's memory, against trying everything and the files themselves."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from refusals import refuses

import dsconvert as ds
from dsconvert.base.progress import silent
from dsconvert.converter.core.types import Choice, LayerPlan, Plan
from dsconvert.deploy.profiling.tflm_arena import arena_of
from dsconvert.workflows import plan as plan_workflow
from dsconvert.workflows.plan_memory import exceeded
from dsconvert.workflows.plan_session import PlanOptions, TargetWish, plan_session
from dsconvert.workflows.results.planned import MemoryUse

MACS = "0.6x"


@pytest.fixture(scope="module")
def network():
    """A residual network whose shortcut is alive beside what is inside the blocks."""
    keras.utils.set_random_seed(5)
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="stem")(image)
    inside = layers.Conv2D(12, 3, padding="same", activation="relu", name="first")(x)
    inside = layers.Conv2D(12, 3, padding="same", name="second")(inside)
    x = layers.ReLU()(layers.Add()([x, inside]))
    x = layers.Conv2D(20, 3, strides=2, padding="same", activation="relu", name="third")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(4, activation="softmax")(x))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).normal(size=(60, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def session(network, images):
    options = PlanOptions(max_pairs=2)
    with plan_session(
        network,
        ds.Goals(macs=MACS, arena="1x"),
        calibration=images,
        target=TargetWish(device="mcu"),
        options=options,
        progress=silent,
    ) as found:
        yield found


def everything(space):
    """Every plan there is: what is chosen, its MACs, its output error."""
    opened = [layer for layer in space.layers if layer.candidates]
    for picks in product(*((None, *layer.candidates) for layer in opened)):
        taken = [(layer, pick) for layer, pick in zip(opened, picks, strict=True) if pick]
        yield (
            {layer.name: pick.choice for layer, pick in taken},
            space.before.macs - sum(layer.macs - pick.macs for layer, pick in taken),
            sum(pick.effect.output_error for _, pick in taken),
        )


def test_the_arena_is_predicted_to_the_byte(session):
    memory = session.memory
    written = arena_of(memory.files.workspace / "original.tflite")
    assert written.planned == memory.model.arena
    space = session.search_space
    mixed = {
        "first": Choice(pairs=3, order="depthwise-first"),
        "second": Choice(block="three-factor", channels=8),
        "third": Choice(pairs=2, order="pointwise-first"),
    }
    by_hand = Plan(
        layers=tuple(
            LayerPlan(name=layer.name, spec=layer.spec, choice=mixed.get(layer.name))
            for layer in space.layers
        )
    )
    use = memory.use(session.rewrite(by_hand, fitted=False).model)
    assert use.precision == "int8"
    assert use.arena_after == memory.model.arena_with(mixed) > memory.model.arena
    specs = {layer.name: layer.spec for layer in space.layers}
    flash = memory.model.flash + sum(
        memory.model.flash_of(specs[name], choice) - memory.model.flash_of(specs[name], None)
        for name, choice in mixed.items()
    )
    assert use.flash_after == pytest.approx(flash, rel=0.04)


def test_the_plan_is_what_trying_everything_finds(session):
    space, model = session.search_space, session.memory.model
    limit = model.arena
    unlimited = space.plan(ds.Goals(macs=MACS))
    assert model.arena_with(unlimited.chosen) > limit

    plan = space.plan(ds.Goals(macs=MACS, arena="1x"))

    most = 0.6 * space.before.macs
    fitting = [
        e for c, macs, e in everything(space) if macs <= most and model.arena_with(c) <= limit
    ]
    assert plan.after.output_error == pytest.approx(min(fitting), rel=1e-6)
    assert plan.after.arena == model.arena_with(plan.chosen) <= limit
    assert plan.after.macs <= most
    assert plan.goal == (f"MACs ≤ {MACS}", "arena ≤ 1x")


def test_what_is_forbidden_cannot_be_right(session):
    """Where a set of layers is named, no choice for the others keeps the limit."""
    model, rng = session.memory.model, np.random.default_rng(0)
    whole = [chosen for chosen, _, _ in everything(session.search_space)]
    limit = model.arena
    seen = 0
    for index in rng.choice(len(whole), 25, replace=False):
        for names in model.too_large(whole[index], limit):
            same = [c for c in whole if all(c.get(n) == whole[index].get(n) for n in names)]
            for other in same[:: max(len(same) // 20, 1)]:
                assert model.arena_with(other) > limit
                seen += 1
        assert bool(model.too_large(whole[index], limit)) == (
            model.arena_with(whole[index]) > limit
        )
    assert seen


def test_flash_is_kept_as_macs_are(session):
    space = session.search_space
    flash = space.memory.flash
    plan = space.plan(ds.Goals(flash="0.9x"))
    assert plan.chosen
    assert plan.after.flash <= 0.9 * flash
    with pytest.raises(ds.GateFailed, match=r"flash ≤ 0\.1x; the least there is: .* of flash"):
        space.plan(ds.Goals(flash="0.1x"))


def test_no_plan_fits(session):
    with pytest.raises(ds.GateFailed, match="bytes of arena among the") as caught:
        session.search_space.plan(ds.Goals(arena="0.2x"))
    assert (caught.value.code, caught.value.exit_code) == ("memory-not-reachable", 1)


def test_a_plan_whose_file_needs_more_than_was_predicted(session, monkeypatch):
    """The file decides: what it needs is made up for, or the goal is said to be missed."""
    space, memory = session.search_space, session.memory
    goals = ds.Goals(macs=MACS, arena="1x", flash="1x")
    first = space.plan(goals)
    monkeypatch.setattr(type(memory), "use", lambda _, plan: fake(plan))

    def fake(plan):
        over = plan.chosen == first.chosen
        return MemoryUse(
            precision="int8",
            arena_before=memory.model.arena,
            arena_after=memory.model.arena + 16 * over,
            flash_before=memory.model.flash,
            flash_after=memory.model.flash,
        )

    plan, use = plan_workflow.within_memory(memory, space, goals, first, lambda plan: plan)
    assert plan.chosen != first.chosen
    assert plan.after.output_error >= first.after.output_error
    assert not exceeded(goals, use)
    assert exceeded(goals, fake(first))


def test_a_microcontroller_has_no_latency(network, images):
    with refuses("device-without-times"):
        ds.plan(
            network,
            calibration=images,
            goals=ds.Goals(latency="0.5x", arena="1x"),
            target=TargetWish(device="mcu"),
        )


def test_the_result_tells_what_the_file_needs(network, images, tmp_path: Path):
    result = ds.plan(
        network,
        calibration=images,
        goals=ds.Goals(macs=MACS, arena="1x"),
        target=TargetWish(device="mcu"),
        options=PlanOptions(max_pairs=1),
        output=tmp_path / "plan.json",
    )
    assert result.passed
    assert result.memory.arena_after <= result.memory.arena_before
    assert ".tflite in int8: arena " in str(result)
    assert result.plan.after.arena == result.memory.arena_after
