from __future__ import annotations

import re
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
from killed_training import models

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.models.data.datasets import Data
from dsconvert.models.training.event_log import event_log
from dsconvert.models.training.finetune import finetune
from dsconvert.models.training.settings import FinetuneSettings
from dsconvert.models.training.step_sizes import rate_for

keras = pytest.importorskip("keras")

DATA = Data((np.random.default_rng(0).normal(size=(100, 8, 8, 1)).astype(np.float32),))
SETTINGS = FinetuneSettings(epochs=3, batch_size=16, learning_rate=5e-2, validation=20)


class Seen(keras.callbacks.Callback):
    """Writes down what it is told."""

    def __init__(self):
        super().__init__()
        self.calls, self.logs = [], []

    def on_train_begin(self, logs=None):
        self.calls.append("train")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(f"batch {batch}")
        assert logs["loss"] > 0

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))

    def on_train_end(self, logs=None):
        self.calls.append("end")


class TestCallbacks:
    def test_are_told_everything_in_order(self):
        seen = Seen()
        tuned = finetune(*models(), DATA, SETTINGS, callbacks=[seen])
        batches = [f"batch {number}" for number in range(5)]
        epochs = [word for number in range(3) for word in (f"epoch {number}", *batches)]
        assert seen.calls == ["train", *epochs, "end"]
        assert [logs["loss"] for logs in seen.logs] == [e.loss for e in tuned.history[1:]]
        errors = [epoch.output_error for epoch in tuned.history[1:]]
        assert [logs["output_error"] for logs in seen.logs] == errors
        assert [logs["val_loss"] for logs in seen.logs] == errors
        assert seen.logs[0]["learning_rate"] > seen.logs[2]["learning_rate"]
        assert seen.logs[0]["images_per_second"] > 0

    def test_keras_own_can_stop_the_training(self):
        stop = keras.callbacks.EarlyStopping(min_delta=1e6)  # nothing is ever enough
        tuned = finetune(*models(), DATA, SETTINGS, callbacks=[stop])
        assert len(tuned.history) < 4
        assert "a callback stopped the training" in tuned.notes[0]

    def test_keras_own_can_save_the_copy(self, tmp_path):
        path = tmp_path / "best.keras"
        save = keras.callbacks.ModelCheckpoint(path, save_best_only=True)
        tuned = finetune(*models(), DATA, SETTINGS, callbacks=[save])
        saved = keras.saving.load_model(path)
        assert tuned.best_epoch > 0
        for mine, theirs in zip(tuned.model.get_weights(), saved.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)

    def test_see_the_averages_that_are_kept(self):
        class Weights(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                self.last = self.model.get_weights()

            def on_epoch_end(self, epoch, logs=None):
                self.judged = self.model.get_weights()

        seen = Weights()
        tuned = finetune(*models(), DATA, SETTINGS, callbacks=[seen])
        assert tuned.best_epoch == 3
        kept = tuned.model.get_weights()
        assert all(map(np.array_equal, seen.judged, kept))
        assert not any(map(np.array_equal, seen.last, kept))

    @pytest.mark.parametrize("quantize", ["none", "int8"])
    def test_the_rate_follows_from_the_error_at_the_start(self, quantize):
        class Rates(keras.callbacks.Callback):
            highest = 0.0

            def on_train_batch_end(self, batch, logs=None):
                self.highest = max(self.highest, float(self.model.optimizer.learning_rate))

        seen = Rates()
        settings = msgspec.structs.replace(
            SETTINGS, epochs=1, learning_rate=None, quantize=quantize
        )
        tuned = finetune(*models(), DATA, settings, callbacks=[seen])
        steps = (100 - 20) // settings.batch_size
        error = tuned.history[0].output_error
        wanted = rate_for(error, steps, rounded=quantize == "int8")
        assert 2e-3 < wanted < 2e-2
        assert seen.highest == pytest.approx(wanted)
        assert f"{wanted:.2g}" in tuned.notes[-1]  # a reader of the report sees it


def test_progress_tells_the_error_the_speed_and_the_time_left():
    labels = []

    @contextmanager
    def progress(label, total):
        labels.append(label)
        yield lambda: None

    finetune(*models(), DATA, SETTINGS, progress=progress)
    told = r"Epoch 3/3, error [\d.e-]+, \d+ images/s, [\d.]+ (s|min|h) left"
    assert re.fullmatch(told, labels[-1])
    assert "Epoch 1/3, error" in " ".join(labels)


class TestEventLog:
    def test_holds_the_history(self, tmp_path):
        import tensorflow as tf

        settings = msgspec.structs.replace(SETTINGS, log_dir=str(tmp_path / "logs"))
        tuned = ds.finetune(*models(), DATA, settings)
        (path,) = (tmp_path / "logs").iterdir()
        found = {}
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, {})[event.step] = number
        assert found.keys() == {"loss", "output_error", "learning_rate", "images_per_second"}
        expected = {epoch.epoch: epoch.loss for epoch in tuned.history[1:]}
        assert found["loss"] == pytest.approx(expected, rel=1e-6)

    def test_no_folder(self, tmp_path):
        (tmp_path / "logs").write_text("a file")
        with pytest.raises(InputError) as refused:
            event_log(tmp_path / "logs")
        assert refused.value.code == "not-writable"
