"""Work that is kept: a step's result is JSON, its model a file; what is there is not done again."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from common import machine, table, write_json

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Shelf:
    """Where results and models are kept.

    Attributes:
        folder: Of one benchmark.
        fresh: Whether to do everything again.
    """

    folder: Path
    fresh: bool

    def step(self, name: str, config: Mapping[str, Any], work: Callable[[], Any]) -> Any:
        """The result of a step, done now unless it was done before with the same configuration."""
        path = self.folder / "steps" / f"{name}.json"
        config = json.loads(json.dumps(dict(config)))
        if path.exists() and not self.fresh:
            kept = json.loads(path.read_text())
            if kept["config"] == config:
                print(f"{name}: kept from {kept['ended']}", flush=True)
                return kept["result"]
        print(f"{name} …", flush=True)
        started = time.perf_counter()
        result = work()
        record = {
            "config": config,
            "result": result,
            "seconds": round(time.perf_counter() - started, 1),
            "ended": time.strftime("%Y-%m-%d %H:%M"),
            "machine": machine(),
        }
        write_json(path, record)
        print(f"{name}: {record['seconds']} s", flush=True)
        return result

    def model(self, name: str) -> Path:
        """Tell where a step's model lies."""
        (self.folder / "models").mkdir(parents=True, exist_ok=True)
        return self.folder / "models" / f"{name}.keras"


@dataclass(frozen=True)
class Labelled:
    """Images, 0 … 255, and their classes, to train and to test with.

    Attributes:
        name: What they are, for the tables.
        path: The file.
        x: (n, H, W, C) float32.
        y: (n,).
        x_test: (m, H, W, C) float32.
        y_test: (m,).
    """

    name: str
    path: Path
    x: Array
    y: Array
    x_test: Array
    y_test: Array

    @classmethod
    def of(cls, name: str, path: Path) -> Labelled:
        """Read an .npz file; grey images get their channel axis."""
        arrays = np.load(path)

        def images(key: str) -> Array:
            values = arrays[key].astype(np.float32)
            return values if values.ndim == 4 else values[..., None]

        labels = (arrays[key].ravel().astype(np.int64) for key in ("y_train", "y_test"))
        y, y_test = labels
        return cls(name, path, images("x_train"), y, images("x_test"), y_test)

    @property
    def told(self) -> str:
        """ "20,000 training and 5,000 test images of CIFAR-10"."""
        return f"{len(self.x):,} training and {len(self.x_test):,} test images of {self.name}"

    @property
    def classes(self) -> int:
        return int(self.y.max()) + 1


@dataclass(frozen=True)
class Bench:
    """What a part works with.

    Attributes:
        shelf: Where results are kept.
        cifar: CIFAR-10, or digits.
        mnist: MNIST, or digits.
        cifar100: CIFAR-100, or digits; None where there is none.
        models: A folder with networks that are trained already, or None.
        quick: Whether this is a quick run.
    """

    shelf: Shelf
    cifar: Labelled
    mnist: Labelled
    cifar100: Labelled | None
    models: Path | None
    quick: bool

    def epochs(self, number: int) -> int:
        """As many, or two in a quick run."""
        return min(number, 2) if self.quick else number

    def table(self, title: str, columns: list[str], rows: Any) -> None:
        """Print and keep a table."""
        table(title, columns, rows, folder=self.shelf.folder)


def top1(model: Any, data: Labelled) -> dict[str, float]:
    """Accuracy on the test images with its 95 % interval, in percent."""
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.evaluation.evaluate import evaluate

    found = evaluate(model, Data(inputs=(data.x_test,), labels=data.y_test)).top1
    assert found is not None
    return {"top1": 100 * found.value, "low": 100 * found.low, "high": 100 * found.high}


def train(
    model: Any,
    data: Labelled,
    epochs: int,
    *,
    batch: int,
    rate: float = 1e-3,
    decay: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Train from random weights by the labels: Adam, no augmentation, bfloat16.

    The model gets the weights of the last epoch.

    Args:
        model: The network.
        data: Its images and labels.
        epochs: Passes over them.
        batch: Images a step.
        rate: Adam's; Keras' own by default.
        decay: What the rate is multiplied by after each epoch.
        seed: Of the order.

    Returns:
        Accuracies in percent, at the end and by epoch, and the seconds that it took.
    """
    import keras

    from dsconvert.models.training.student_copy import copy_model

    keras.utils.set_random_seed(seed)
    copy = copy_model(model, mixed_precision=True)
    rates = keras.optimizers.schedules.ExponentialDecay(
        rate, -(-len(data.x) // batch), decay, staircase=True
    )
    copy.compile(keras.optimizers.Adam(rates), "sparse_categorical_crossentropy", jit_compile=False)
    history = []
    started = time.perf_counter()
    for epoch in range(epochs):
        loss = copy.fit(
            data.x, data.y, batch_size=batch, epochs=epoch + 1, initial_epoch=epoch, verbose=0
        )
        model.set_weights(copy.get_weights())
        history.append(top1(model, data)["top1"])
        print(
            f"  epoch {epoch + 1}: loss {loss.history['loss'][-1]:.3f}, {history[-1]:.2f} %",
            flush=True,
        )
    return {
        **top1(model, data),
        "epochs": epochs,
        "best": max(history),
        "history": history,
        "params": model.count_params(),
        "train_seconds": round(time.perf_counter() - started),
    }


def rewritten(
    teacher: Any,
    data: Labelled,
    include: Sequence[str],
    *,
    epochs: int,
    tuning: Mapping[str, Any],
    method: Literal["data", "random"] = "data",
    images: int = 1000,
    seed: int = 0,
) -> tuple[Any, dict[str, Any]]:
    """Return a trained network rewritten at T = 1 and fine-tuned by its answers and the labels.

    With the method "random" the pairs forget what was trained: the control.
    """
    from dsconvert.converter.rewrite import rewrite
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.training.finetune import finetune
    from dsconvert.models.training.settings import FinetuneSettings

    chosen = np.random.default_rng(seed).choice(len(data.x), min(images, len(data.x)), False)
    started = time.perf_counter()
    calibration = data.x[chosen] if method == "data" else None
    result = rewrite(
        teacher,
        calibration=calibration,
        method=method,
        pairs=1,
        include=tuple(include),
        seed=seed,
    )
    fitted = time.perf_counter() - started
    before = top1(result.model, data)["top1"]
    print(f"  fitted without training: {before:.2f} %", flush=True)
    settings = FinetuneSettings(
        epochs=epochs, frozen_epochs=0, mixed_precision=True, seed=seed, **tuning
    )
    started = time.perf_counter()
    tuned = finetune(result.model, teacher, Data(inputs=(data.x,), labels=data.y), settings)
    return tuned.model, {
        **top1(tuned.model, data),
        "epochs": epochs,
        "before": before,
        "fit_seconds": round(fitted),
        "params": tuned.model.count_params(),
        "train_seconds": round(time.perf_counter() - started),
    }


TUNING = {"batch_size": 64, "learning_rate": 1e-2, "label_weight": 0.3}
"""For CIFAR-10."""
SMALL_TUNING = {"batch_size": 4, "learning_rate": 3e-2, "label_weight": 0.9}
"""For 1,427 parameters."""


def step_times(models: Mapping[str, Any], data: Labelled, *, batch: int = 32) -> dict[str, float]:
    """Milliseconds of one training step in float32, the median of rounds in turn."""
    import keras

    x, y = data.x[:batch], data.y[:batch]
    copies = {}
    for name, model in models.items():
        copy = keras.models.clone_model(model)
        copy.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        for _ in range(3):
            copy.train_on_batch(x, y)
        copies[name] = copy
    return _in_turn({name: lambda m=m: m.train_on_batch(x, y) for name, m in copies.items()}, 25)


def answer_times(models: Mapping[str, Any], data: Labelled, count: int) -> dict[str, float]:
    """Milliseconds in which Keras answers for this many images, the median of rounds in turn."""
    x = np.resize(data.x_test, (count, *data.x_test.shape[1:]))
    for model in models.values():
        model.predict(x[:64], verbose=0)
    work = {name: lambda m=m: m.predict(x, verbose=0) for name, m in models.items()}
    return _in_turn(work, 5)


def _in_turn(work: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    seen: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, call in work.items():
            started = time.perf_counter()
            call()
            seen[name].append(1e3 * (time.perf_counter() - started))
    return {name: round(statistics.median(times), 3) for name, times in seen.items()}


def h5_size(model: Any, data: Labelled, folder: Path) -> int:
    """Bytes of the .h5 file that a tutorial would save: the optimizer's state included."""
    import keras

    copy = keras.models.clone_model(model)
    copy.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    copy.train_on_batch(data.x[:8], data.y[:8])
    path = folder / "size.h5"
    copy.save(path)
    size = path.stat().st_size
    path.unlink()
    return size


def litert_times(models: Mapping[str, Any], folder: Path) -> dict[str, dict[str, float]]:
    """Size and median time per image of the TFLite files, one thread, in one interleaved run."""
    from dsconvert.deploy.exporting.export import export
    from dsconvert.deploy.profiling.profile import profile

    files = []
    for number, model in enumerate(models.values()):
        path = folder / f"timed-{number}.tflite"
        export(model, path, overwrite=True)
        files.append(path)
    measured = profile(files, runs=300, min_seconds=1)
    found = {}
    for name, one in zip(models, measured, strict=True):
        assert one.latency is not None, one.failure
        found[name] = {"ms": one.latency.p50_ms, "bytes": one.size_bytes}
    for path in files:
        path.unlink()
    return found
