"""A Keras model that answers like every other runtime."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.in_batches import InBatches, first_size, output_kinds, samples_first
from dsconvert.base.label_agreement import LABEL_TYPES, OutputKind
from dsconvert.base.predictor import Array, Shape

from ..loading.sizes import largest_of

_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
"""The names that TensorFlow takes for an outermost scope; inside one it takes a few more."""


class KerasPredictor:
    """A `dsconvert.base.predictor.Predictor` over a functional or sequential model.

    The model runs in inference mode, batch by batch, and is traced, if a graph takes the names of
    its layers: it shows later changes of its weights but not of its layers. Several
    outputs come in the order of ``model.outputs`` however they are packed.

    Args:
        model: The Keras model.
        batch_size: Samples per run, fewer where they are large; a model built with a fixed batch
            keeps its own.
        output_axes: For each output the axis that each of its axes is to be: those of the ONNX
            file that a model was drawn from. By default the outputs stay as they are.
        batch: The batch of that file, if it is fixed there.

    Raises:
        InputError: If the model has no defined inputs and outputs.
    """

    def __init__(
        self,
        model: Any,
        batch_size: int = 64,
        *,
        output_axes: Sequence[Sequence[int]] = (),
        batch: int | None = None,
    ) -> None:
        keras = require("keras", "keras", "to run Keras models")
        import tensorflow as tf

        if not getattr(model, "outputs", None):
            raise InputError(
                f"the model {getattr(model, 'name', model)!r} has no symbolic inputs and outputs.",
                "Only functional and sequential Keras models can be used.",
                code="model-not-built",
            )
        self._model = model
        self._fixed = first_size([tuple(one.shape) for one in model.inputs]) or batch
        own = [tuple(range(len(tensor.shape))) for tensor in model.outputs]
        self._axes = [tuple(np.argsort(order)) for order in output_axes] or own
        self._batch_size = self._fixed or batch_size

        # A Sequential model has one input, and no `input` before it was called.
        sequential = isinstance(model, keras.Sequential)
        structure = model.inputs[0] if sequential else model.input

        def run(*tensors: Any) -> list[Any]:
            packed = keras.tree.pack_sequence_as(structure, list(tensors))
            outputs = keras.tree.flatten(model(packed, training=False))
            return [tf.cast(output, tf.float32) for output in outputs]

        self._plain = run

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(tensor.name for tensor in self._model.inputs)

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Their shapes with the batch axis first; None where a size is free."""
        return tuple(tuple(tensor.shape) for tensor in self._model.inputs)

    @property
    def input_types(self) -> tuple[str, ...]:
        """Return what they hold."""
        return tuple(str(tensor.dtype) for tensor in self._model.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs: those of their layers, numbered where a layer has several."""
        names = [tensor._keras_history.operation.name for tensor in self._model.outputs]
        seen: Counter[str] = Counter()
        unique = []
        for name in names:
            unique.append(f"{name}_{seen[name]}" if seen[name] else name)
            seen[name] += 1
        return tuple(unique)

    def predict(self, inputs: Sequence[Array]) -> tuple[np.ndarray[Any, Any], ...]:
        """Run on a batch of any size.

        Args:
            inputs: One array per input, (batch, ...).

        Returns:
            One float32 array per output, (batch, ...).
        """
        if not samples_first(self.input_shapes):  # inputs of one invocation
            return tuple(np.atleast_1d(output) for output in self._invoked(inputs))
        return self._in_batches.run(inputs)

    @cached_property
    def _in_batches(self) -> InBatches:
        return InBatches(
            self._invoked,
            f"the model {self._model.name}",
            self.output_names,
            [
                tuple(tensor.shape[axis] for axis in axes)
                for tensor, axes in zip(self._model.outputs, self._axes, strict=True)
            ],
            batch=self._fixed,
            most=self._batch_size,
            traced=True,
            fills=[-1 if label else 0 for label in self._labels],
            largest=lambda shapes: largest_of(self._model),
        )

    @property
    def _labels(self) -> list[bool]:
        return [str(tensor.dtype) in LABEL_TYPES for tensor in self._model.outputs]

    @property
    def output_kinds(self) -> tuple[OutputKind, ...]:
        """The kind of each output, once `predict` has run."""
        return output_kinds(self._labels, self._in_batches.forms)

    @cached_property
    def _run(self) -> Callable[..., Any]:
        """Return what runs the model: traced once, or for each size where a layer needs it."""
        import tensorflow as tf

        if not _traceable(self._model):
            return self._plain
        signature = [tf.TensorSpec(x.shape, x.dtype) for x in self._model.inputs]
        traced = tf.function(self._plain, input_signature=signature)
        if any(None in spec.shape[1:] for spec in signature):
            try:
                traced.get_concrete_function()
            except Exception:  # what Keras raises over a size that is not known
                return cast(Callable[..., Any], tf.function(self._plain))
        return cast(Callable[..., Any], traced)

    def _invoked(self, inputs: Sequence[Array]) -> list[Array]:
        """Run once."""
        tensors = [
            np.asarray(array, tensor.dtype).reshape(np.shape(array) if tensor.shape else ())
            for array, tensor in zip(inputs, self._model.inputs, strict=True)
        ]
        outputs = self._run(*tensors)
        return [
            np.ascontiguousarray(output.numpy().transpose(axes))
            for output, axes in zip(outputs, self._axes, strict=True)
        ]


def _traceable(model: Any) -> bool:
    """Tell whether the names of all layers can be scopes of a TensorFlow graph: not "[b]"."""
    return all(_SCOPE.fullmatch(layer.name) for layer in model._flatten_layers())


def leaf_layers(model: Any) -> Iterator[Any]:
    """Yield all layers that are not themselves models, nested ones included."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def layers_of_integers(model: Any) -> list[str]:
    """Return the names of layers that `keras.Model.quantize` made compute with integers, quoted."""
    layers = (x for x in leaf_layers(model) if getattr(x, "quantization_mode", None))
    return list(dict.fromkeys(repr(layer.name) for layer in layers))
