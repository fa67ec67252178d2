"""Networks of several outputs, of which some have no gradient, are fine-tuned."""

from __future__ import annotations

import numpy as np
import pytest

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.models.data.datasets import Data
from dsconvert.models.training.finetune import finetune
from dsconvert.models.training.label_outputs import with_scores
from dsconvert.models.training.settings import FinetuneSettings

keras = pytest.importorskip("keras")


layers = keras.layers


def test_several_outputs_and_inputs():
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(3)

    def build():
        a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
        joined = layers.Dense(16, activation="tanh", name="hidden")(layers.Concatenate()([a, b]))
        steering = layers.Dense(1, name="steering")(joined)
        kind = layers.Dense(3, activation="softmax", name="kind")(joined)
        return keras.Model({"a": a, "b": b}, {"steering": steering, "kind": kind})

    teacher, student = build(), build()
    inputs = [rng.normal(size=(500, n)).astype(np.float32) for n in (6, 4)]
    settings = FinetuneSettings(epochs=4, batch_size=16, learning_rate=3e-2)
    tuned = ds.finetune(student, teacher, Data(tuple(inputs)), settings)
    first, last = tuned.history[0], tuned.history[tuned.best_epoch]
    assert last.output_error < first.output_error / 10
    # Each output counts in every epoch, and has a line of its own in the table.
    for epoch in tuned.history:
        found = {output.name: output for output in epoch.fidelity}
        assert set(found) == {"steering", "kind"}
        each = (found["kind"].kl_nats, found["steering"].relative_error ** 2)
        assert epoch.output_error == pytest.approx(sum(each), rel=1e-4)
    lines = str(tuned).splitlines()
    for name in ("steering", "kind"):
        assert sum(f" {name} " in line for line in lines) == len(tuned.history)


class TestLabelOutputs:
    """An ArgMax has no gradient: the scores before it are matched."""

    @staticmethod
    def segmenter(seed):
        keras.utils.set_random_seed(seed)
        x = keras.Input((8, 8, 1))
        scores = layers.Conv2D(3, 3, padding="same", name="scores")(x)
        best = keras.ops.argmax(scores, axis=-1)
        sure = keras.ops.cast(keras.ops.max(scores, axis=-1) > 1, "float32")
        return keras.Model(x, [best, sure, keras.ops.mean(scores, axis=(1, 2))])

    def test_scores_take_the_place_of_labels_once(self):
        model = self.segmenter(0)
        view = with_scores(model)
        shapes = [tuple(tensor.shape) for tensor in view.outputs]
        assert shapes == [(None, 8, 8, 3), (None, 8, 8), (None, 3)]
        assert view.layers[1] is model.layers[1]
        assert with_scores(view) is view

    def test_a_student_learns_from_scores(self, digits):
        student, teacher = self.segmenter(1), self.segmenter(2)
        images = Data((digits[0][:200],))
        settings = FinetuneSettings(epochs=6, learning_rate=3e-2, validation=0.2)
        tuned = finetune(student, teacher, images, settings)
        assert tuned.model is student
        assert tuned.best_epoch > 0
        assert "labels have no gradient" in tuned.notes[0]
        errors = [epoch.output_error for epoch in tuned.history]
        assert errors[tuned.best_epoch] < 0.5 * errors[0]

    @pytest.mark.parametrize("first", [layers.Embedding(9, 2), layers.Dense(3)])
    def test_inputs_of_whole_numbers_have_a_gradient_behind_weights(self, first):
        x = keras.Input((4,), dtype="int32")
        model = keras.Model(x, first(x))
        assert with_scores(model) is model

    def test_whole_numbers_of_nothing_are_refused(self):
        x = keras.Input((4,), dtype="int32")
        model = keras.Model(x, keras.ops.argmax(x, axis=-1))
        with pytest.raises(InputError) as caught:
            with_scores(model)
        assert caught.value.code == "nothing-to-learn"
