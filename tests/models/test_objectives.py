"""Each output of a teacher is matched by the loss that belongs to it."""

from __future__ import annotations

import numpy as np
import pytest

from dsconvert.models.training.distill import (
    NormalizedError,
    SoftTargets,
    ends_in_softmax,
    objectives,
    softmax,
)
from dsconvert.models.training.teacher import compares_features

keras = pytest.importorskip("keras")


layers = keras.layers


class TestObjectives:
    @pytest.mark.parametrize(
        ("last", "softmax"),
        [
            ([layers.Dense(3, activation="softmax")], True),
            ([layers.Dense(3), layers.Activation("softmax")], True),
            ([layers.Dense(3), layers.Softmax()], True),
            ([layers.Dense(3)], False),
            ([layers.Dense(3, activation="sigmoid")], False),
        ],
    )
    def test_softmax_is_found(self, last, softmax):
        model = keras.Sequential([layers.Input((4,)), *last])
        assert ends_in_softmax(model) == (softmax,)
        x = keras.Input((4,))
        assert ends_in_softmax(keras.Model(x, model(x))) == (softmax,)

    def test_softmax_over_another_axis_is_none(self):
        x = keras.Input((4, 5))
        assert ends_in_softmax(keras.Model(x, layers.Softmax(axis=1)(x))) == (False,)

    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    def test_soft_targets(self, temperature):
        special = pytest.importorskip("scipy.special")
        rng = np.random.default_rng(0)
        z, other = rng.normal(0, 5, (2, 6, 10))
        objective = SoftTargets(temperature, 0.25)
        target = objective.targets(special.softmax(z, axis=1).astype(np.float32), None)
        p = special.softmax(z / temperature, axis=1)
        np.testing.assert_allclose(target, p, atol=1e-6)
        loss = objective.loss(target, special.softmax(other, axis=1).astype(np.float32))
        q = special.softmax(other / temperature, axis=1)
        expected = temperature**2 * special.rel_entr(p, q).sum(axis=1)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
        labels = rng.integers(0, 10, 6)
        mixed = objective.targets(special.softmax(z, axis=1), labels)
        loss = objective.loss(mixed, special.softmax(other, axis=1).astype(np.float32))
        surprise = -special.log_softmax(other, axis=1)[np.arange(6), labels]
        np.testing.assert_allclose(loss, 0.75 * expected + 0.25 * surprise, rtol=1e-4)

    def test_certainty_stays_finite(self):
        objective = SoftTargets(1.0, 0.0)
        certain = np.float32([[1, 0, 0]])
        loss = objective.loss(objective.targets(certain, None), np.float32([[0, 1, 0]]))
        np.testing.assert_allclose(loss, -np.log(1e-30), rtol=1e-4)

    def test_normalized_error(self):
        y, other = np.random.default_rng(0).normal(0, 3, (2, 5, 4, 4)).astype(np.float32)
        loss = NormalizedError(9.0).loss(y, other)
        np.testing.assert_allclose(loss, ((y - other) ** 2).mean((1, 2)) / 9, rtol=1e-5)

    @pytest.mark.parametrize("sharpness", [9.0, 2.0])
    @pytest.mark.parametrize("how", ["probabilities", "logits", "numbers"])
    def test_the_features_of_a_teacher_that_is_sure_are_wanted(self, sharpness, how):
        """Ten classes of which one is ahead: 0.01 nats where by 9, and 1.96 where by 2."""
        scores = sharpness * np.eye(10, dtype=np.float32)
        model = _plain((10,), "softmax" if how == "probabilities" else "linear")
        values = softmax(scores) if how == "probabilities" else scores
        (objective,) = objectives(model, [values], 4.0, 0.0, logits=how == "logits")
        assert objective.wants_features == (sharpness == 9.0)
        photographs, others = np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 1))
        assert compares_features([photographs], [objective]) == (sharpness == 9.0)
        assert not compares_features([others], [objective])

    def test_numbers_on_a_map_are_no_scores(self):
        (objective,) = objectives(_plain((4, 4, 10)), [np.zeros((2, 4, 4, 10))], 4.0, 0.0)
        assert objective.wants_features

    def test_boxes_and_scores_weigh_alike(self):
        rng = np.random.default_rng(0)
        scale = np.append(np.full(4, 600.0), np.full(80, 1.0))
        y, other = (rng.normal(0, scale, (9, 16, 84)).astype(np.float32) for _ in range(2))
        (objective,) = objectives(_plain(y.shape[1:]), [y], 1.0, 0.0)
        loss = objective.loss(y, other)

        gaps = (y - other).astype(np.float64) ** 2
        parts = [gaps[..., part].mean((1, 2)) / y[..., part].var() for part in (BOXES, SCORES)]
        np.testing.assert_allclose(loss, sum(parts) / 2, rtol=1e-4)


BOXES, SCORES = slice(0, 4), slice(4, 84)


def _plain(shape, activation="linear"):
    """A model of one output, without weights; that is no softmax, unless it is said."""
    x = keras.Input(shape)
    y = keras.layers.Rescaling(2.0)(x)
    return keras.Model(x, keras.layers.Activation(activation)(y))
