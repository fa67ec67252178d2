"""A Keras model as the stages that `core.sequential` walks through."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array

from ...core.network.partition import Wires, depth_first, live_at
from ...core.stages import Norm, Site, Weights
from ...core.types import ConvSpec, Factorization, as_float
from .emit import emit_block
from .graph import FlatGraph, Step, keras_module
from .read import conv_spec, holds_its_kernel, is_pointwise

_AROUND = re.compile(r"Exception encountered when calling .*|\x1b\[\d+m|\{\{.*?\}\}")
HEAD_FEATURES = 4096
"""Above this many features a dense layer is not refitted: the normal equations grow too large."""


@contextmanager
def _told(operation: Any) -> Iterator[None]:
    """Make a sentence of what TensorFlow cannot compute of these values: a place out of range."""
    tf = require("tensorflow", "keras", "to run Keras models")
    try:
        yield
    except tf.errors.OpError as error:
        raise InputError(
            f"the model does not run on these data, in the layer {operation.name!r}: "
            f"{_words(error.message)}",
            "Give data like those that it was trained with.",
            code="does-not-run",
        ) from error


def _words(message: str) -> str:
    """Return TensorFlow's own line, without what Keras writes around it."""
    told = _AROUND.sub("", message).strip().splitlines()
    return told[0][:300] if told else "an operation fails."


class KerasStages:
    """See `core.staged.Stages`.

    Args:
        graph: The model, read by `graph.flatten`.
        rewritten: Names of the convolutions to fit.
        refit: Whether 1×1 convolutions and last dense layers are sites as well.

    Raises:
        InputError: If a value between two stages has no batch axis.
    """

    def __init__(self, graph: FlatGraph, rewritten: Collection[str], *, refit: bool = True) -> None:
        self.graph = graph
        order = depth_first(*_wires(graph.steps), graph.outputs)
        self.steps = tuple(graph.steps[index] for index in order)
        self._writer = {v: i for i, step in enumerate(self.steps) for v in step.writes}
        self._readers: dict[int, list[int]] = {}
        for i, step in enumerate(self.steps):
            for value in set(step.reads.values()):
                self._readers.setdefault(value, []).append(i)
        self._calls: dict[int, list[int]] = {}
        for i, step in enumerate(self.steps):
            self._calls.setdefault(id(step.operation), []).append(i)
        found = {i: self._site(i, rewritten, refit) for i in range(len(self.steps))}
        self._cuts = [0, *(i for i, site in found.items() if site is not None), len(self.steps)]
        self.sites: tuple[Site | None, ...] = (None, *filter(None, found.values()))
        wires = _wires(self.steps)
        self._live = [live_at(cut, *wires, graph.inputs, graph.outputs) for cut in self._cuts[1:]]
        self._blocks: dict[int, Callable[..., Any]] = {}
        """Blocks in the place of layers, by the step."""
        self._traced: tuple[Any, Callable[..., Any]] | None = None
        """What computes several stages at once, and which stages and shapes it is of."""
        self._check_batch_axes()

    @property
    def inputs(self) -> tuple[int, ...]:
        """Value numbers of the model's inputs."""
        return self.graph.inputs

    @property
    def outputs(self) -> tuple[int, ...]:
        """Value numbers of the model's outputs."""
        return self.graph.outputs

    @property
    def batch_size(self) -> int | None:
        """The model's fixed batch, if it has one."""
        size: int | None = self.graph.symbolic[self.graph.inputs[0]].shape[0]
        return size

    def live_after(self, stage: int) -> tuple[int, ...]:
        """Values that are read after a stage, or are outputs."""
        return self._live[stage]

    def run(
        self, stage: int, values: Mapping[int, Array], last: int | None = None
    ) -> dict[int, Array]:
        """Compute the steps of some stages for one batch, in inference mode: see `Stages.run`."""
        keras = keras_module()
        last = stage if last is None else last
        tensors: dict[int, Any] = {
            value: keras.ops.convert_to_tensor(
                np.asarray(array), dtype=self.graph.symbolic[value].dtype
            )
            for value, array in values.items()
        }
        wanted = [value for value in self._live[last] if value not in tensors]
        if last > stage:
            made = self._together(stage, last, tensors, wanted)
        else:
            made = self._compute(stage, last, tensors, wanted)
        return {
            value: np.asarray(keras.ops.convert_to_numpy(tensor), np.float32)
            for value, tensor in zip(wanted, made, strict=True)
        }

    def _compute(
        self, first: int, last: int, tensors: Mapping[int, Any], wanted: Sequence[int]
    ) -> list[Any]:
        """Compute the steps of some stages one after the other."""
        live, kept = dict(tensors), set(wanted)
        for index in range(self._cuts[first], self._cuts[last + 1]):
            step, block = self.steps[index], self._blocks.get(index)
            with _told(step.operation):
                if block is None:
                    step.run(live)
                else:
                    live[step.writes[0]] = block(live[next(iter(step.reads.values()))])
            for value in set(step.reads.values()) - kept:  # a stage may be long
                if self._readers[value][-1] <= index:
                    del live[value]
        return [live[value] for value in wanted]

    def _together(
        self, first: int, last: int, tensors: Mapping[int, Any], wanted: Sequence[int]
    ) -> list[Any]:
        """Compute many stages as one graph, which takes half of the time; it is kept for more."""
        tf = require("tensorflow", "keras", "to run Keras models")
        order = tuple(tensors)
        what = first, last, [(value, tuple(tensors[value].shape[1:])) for value in order]

        def compute(*given: Any) -> list[Any]:
            return self._compute(first, last, dict(zip(order, given, strict=True)), wanted)

        if self._traced is None or self._traced[0] != what:
            signature = [
                tf.TensorSpec((self.batch_size, *tensor.shape[1:]), tensor.dtype)
                for tensor in tensors.values()
            ]
            traced = tf.function(compute, input_signature=signature, autograph=False)
            self._traced = what, traced
        try:
            return list(self._traced[1](*tensors.values()))
        except Exception:  # of a layer that no graph takes, or of data, which the layers tell about
            self._traced = what, compute
            return compute(*tensors.values())

    @contextmanager
    def using(self, stage: int, weights: Weights | None) -> Iterator[None]:
        """Give the stage's site other weights, and its own back afterwards."""
        changes = [] if weights is None else self._changes(stage, weights)
        before = [(variable, variable.numpy()) for variable, _ in changes]
        layer = self.steps[self._cuts[stage]].operation
        block = None if weights is None else weights.block
        lends_bias = weights is not None and weights.bias is not None and not layer.use_bias
        lends_bias = lends_bias and block is None
        try:
            for variable, value in changes:
                variable.assign(value)
            if weights is not None and lends_bias:  # its block will have one: see `apply`
                layer.use_bias = True
                layer.bias = keras_module().ops.cast(weights.bias, layer.compute_dtype)
            if block is not None:
                self._blocks[self._cuts[stage]] = self._block(self._cuts[stage], block)
            yield
        finally:
            self._blocks.clear()
            for variable, value in before:
                variable.assign(value)
            if lends_bias:
                layer.use_bias, layer.bias = False, None

    def _block(self, index: int, factors: Factorization) -> Callable[..., Any]:
        """Return the block that will stand in a layer's place, built and with its weights."""
        keras = keras_module()
        step = self.steps[index]
        block = emit_block(step.operation, factors, set(), keeps_name=False)
        read = self.graph.symbolic[next(iter(step.reads.values()))]
        block(keras.Input(batch_shape=read.shape, dtype=read.dtype))
        return block

    def _changes(self, stage: int, weights: Weights) -> list[tuple[Any, Array]]:
        """Return the variables that the new weights go into, with their values."""
        step = self.steps[self._cuts[stage]]
        layer = step.operation
        changes: list[tuple[Any, Array]] = []
        if weights.block is None:
            changes.append((layer.kernel, weights.kernel.reshape(layer.kernel.shape)))
            if weights.bias is not None and layer.use_bias:
                changes.append((layer.bias, weights.bias))
        if weights.norm is not None:
            changes += norm_changes(self._norm_after(step), weights.norm)
        return changes

    def norms(self) -> dict[str, Any]:
        """Return the BatchNormalization layer of each site that has one, by the site's name."""
        found = {}
        for cut, site in zip(self._cuts, self.sites, strict=False):
            if site is not None and site.norm is not None:
                found[site.name] = self._norm_after(self.steps[cut])
        return found

    # Reading the sites.

    def _site(self, index: int, rewritten: Collection[str], refit: bool) -> Site | None:
        keras = keras_module()
        step = self.steps[index]
        layer = step.operation
        calls = self._calls[id(layer)]
        if type(layer) is keras.layers.Conv2D and self.graph.name_of(layer) in rewritten:
            return self._convolution(index, "conv", calls)
        if not refit or len(calls) > 1:
            return None
        if is_pointwise(layer) and (layer.use_bias or self._norm_after(step) is not None):
            return self._convolution(index, "shortcut", calls)
        if self._is_head(step):
            return self._head(step)
        return None

    def _convolution(self, index: int, role: Any, calls: list[int]) -> Site:
        step = self.steps[index]
        layer = step.operation
        norm = self._norm_after(step)
        spec = conv_spec(self.graph, layer)
        return Site(
            name=spec.name,
            role=role,
            spec=spec,
            kernel=np.asarray(layer.kernel),
            bias=np.asarray(layer.bias) if layer.use_bias else None,
            reads=next(iter(step.reads.values())),
            norm=None if norm is None else _norm_of(norm),
            beside=self._beside(index, step, norm) if len(calls) == 1 else None,
            channels_first=layer.data_format == "channels_first",
            call=calls.index(index),
            calls=len(calls),
        )

    def _head(self, step: Step) -> Site:
        layer = step.operation
        features, units = layer.kernel.shape
        name = self.graph.name_of(layer)
        spec = ConvSpec(name=name, kernel_size=(1, 1), in_channels=features, out_channels=units)
        return Site(
            name=name,
            role="head",
            spec=spec,
            kernel=np.asarray(layer.kernel)[None, None],
            bias=np.asarray(layer.bias) if layer.use_bias else None,
            reads=next(iter(step.reads.values())),
            norm=None,
        )

    def _is_head(self, step: Step) -> bool:
        """Return a dense layer on vectors that ends in an output, through activations at most."""
        keras = keras_module()
        layer = step.operation
        if type(layer) is not keras.layers.Dense or not layer.use_bias:
            return False
        if not holds_its_kernel(layer) or layer.kernel.shape[0] > HEAD_FEATURES:
            return False
        if len(self.graph.symbolic[next(iter(step.reads.values()))].shape) != 2:
            return False
        while step.writes[0] not in self.graph.outputs:
            after = self._only_reader(step)
            if after is None or not isinstance(
                after.operation, keras.layers.Activation | keras.layers.Softmax | keras.layers.ReLU
            ):
                return False
            step = after
        return True

    def _only_reader(self, step: Step) -> Step | None:
        """Return the one step that reads a step's one output, if nothing else does."""
        if len(step.writes) != 1 or step.writes[0] in self.graph.outputs:
            return None
        readers = self._readers.get(step.writes[0], [])
        return self.steps[readers[0]] if len(readers) == 1 else None

    def _norm_after(self, step: Step) -> Any | None:
        """Return the BatchNormalization that belongs to a convolution alone."""
        keras = keras_module()
        layer = step.operation
        if not _is_linear(layer) or len(self._calls[id(layer)]) > 1:
            return None
        after = self._only_reader(step)
        if after is None or type(after.operation) is not keras.layers.BatchNormalization:
            return None
        norm = after.operation
        axis = 1 if layer.data_format == "channels_first" else 3
        alone = len(self._calls[id(norm)]) == 1
        return norm if alone and norm.axis in (axis, axis - 4) else None

    def _beside(self, index: int, step: Step, norm: Any | None) -> int | None:
        """The other operand of the sum that a linear convolution goes into, if known by then."""
        keras = keras_module()
        if not _is_linear(step.operation):
            return None
        last = step if norm is None else self._only_reader(step)
        after = None if last is None else self._only_reader(last)
        if last is None or after is None:
            return None
        adds = (keras.layers.Add, keras.src.ops.numpy.Add)
        others = [v for v in after.reads.values() if v != last.writes[0]]
        if not isinstance(after.operation, adds) or len(others) != 1:
            return None
        same = self.graph.symbolic[others[0]].shape == self.graph.symbolic[last.writes[0]].shape
        return others[0] if same and self._writer.get(others[0], -1) < index else None

    def _check_batch_axes(self) -> None:
        batch = self.batch_size
        for value in {value for live in self._live for value in live}:
            shape = self.graph.symbolic[value].shape
            if len(shape) == 0 or shape[0] != batch:
                raise InputError(
                    f"a value of shape {shape} between two layers has no batch axis in front, so "
                    "the layers cannot be fitted one after the other.",
                    "Use --method svd, which needs no data.",
                    code="no-batch-axis",
                )


def _is_linear(layer: Any) -> bool:
    return layer.activation is keras_module().activations.linear


def norm_changes(layer: Any, norm: Norm) -> list[tuple[Any, Array]]:
    """Give the variables of a BatchNormalization that new statistics go into, with their values."""
    return [
        (layer.moving_mean, norm.mean),
        (layer.moving_variance, norm.variance - layer.epsilon),
    ]


def _norm_of(layer: Any) -> Norm:
    variance = as_float(layer.moving_variance) + layer.epsilon
    gamma = as_float(layer.gamma) if layer.scale else 1.0
    return Norm(gamma / np.sqrt(variance), as_float(layer.moving_mean), variance)


def _wires(steps: Sequence[Step]) -> tuple[Wires, Wires]:
    """Return the value numbers that each step reads and writes."""
    return [tuple(step.reads.values()) for step in steps], [step.writes for step in steps]
