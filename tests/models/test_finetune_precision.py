"""Fine-tuning of models of other precisions: they are trained in float32."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from commands import call
from keras import layers

POLICIES = ("mixed_float16", "mixed_bfloat16", "float64")


def network(policy):
    """Classes, and a map of numbers beside them, both in the precision of the policy."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        image = keras.Input((10, 10, 3), name="image")
        x = layers.Conv2D(8, 3, activation="relu", name="first")(image)
        x = layers.Conv2D(12, 3, use_bias=False, name="second")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        numbers = layers.Conv2D(2, 3, name="map")(x)
        x = layers.GlobalAveragePooling2D()(x)
        classes = layers.Dense(4, activation="softmax", name="classes")(x)
        return keras.Model(image, [classes, numbers])
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of each policy, the same with pairs, and images."""
    place = tmp_path_factory.mktemp("precision")
    images = np.random.default_rng(0).normal(size=(40, 10, 10, 3)).astype(np.float32)
    np.savez(place / "images.npz", x=images)
    for policy in POLICIES:
        network(policy).save(place / f"{policy}.keras")
        done(f"rewrite {policy}.keras -o {policy}_ds.keras --include second --pairs 1", place)
    return place


def done(words, folder):
    result = call(words, folder)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_the_student_comes_closer(policy, quantize, folder):
    name = f"{policy}_{quantize}.keras"
    done(
        f"finetune {policy}_ds.keras --teacher {policy}.keras --data images.npz -o {name} "
        f"--epochs 4 --batch-size 8 --learning-rate 0.01 --quantize {quantize}",
        folder,
    )
    images = np.load(folder / "images.npz")["x"]
    teacher, before, after = (
        keras.models.load_model(folder / file).predict(images, verbose=0)
        for file in (f"{policy}.keras", f"{policy}_ds.keras", name)
    )

    def error(given):
        return sum(float(np.square(np.subtract(g, t, dtype=np.float64)).mean() / t.var())
                   for g, t in zip(given, teacher, strict=True))  # fmt: skip

    assert error(after) < 0.9 * error(before)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_rewrite_is_refined(policy, folder):
    result = done(
        f"rewrite {policy}.keras -o {policy}_refined.keras --include second --pairs 1 "
        "--calibration images.npz --refine 10steps",
        folder,
    )
    assert "refined" in result.stdout


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_layers_of_integers_do_not_train(role, folder):
    model = network("float32")
    model.save(folder / "float.keras")
    model.quantize("int8", filters="classes")
    model.save(folder / "integers.keras")
    student, teacher = ("integers", "float")[:: 1 if role == "student" else -1]
    result = call(
        f"finetune {student}.keras --teacher {teacher}.keras --data images.npz -o no.keras",
        folder,
    )

    assert result.exit_code == 2
    assert f"the {role} computes with integers in 'classes'" in result.stderr
