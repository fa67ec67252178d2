from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.models.data.datasets import Data
from dsconvert.models.evaluation.evaluate import evaluate
from dsconvert.models.training.batches import augmentation, augmentation_of_few
from dsconvert.models.training.distill import (
    SoftTargets,
)
from dsconvert.models.training.finetune import finetune
from dsconvert.models.training.settings import FinetuneSettings
from dsconvert.models.training.student_copy import copy_model, kept_layers

keras = pytest.importorskip("keras")
layers = keras.layers


@pytest.fixture(scope="module")
def digits():
    """Scikit-learn's digits as (n, 8, 8, 1) in 0…1: training and test data."""
    loaded = pytest.importorskip("sklearn.datasets").load_digits()
    images = (loaded.images / 16).astype(np.float32)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    data = Data((images,), labels=loaded.target.astype(np.int64), source="digits")
    return data.take(order[:1400]), data.take(order[1400:])


@pytest.fixture(scope="module")
def teacher(digits):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, activation="relu", name="stem"),
            layers.Conv2D(24, 3, activation="relu", name="conv"),
            layers.Flatten(name="flatten"),
            layers.Dense(10, activation="softmax", name="classes"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(digits[0].inputs[0], digits[0].labels, epochs=8, batch_size=32, verbose=0)
    return model


@pytest.fixture
def student(teacher):
    """The teacher with its second convolution replaced by an untrained pair."""
    keras.utils.set_random_seed(2)
    x = keras.Input((8, 8, 1))
    y = layers.Conv2D(16, 3, activation="relu", name="stem")(x)
    y = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(y)
    y = layers.Conv2D(24, 1, name="pointwise", kernel_regularizer="l2")(y)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.Dropout(0.1)(layers.ReLU()(y))
    y = layers.Dense(10, activation="softmax", name="classes")(layers.Flatten()(y))
    model = keras.Model(x, y)
    for name in ("stem", "classes"):
        model.get_layer(name).set_weights(teacher.get_layer(name).get_weights())
    return model


def twin(model):
    """A model with the same layers and weights."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def assert_same(first, second, tolerance=0.0):
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


@contextmanager
def stopping_in_epoch_3(label, total):
    """A progress during which the user interrupts."""
    if label.startswith("Epoch 3"):
        raise KeyboardInterrupt
    yield lambda: None


class TestFinetune:
    def test_learns_without_labels(self, digits, teacher, student):
        training, test = digits
        before = evaluate(student, test, reference=teacher)
        settings = FinetuneSettings(epochs=4, learning_rate=2e-2)  # a pair is not trained at all
        tuned = finetune(student, teacher, Data(training.inputs), settings)
        after = evaluate(student, test, reference=teacher)
        assert tuned.model is student
        assert before.top1.value < 0.5
        assert after.top1.value > 0.9
        assert after.fidelity[0].kl_nats < before.fidelity[0].kl_nats / 5
        assert [epoch.epoch for epoch in tuned.history] == [0, 1, 2, 3, 4]
        assert tuned.history[0].loss is None
        assert tuned.history[4].loss < tuned.history[1].loss
        assert tuned.best_epoch == min(tuned.history, key=lambda e: e.output_error).epoch
        assert tuned.notes == ()

    def test_nothing_but_the_weights_changes(self, digits, teacher, student):
        student.get_layer("stem").trainable = False
        stem = student.get_layer("stem").get_weights()
        student.compile("sgd", "mse")
        optimizer = student.optimizer
        settings = FinetuneSettings(
            epochs=2, mixed_precision=True, frozen_epochs=1, learning_rate=1e-2
        )
        tuned = finetune(student, teacher, digits[0], settings)
        assert tuned.best_epoch > 0
        assert student.optimizer is optimizer
        flags = {layer.name: layer.trainable for layer in student.layers}
        assert [name for name, flag in flags.items() if not flag] == ["stem"]
        assert {layer.dtype_policy.name for layer in student.layers} == {"float32"}
        for before, now in zip(stem, student.get_layer("stem").get_weights(), strict=True):
            np.testing.assert_array_equal(before, now)

    def test_the_student_as_it_came_is_kept_where_training_harms(self, digits, teacher):
        student = twin(teacher)
        settings = FinetuneSettings(epochs=1, learning_rate=3.0)
        tuned = finetune(student, teacher, digits[0].take(slice(300)), settings)
        assert tuned.best_epoch == 0
        assert_same(student, teacher)
        assert "weights are unchanged" in tuned.notes[0]

    def test_a_loss_that_is_not_finite_ends_training(self, digits, teacher, student):
        before = twin(student)
        settings = FinetuneSettings(epochs=3, learning_rate=1e38, warmup=0.0)
        tuned = finetune(student, teacher, digits[0].take(slice(300)), settings)
        assert len(tuned.history) == 2
        assert tuned.history[1].loss is None
        assert "not finite" in tuned.notes[0]
        assert_same(student, before)

    def test_same_seed_same_result(self, digits, teacher, student):
        other = twin(student)
        data = digits[0].take(slice(400))
        settings = FinetuneSettings(epochs=1, augment=("flip", "crop"), seed=5)
        histories = [finetune(m, teacher, data, settings).history for m in (student, other)]
        assert_same(student, other, 1e-6)
        assert histories[0][1].loss == pytest.approx(histories[1][1].loss, rel=1e-6)

    def test_frozen_epochs_keep_what_the_teacher_has(self, digits, teacher, student):
        settings = FinetuneSettings(epochs=3, frozen_epochs=2)
        part = finetune(student, teacher, digits[0], settings, progress=stopping_in_epoch_3)
        assert part.interrupted
        for name in ("stem", "classes"):
            pairs = zip(
                student.get_layer(name).get_weights(),
                teacher.get_layer(name).get_weights(),
                strict=True,
            )
            for mine, theirs in pairs:
                np.testing.assert_array_equal(mine, theirs)
        settings = FinetuneSettings(epochs=1, frozen_epochs=0)
        thawed = finetune(student, teacher, digits[0], settings).model
        assert not np.array_equal(
            thawed.get_layer("stem").get_weights()[0], teacher.get_layer("stem").get_weights()[0]
        )

    def test_labels_correct_a_teacher(self, digits, student):
        training = digits[0]
        wrong = twin(student)  # a teacher that knows nothing
        settings = FinetuneSettings(epochs=4, label_weight=1.0, validation=40, learning_rate=1e-2)
        seen = []

        @contextmanager
        def watch(label, total):
            yield lambda: None
            seen.append(label)

        tuned = finetune(student, wrong, training, settings, progress=watch)
        assert seen[0] == "Asking the teacher"
        # The labels are all that counts here, however far they lead away from this teacher.
        assert tuned.best_epoch > 0
        assert tuned.history[tuned.best_epoch].output_error < tuned.history[0].output_error / 2
        assert tuned.history[0].fidelity[0].sqnr_db is None  # it began as the teacher itself
        assert tuned.history[-1].fidelity[0].sqnr_db < 30
        assert tuned.history[-1].loss < tuned.history[1].loss / 2

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"label_weight": 0.5}, "has no labels"),
            ({"validation": 5000}, "cannot hold 5000 of 1400"),
        ],
    )
    def test_refuses_settings(self, digits, teacher, student, change, message):
        with pytest.raises(InputError, match=message):
            finetune(student, teacher, Data(digits[0].inputs), FinetuneSettings(**change))

    def test_refuses_models_that_do_not_belong_together(self, digits, student):
        other = keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)])
        with pytest.raises(InputError, match="student's outputs"):
            finetune(student, other, digits[0])

    def test_refuses_data_of_another_shape(self, teacher, student):
        with pytest.raises(InputError, match="does not fit the model"):
            finetune(student, teacher, Data((np.zeros((9, 8, 8, 3)),)))

    def test_refuses_weights_in_half_precision(self):
        half = keras.Sequential([layers.Input((4,)), layers.Dense(2, dtype="float16")])
        data = Data((np.zeros((9, 4), np.float32),))
        with pytest.raises(InputError) as refused:
            finetune(twin(half), half, data)
        assert refused.value.code == "half-weights"

    def test_refuses_to_augment_vectors(self):
        model = keras.Sequential([layers.Input((4,)), layers.Dense(2)])
        data = Data((np.zeros((9, 4), np.float32),))
        with pytest.raises(InputError, match="augmentation by flip needs images"):
            finetune(twin(model), model, data, FinetuneSettings(augment=("flip",)))

    def test_what_is_done_to_images_unless_told_otherwise(self):
        colour, gray = np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 1))
        assert augmentation([gray, colour], None) == ("flip", "crop")
        assert augmentation([gray], None) == ()
        assert augmentation_of_few([gray, colour]) == ("flip", "crop", "light", "mix")
        assert augmentation_of_few([gray]) == ("mix",)
        assert augmentation_of_few([np.zeros((2, 7), np.int32)]) == ()
        for inputs, labelled in (([gray], True), ([np.zeros((2, 7), np.int32)], False)):
            with refuses("not-mixable"):
                augmentation(inputs, ("mix",), labelled=labelled)
        assert augmentation([colour], ()) == ()


class TestSettings:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"epochs": 0},
            {"batch_size": 0},
            {"learning_rate": 0.0},
            {"warmup": 1.0},
            {"frozen_epochs": -1},
            {"temperature": 0.0},
            {"label_weight": 1.1},
        ],
    )
    def test_out_of_range(self, wrong):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} is "):
            FinetuneSettings(**wrong)

    def test_all_faults_at_once(self):
        with pytest.raises(InputError, match=r"epochs is 0.*temperature is -1"):
            FinetuneSettings(epochs=0, temperature=-1.0)


class TestResume:
    settings = FinetuneSettings(
        epochs=4, augment=("crop",), frozen_epochs=1, seed=2, learning_rate=1e-2
    )

    @pytest.mark.slow
    def test_as_if_never_interrupted(self, digits, teacher, student, tmp_path):
        data = digits[0].take(slice(500))
        whole = twin(student)
        expected = finetune(whole, teacher, data, self.settings)
        state, original = tmp_path / "state.npz", twin(student)
        part = finetune(
            student, teacher, data, self.settings, state=state, progress=stopping_in_epoch_3
        )
        assert part.interrupted
        best = min(expected.history[:3], key=lambda e: e.output_error).epoch
        assert best > 0
        assert not np.array_equal(student.get_weights()[1], original.get_weights()[1])
        tuned = finetune(original, teacher, data, self.settings, state=state)
        assert_same(original, whole, 2e-5)
        assert [e.loss for e in tuned.history[1:]] == pytest.approx(
            [e.loss for e in expected.history[1:]], rel=1e-4
        )
        assert tuned.best_epoch == expected.best_epoch

    def test_a_finished_run_is_not_repeated(self, digits, teacher, student, tmp_path):
        data, settings = digits[0].take(slice(200)), FinetuneSettings(epochs=1)
        again = twin(student)
        first = finetune(student, teacher, data, settings, state=tmp_path / "state.npz")
        second = finetune(again, teacher, data, settings, state=tmp_path / "state.npz")
        assert second.history == first.history
        assert_same(again, student)

    def test_another_run(self, digits, teacher, student, tmp_path):
        data, state = digits[0].take(slice(200)), tmp_path / "state.npz"
        start = twin(student)
        finetune(twin(start), teacher, data, FinetuneSettings(epochs=1), state=state)
        before = state.read_bytes()
        with pytest.raises(InputError, match="epochs was 1, is 2"):
            finetune(twin(start), teacher, data, FinetuneSettings(epochs=2), state=state)
        other = twin(start)
        other.set_weights([2 * weight for weight in other.get_weights()])
        with pytest.raises(InputError, match="another run: the student differs"):
            finetune(other, teacher, data, FinetuneSettings(epochs=1), state=state)
        with pytest.raises(InputError, match="another run: the data differs"):
            finetune(start, teacher, data.take(slice(150)), FinetuneSettings(epochs=1), state=state)
        assert state.read_bytes() == before

    def test_nowhere_to_write_is_said_first(self, digits, teacher, student, tmp_path):
        before = twin(student)
        with refuses("folder-not-found"):
            finetune(student, teacher, digits[0], state=tmp_path / "none" / "state.npz")
        assert_same(student, before)

    def test_no_state_file(self, digits, teacher, student, tmp_path):
        state = tmp_path / "state.npz"
        state.write_text("something else")
        with pytest.raises(InputError, match="does not hold the state"):
            finetune(student, teacher, digits[0], state=state)
        np.savez(state, x=np.zeros(3))
        with pytest.raises(InputError, match="does not hold the state"):
            finetune(student, teacher, digits[0], state=state)


class TestCopy:
    def test_mixed_precision(self, teacher, student):
        copy = copy_model(student, mixed_precision=True)
        assert copy.get_layer("pointwise").compute_dtype == "bfloat16"
        assert copy.get_layer("classes").compute_dtype == "float32"
        assert {weight.dtype for weight in copy.weights} == {"float32"}
        x = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
        # bfloat16 has 8 bits: relative errors of 2⁻⁸ at each of the three layers.
        np.testing.assert_allclose(copy(x), student(x), atol=0.05)
        assert not np.array_equal(copy(x), student(x))

    def test_regularizers_are_left_out(self, student):
        assert copy_model(student).losses == []
        assert student.losses != []

    def test_nested_models(self):
        inner = keras.Sequential([layers.Input((3,)), layers.Dense(4), layers.Dense(2)])
        x = keras.Input((3,))
        model = keras.Model(x, inner(x))
        copy = copy_model(model, mixed_precision=True)
        nested = next(layer for layer in copy.layers if isinstance(layer, keras.Model))
        assert [layer.compute_dtype for layer in nested.layers[-2:]] == ["bfloat16", "float32"]
        values = np.ones((2, 3), np.float32)
        np.testing.assert_allclose(copy(values), model(values), atol=0.03)

    def test_kept_layers(self, teacher, student):
        assert [layer.name for layer in kept_layers(student, teacher)] == ["stem", "classes"]
        assert kept_layers(twin(teacher), teacher) == []
        other = keras.Sequential(
            [layers.Input((8, 8, 1)), layers.Conv2D(4, 3, name="stem"), layers.Flatten()]
        )
        assert kept_layers(other, teacher) == []  # the name alone says nothing
        other.add(layers.Dense(2, name="new"))
        assert kept_layers(other, teacher) == []


def headless(model):
    """The same network without its softmax: it gives scores."""
    import keras

    last = model.layers[-1]
    scores = keras.layers.Dense(last.units, name="logits")
    bare = keras.Model(model.inputs[0], scores(last.input))
    scores.set_weights(last.get_weights())
    return bare


class TestLogits:
    def test_scores_are_matched_as_the_probabilities_they_stand_for(self, digits, teacher):
        x = digits[0].inputs[0][:50]
        logits, probabilities = headless(teacher).predict(x, verbose=0), np.asarray(teacher(x))
        by_scores = SoftTargets(4.0, 0.0, logits=True)
        by_probabilities = SoftTargets(4.0, 0.0)

        targets = by_scores.targets(logits, None)

        # Probabilities are rounded to 6e-8 of themselves, their logarithms to some 1e-6.
        np.testing.assert_allclose(
            targets, by_probabilities.targets(probabilities, None), atol=1e-4
        )
        np.testing.assert_allclose(
            by_scores.loss(targets, np.roll(logits, 1, axis=0)),
            by_probabilities.loss(targets, np.roll(probabilities, 1, axis=0)),
            rtol=1e-3,
            atol=1e-3,
        )

    def test_the_harm_is_that_of_probabilities(self, digits, teacher, student):
        settings = FinetuneSettings(epochs=1, logits=True, validation=60, learning_rate=1e-2)

        history = finetune(headless(student), headless(teacher), digits[0], settings).history

        assert history[0].output_error == pytest.approx(history[0].fidelity[0].kl_nats)
        assert history[1].output_error < history[0].output_error

    def test_a_softmax_is_no_place_for_them(self, digits, teacher, student):
        with pytest.raises(InputError, match="without a softmax"):
            finetune(student, teacher, digits[0], FinetuneSettings(logits=True))
