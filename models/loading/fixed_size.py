"""A Keras model whose inputs left their sizes free, at fixed ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsconvert.base.keras_weights import give_weights
from dsconvert.base.predictor import Shape
from dsconvert.base.quiet import captured


def with_fixed_sizes(model: Any, shapes: Sequence[Shape]) -> Any:
    """Return the same network with inputs of fixed sizes; nested models get theirs, too.

    Layers are copied with their weights, since a layer remembers the sizes it was called with.

    Args:
        model: A functional or Sequential `keras.Model`; it is not changed.
        shapes: One per input, batch axis first; None where a size stays free.

    Raises:
        Exception: Whatever Keras raises where layers do not take the sizes.
    """
    made: list[tuple[Any, Any]] = []
    with captured():
        fixed = _Rebuilding(made).rebuilt(model, shapes)
    for layer, copy in made:
        give_weights(copy, layer.get_weights())
    return fixed


class _Rebuilding:
    def __init__(self, made: list[tuple[Any, Any]]) -> None:
        self._made = made
        self._nested: dict[tuple[int, tuple[Shape, ...]], Any] = {}

    def rebuilt(self, model: Any, shapes: Sequence[Shape]) -> Any:
        """Return a model with other input shapes."""
        import keras

        inputs = [
            keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name)
            for shape, tensor in zip(shapes, model.inputs, strict=True)
        ]
        if isinstance(model, keras.Sequential):
            return self._sequential(model, inputs[0])
        return keras.models.clone_model(
            model,
            input_tensors=keras.tree.pack_sequence_as(model.input, inputs),
            clone_function=self._copied,
            call_function=self._called,
        )

    def _sequential(self, model: Any, given: Any) -> Any:
        import keras

        shape, layers = tuple(given.shape), []
        for layer in model.layers:
            nested = hasattr(layer, "layers") and getattr(layer, "inputs", None)
            copy = self._inner(layer, (shape,)) if nested else self._copied(layer)
            layers.append(copy)
            shape = tuple(copy.compute_output_shape(shape))
        return keras.Sequential([given, *layers], name=model.name)

    def _copied(self, layer: Any) -> Any:
        """Return a copy of a layer; what has no weights, or runs a user's code, is shared."""
        import keras

        nested = hasattr(layer, "layers") and getattr(layer, "inputs", None)
        if nested or not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.Lambda):
            return layer
        copy = type(layer).from_config(layer.get_config())
        self._made.append((layer, copy))
        return copy

    def _called(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        import keras

        if hasattr(layer, "layers") and getattr(layer, "inputs", None):
            tensors = keras.tree.flatten((args, kwargs))
            shapes = tuple(tuple(x.shape) for x in tensors if isinstance(x, keras.KerasTensor))
            layer = self._inner(layer, shapes)
        return layer(*args, **kwargs)

    def _inner(self, model: Any, shapes: tuple[Shape, ...]) -> Any:
        """Return a nested model for the shapes it is called with; one for all calls of one size."""
        known = tuple(tuple(tensor.shape) for tensor in model.inputs)
        if known == shapes or len(known) != len(shapes):
            return model
        key = id(model), shapes
        if key not in self._nested:
            self._nested[key] = self.rebuilt(model, shapes)
        return self._nested[key]
