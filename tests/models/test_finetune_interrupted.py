from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import killed_training
import msgspec
import numpy as np
import pytest
from killed_training import SETTINGS, STEPS, models, run

from dsconvert.base.errors import InputError
from dsconvert.models.data.datasets import Data
from dsconvert.models.training.finetune import finetune

keras = pytest.importorskip("keras")

PER_EPOCH = STEPS // 3
# Sums of floats in another order: some 100 of them, each rounded to 6e-8 of values of order 1.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def whole():
    """The weights and the history of a run that nothing stops."""
    tuned = run(None)
    return tuned.model.get_weights(), tuned.history


def assert_close(weights, expected):
    for mine, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=TOLERANCE)


def signalling(at, number=signal.SIGINT):
    """A progress in which a signal comes behind step ``at``.

    Its handler is called as Python would: a real signal that finds none ends all tests.
    """
    taken = 0

    def advance():
        nonlocal taken
        taken += 1
        if taken == at:
            signal.getsignal(number)(number, None)

    @contextmanager
    def progress(label, total):
        yield advance if label.startswith("Epoch") else lambda: None

    return progress


class TestInterrupt:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_goes_on_at_the_same_step(self, whole, tmp_path, number):
        state = tmp_path / "state"
        at = PER_EPOCH + 4
        part = run(state, signalling(at, number), never_by_time())
        assert part.interrupted
        assert [epoch.complete for epoch in part.history] == [True, True, False]
        assert f"in epoch 2 after 4 of {PER_EPOCH} steps" in part.notes[0]

        tuned = run(state, settings=never_by_time())
        assert not tuned.interrupted
        assert_close(tuned.model.get_weights(), whole[0])
        losses = [epoch.loss for epoch in tuned.history[1:]]
        assert losses == pytest.approx([epoch.loss for epoch in whole[1][1:]], rel=1e-4)

    def test_a_part_of_an_epoch_can_be_the_best(self, tmp_path):
        part = run(tmp_path / "state", signalling(PER_EPOCH - 1))
        assert part.history[1].output_error < part.history[0].output_error
        assert part.best_epoch == 1

    def test_nothing_trained_is_no_result(self):
        @contextmanager
        def progress(label, total):
            raise KeyboardInterrupt
            yield

        with pytest.raises(KeyboardInterrupt):
            run(None, progress)

    def test_signals_are_the_users_again(self):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        run(None, signalling(2))
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def never_by_time():
    return msgspec.structs.replace(SETTINGS, save_minutes=1e6)


class TestNotFinite:
    def test_the_cause_is_in_the_data(self, tmp_path):
        student, teacher = models()
        images = np.random.default_rng(0).normal(size=(168, 8, 8, 1)).astype(np.float32)
        images[100, 3, 3] = np.nan
        settings = msgspec.structs.replace(SETTINGS, validation=1)
        state = tmp_path / "state"
        tuned = finetune(student, teacher, Data((images,)), settings, state=state)
        assert tuned.history[-1].loss is None
        assert "1 of the batch's 16 samples hold values that are not finite" in tuned.notes[0]
        # The state is that before the step, and so is what was judged.
        with np.load(state) as file:
            assert all(np.isfinite(file[name]).all() for name in file.files if name != "header")
        assert all(np.isfinite(weight).all() for weight in tuned.model.get_weights())

    @pytest.mark.parametrize(
        ("augment", "told"), [((), "on 1 of 167 samples"), (("flip",), "1 of the batch's 16")]
    )
    def test_the_teacher_has_no_answer_to_one_sample(self, augment, told):
        image = keras.Input((8, 8, 1))
        dark = keras.ops.all(image < 0, axis=(1, 2, 3), keepdims=True)
        seen = keras.layers.Conv2D(2, 3)(keras.ops.where(dark, np.float32(np.nan), image))
        teacher = keras.Model(image, keras.layers.GlobalMaxPooling2D()(seen))
        student = keras.models.clone_model(teacher)
        images = np.random.default_rng(0).random((168, 8, 8, 1)).astype(np.float32)
        images[100] = -1
        settings = msgspec.structs.replace(SETTINGS, validation=1, augment=augment)
        before = student.get_weights()
        with pytest.raises(InputError, match=told) as raised:
            finetune(student, teacher, Data((images,)), settings)
        assert raised.value.code == "not-finite"
        for mine, theirs in zip(student.get_weights(), before, strict=True):
            np.testing.assert_array_equal(mine, theirs)

    def test_the_cause_is_the_learning_rate(self):
        settings = msgspec.structs.replace(SETTINGS, learning_rate=1e37, warmup=0.0)
        tuned = run(None, settings=settings)
        assert tuned.best_epoch == 0
        assert not tuned.history[-1].complete
        assert "not finite" in tuned.notes[0]


class TestFullDisk:
    def test_training_goes_on(self, whole, tmp_path, monkeypatch):
        def full(*args, **options):
            raise OSError(28, "No space left on device")

        state = tmp_path / "state"
        monkeypatch.setattr("dsconvert.models.training.checkpoint.np.savez", full)
        tuned = run(state)
        assert_close(tuned.model.get_weights(), whole[0])
        assert not state.exists()


@pytest.mark.slow
class TestKilled:
    def test_ends_at_the_same_weights(self, whole, tmp_path):
        rng = np.random.default_rng(11)
        state, output = tmp_path / "state", tmp_path / "weights.npz"
        moments = [
            ("step", rng.integers(1, PER_EPOCH)),
            ("save", rng.integers(2, 6)),
            ("step", rng.integers(1, PER_EPOCH)),
            ("save", rng.integers(2, 6)),
            ("end", 0),
        ]
        codes = [self.child(state, output, *moment) for moment in moments]
        assert codes == [-signal.SIGKILL] * 4 + [0]
        with np.load(output) as file:
            assert_close([file[name] for name in file.files], whole[0])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "weights.npz"]

    @staticmethod
    def child(state: Path, output: Path, moment: str, number: int) -> int:
        words = [sys.executable, killed_training.__file__, state, output, moment, number]
        done = subprocess.run(list(map(str, words)), capture_output=True, timeout=300)
        return done.returncode
