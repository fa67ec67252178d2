"""One training step: what counts in it."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from dsconvert.models.training.network import PlainNetwork
from dsconvert.models.training.soap import relative_soap
from dsconvert.models.training.step import Lesson, Steps

SIZE = SimpleNamespace(loss=lambda target, output: (target - output) ** 2)


class Doubled(PlainNetwork):
    """Its one feature is twice its output."""

    def run(self, inputs):
        outputs, _ = super().run(inputs)
        return outputs, [2 * outputs[0]]


def steps_of_one_weight():
    given = keras.Input((1,))
    model = keras.Model(given, keras.layers.Dense(1, use_bias=False)(given))
    model.set_weights([np.ones((1, 1))])
    variables = model.trainable_variables
    return model, Steps(Doubled(model), [SIZE], relative_soap(variables), variables)


@pytest.mark.parametrize("weight", [30.0, 2.5, 0.0])
def test_features_count_as_asked(weight):
    _, steps = steps_of_one_weight()
    x, inside = np.float32([[1], [3]]), np.float32([[1], [2]])
    (output, features), moved = steps.take([Lesson([x], [x], [inside])], 0.1, weight)
    assert moved
    assert output == 0
    gap = ((2 - 1) ** 2 + (6 - 2) ** 2) / (1**2 + 2**2)
    assert features == pytest.approx(weight * gap, rel=1e-6)


def test_features_that_count_for_nothing_move_no_weights():
    model, steps = steps_of_one_weight()
    x = np.float32([[1], [3]])
    steps.take([Lesson([x], [x], [5 * x])], 0.1, 0.0)
    assert model.get_weights()[0] == pytest.approx(1, abs=1e-6)
    steps.take([Lesson([x], [x], [5 * x])], 0.1, 30.0)
    assert model.get_weights()[0] > 1.05
