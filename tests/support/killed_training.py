"""A tiny fine-tuning run that kills itself at a given moment: run as a script by the tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.models.data.datasets import Data
from dsconvert.models.training import checkpoint
from dsconvert.models.training.finetune import finetune
from dsconvert.models.training.settings import FinetuneSettings, Tuned

SETTINGS = FinetuneSettings(
    epochs=3,
    batch_size=16,
    learning_rate=2e-2,
    augment=("flip", "crop"),
    validation=20,
    seed=4,
    save_minutes=0.0,
)
STEPS = 3 * (148 // 16)


def models() -> tuple[Any, Any]:
    """The student, with dropout and a norm, and its teacher."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)

    def build(width: int) -> Any:
        x = keras.Input((8, 8, 1))
        y = layers.Conv2D(width, 3, use_bias=False, name=f"conv{width}")(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Dropout(0.2)(layers.Flatten()(y))
        return keras.Model(x, layers.Dense(4, activation="softmax")(y))

    teacher, student = build(6), build(4)
    return student, teacher


def run(state: Path | None, progress: Any = None, settings: FinetuneSettings = SETTINGS) -> Tuned:
    """Train, or go on."""
    from dsconvert.base.progress import silent

    student, teacher = models()
    images = np.random.default_rng(0).normal(size=(168, 8, 8, 1)).astype(np.float32)
    return finetune(
        student, teacher, Data((images,)), settings, state=state, progress=progress or silent
    )


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killing_progress(at: int) -> Any:
    """Return a progress that kills the process behind step ``at`` of it."""
    taken = 0

    def advance() -> None:
        nonlocal taken
        taken += 1
        if taken == at:
            _kill()

    @contextmanager
    def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
        yield advance if label.startswith("Epoch") else lambda: None

    return progress


def _kill_in_save(at: int) -> None:
    """Kill the process when half of the ``at``-th state is written."""
    real, saved = checkpoint.np.savez, 0

    def savez(file: Any, **arrays: Any) -> None:
        nonlocal saved
        saved += 1
        real(file, **arrays)
        if saved == at:
            file.flush()
            os.truncate(file.fileno(), file.tell() // 2)
            _kill()

    checkpoint.np.savez = savez  # type: ignore[assignment]


def main(state: str, output: str, moment: str, number: str) -> None:
    """Train until the moment: "step", "save" or "end"."""
    if moment == "save":
        _kill_in_save(int(number))
    tuned = run(Path(state), _killing_progress(int(number) if moment == "step" else 0))
    np.savez(output, *tuned.model.get_weights())


if __name__ == "__main__":
    main(*sys.argv[1:])
