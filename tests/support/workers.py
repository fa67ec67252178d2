"""A tiny fine-tuning run in one of several processes: run as a script by the tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def build(seed: int) -> Any:
    """A network with a stem, a pool inside and a softmax."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(6, 3, activation="relu", name=f"conv{seed}")(x)
    y = layers.GlobalAveragePooling2D()(layers.MaxPooling2D(name="pool")(y))
    return keras.Model(x, layers.Dense(4, activation="softmax", name="classes")(y))


def main(strategy: str, output: str, kill_after: str) -> None:
    """Train, or go on, and write the weights; killed after so many steps, if it is a number."""
    if strategy == "mirrored":
        import tensorflow as tf

        (device,) = tf.config.list_physical_devices("CPU")
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(device, halves)
    from dsconvert.base.errors import DsconvertError
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.training.finetune import finetune
    from dsconvert.models.training.replicas import replicas_of
    from dsconvert.models.training.settings import FinetuneSettings

    replicas = replicas_of(strategy)  # type: ignore[arg-type]
    teacher, student = build(1), build(2)
    images = np.random.default_rng(0).normal(size=(140, 8, 8, 3)).astype(np.float32)
    settings = FinetuneSettings(epochs=3, batch_size=16, validation=12, learning_rate=2e-2)
    state = Path(output).with_suffix(".state")
    try:
        tuned = finetune(
            student,
            teacher,
            Data((images,)),
            settings,
            state=state,
            network=_composed(teacher),
            watched=_composed(teacher),
            replicas=replicas,
            progress=_killing(int(kill_after)) if kill_after else _silent(),
        )
        replicas.any(False)
    except DsconvertError as error:
        sys.stderr.write(f"{error}\n{error.code}\n")
        sys.exit(error.exit_code)
    np.savez(output, *tuned.model.get_weights(), steps=len(tuned.history))


def _composed(teacher: Any) -> Callable[[Any], Any]:
    from dsconvert.converter.backends.keras.composed import ComposedModel

    return lambda model: ComposedModel(model, teacher)


def _silent() -> Any:
    from dsconvert.base.progress import silent

    return silent


def _killing(after: int) -> Any:
    taken = 0

    def advance() -> None:
        nonlocal taken
        taken += 1
        if taken == after:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
        yield advance if label.startswith("Epoch") else lambda: None

    return progress


def trained(
    strategy: str, outputs: Sequence[Path], kill_after: Sequence[int | None] = (None, None)
) -> list[tuple[int, str]]:
    """Run one process per output; exit codes and the last lines of stderr."""
    addresses = []
    with ExitStack() as stack:
        for _ in outputs:
            port = stack.enter_context(socket.socket())
            port.bind(("127.0.0.1", 0))
            addresses.append(f"127.0.0.1:{port.getsockname()[1]}")
    started = []
    for index, (output, kill) in enumerate(zip(outputs, kill_after, strict=False)):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "-1"}
        if strategy == "multiworker":
            environment["TF_CONFIG"] = json.dumps(config)
        words = [sys.executable, __file__, strategy, str(output), str(kill or "")]
        started.append(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True))
    ended = [process.communicate(timeout=600)[1] for process in started]
    return [
        (process.returncode, error[-2000:]) for process, error in zip(started, ended, strict=True)
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
