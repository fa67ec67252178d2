"""The same steps on several devices or machines: each computes its share of every batch.

Gradients are averaged by collective operations of tf.distribute. The variables are plain ones, and
each process moves its own by the same averages: they stay equal, and no layer has to know.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from dsconvert.base.errors import InputError, require

Strategy = Literal["auto", "one", "mirrored", "multiworker"]

_OPTIONS = {"autograph": False, "jit_compile": False, "reduce_retracing": True}


@dataclass(frozen=True)
class ReplicaPlace:
    """Which of how many workers a process is, the chief first.

    Attributes:
        workers: All of them.
        index: This one.
    """

    workers: int = 1
    index: int = 0


class WorkerLostError(InputError):
    """Another worker is gone: none can go on without it."""

    default_code: ClassVar[str] = "worker-lost"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"another worker is gone: {detail}",
            "Start all workers again with --resume; they go on from the state that was kept.",
            code=self.default_code,
        )


class Replicas(Protocol):
    """What computes shares of batches.

    Attributes:
        count: How many shares all processes together compute.
        local: The numbers of those that this process computes.
        chief: Whether this process writes what is kept.
    """

    count: int
    local: range
    chief: bool

    def compiled(self, function: Callable[..., Any]) -> Callable[[Sequence[Sequence[Any]]], Any]:
        """Return a function that is run on each device.

        Args:
            function: May call `averaged`.

        Returns:
            Takes the arguments for each share of this process, and gives the result of each.
        """

    def any(self, true_here: bool) -> bool:
        """Tell whether something is true in any process."""

    def from_chief(self, data: bytes) -> bytes:
        """Return what the chief gave."""


def averaged(values: Sequence[Any]) -> list[Any]:
    """Average tensors over all devices, within a function that `Replicas.compiled` runs."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1 or not values:
        return list(values)
    given = [tf.identity(value) for value in values]  # on this device, which arguments are not
    return list(context.all_reduce(tf.distribute.ReduceOp.MEAN, given))


class One:
    """One device."""

    count, local, chief = 1, range(1), True

    def compiled(self, function: Callable[..., Any]) -> Callable[[Sequence[Sequence[Any]]], Any]:
        """See `Replicas`."""
        import tensorflow as tf

        run = tf.function(function, **_OPTIONS)
        return lambda arguments: [run(*given) for given in arguments]

    def any(self, true_here: bool) -> bool:
        """See `Replicas`."""
        return true_here

    def from_chief(self, data: bytes) -> bytes:
        """See `Replicas`."""
        return data


class Distributed:
    """The devices of a strategy of tf.distribute.

    Args:
        strategy: Such as MultiWorkerMirroredStrategy.
        chief: Whether this process writes what is kept.
    """

    def __init__(self, strategy: Any, *, chief: bool) -> None:
        self._strategy = strategy
        self.count = int(strategy.num_replicas_in_sync)
        self.chief = chief
        numbers = self._values(lambda context: context.replica_id_in_sync_group)
        found = [int(number) for number in strategy.experimental_local_results(numbers)]
        self.local = range(found[0], found[-1] + 1)
        self._average = self.compiled(lambda value: averaged([value])[0])

    def compiled(self, function: Callable[..., Any]) -> Callable[[Sequence[Sequence[Any]]], Any]:
        """See `Replicas`."""
        import tensorflow as tf

        def on_each(given: Any) -> Any:
            return self._strategy.run(function, args=given)

        run = tf.function(on_each, **_OPTIONS)
        first = self.local[0]

        def call(arguments: Sequence[Sequence[Any]]) -> Any:
            given = self._values(
                lambda context: tf.nest.map_structure(
                    tf.convert_to_tensor,
                    tuple(arguments[context.replica_id_in_sync_group - first]),
                )
            )
            try:
                return self._of_each(run(given))
            except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
                raise WorkerLostError(str(error).splitlines()[0]) from error

        return call

    def any(self, true_here: bool) -> bool:
        """See `Replicas`."""
        value = np.float32(true_here)
        return bool(self._average([(value,)] * len(self.local))[0] > 0)

    def from_chief(self, data: bytes) -> bytes:
        """See `Replicas`."""
        length = self._of_chief(np.array([len(data)], np.float64))
        if not np.rint(length[0]):
            return b""  # tensors of no values end the process
        given = np.zeros(int(np.rint(length[0])), np.float32)
        if self.chief:
            given[:] = np.frombuffer(data, np.uint8)
        return bytes(np.rint(self._of_chief(given)).astype(np.uint8).tobytes())

    def _of_chief(self, values: Any) -> Any:
        share = values if self.chief else np.zeros_like(values)
        processes = self.count // len(self.local)
        return np.asarray(self._average([(share,)] * len(self.local))[0]) * processes

    def _values(self, of: Callable[[Any], Any]) -> Any:
        return self._strategy.experimental_distribute_values_from_function(of)

    def _of_each(self, results: Any) -> list[Any]:
        """Return what each device of this process gave."""
        import tensorflow as tf

        flat = [self._strategy.experimental_local_results(x) for x in tf.nest.flatten(results)]
        return [
            tf.nest.pack_sequence_as(results, [values[number] for values in flat])
            for number in range(len(self.local))
        ]


def replicas_of(strategy: Strategy = "auto") -> Replicas:
    """Make what a strategy names.

    Args:
        strategy: "one" device; "mirrored", all GPUs of this machine; "multiworker", all machines of
            $TF_CONFIG; "auto", the last that there is more than one of.

    Raises:
        InputError: If it needs a cluster that is not described, or TensorFlow was used before.
    """
    require("tensorflow", "keras", "to fine-tune")
    place = place_of(strategy)
    if strategy == "one" or (strategy == "auto" and place.workers < 2 and not _several_gpus()):
        return One()
    import tensorflow as tf

    if place.workers < 2 and strategy != "multiworker":
        return Distributed(tf.distribute.MirroredStrategy(_mirrored_devices()), chief=True)
    try:
        made = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise InputError(
            f"cannot join {place.workers} workers as number {place.index}: "
            f"{str(error).splitlines()[0]}",
            "Start every worker in a process of its own, with ports that are free.",
            code="no-cluster",
        ) from error
    return Distributed(made, chief=place.index == 0)


def place_of(strategy: Strategy) -> ReplicaPlace:
    """Read in $TF_CONFIG which worker this process is; nothing is started for that.

    Raises:
        InputError: If the strategy needs a cluster, and none is described.
    """
    text = os.environ.get("TF_CONFIG", "")
    if strategy in ("one", "mirrored") or (strategy == "auto" and not text):
        return ReplicaPlace()
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        workers = [*cluster.get("chief", []), *cluster.get("worker", [])]
        index = workers.index(cluster[task["type"]][int(task["index"])])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"training on several machines needs $TF_CONFIG, which names all workers and this one: "
            f"{error!r}.",
            'It looks like {"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
            '"task": {"type": "worker", "index": 0}}.',
            code="no-cluster",
        ) from error
    return ReplicaPlace(len(workers), index)


def _several_gpus() -> bool:
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU")) > 1


def _mirrored_devices() -> list[str]:
    """Return all GPUs, or, where none are, the logical CPUs."""
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in found]
