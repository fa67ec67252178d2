"""The copy of the student that is trained, so that the student itself is never touched.

Its compile state, its ``trainable`` flags and its dtype policies stay as they were; it only
receives weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dsconvert.base.errors import InputError
from dsconvert.base.keras_weights import give_weights

from ..evaluation.keras_predictor import leaf_layers

_BATCH_NORM_MOMENTUM = 0.9
"""At most: with Keras' default of 0.99 the moving statistics trail the weights by hundreds of
steps, which a short run on little data does not have."""


def copy_model(model: Any, *, mixed_precision: bool = False) -> Any:
    """Return a float32 or bfloat16 copy that takes and gives flat tuples.

    Regularizers are left out: the weights were regularised when the teacher was trained, and
    pulling on them now only moves the outputs away from the teacher's.

    Args:
        model: A functional or sequential Keras model.
        mixed_precision: Compute in bfloat16 with float32 weights, except in the layers that give
            the outputs.

    Raises:
        InputError: If the model cannot be copied layer by layer.
    """
    import keras

    last = {id(operation) for operation in _output_operations(model)}

    def copy_layer(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation such as keras.ops.add has no state
        half = mixed_precision and id(layer) not in last
        config: dict[str, Any] = {
            key: None if key.endswith("_regularizer") else value
            for key, value in layer.get_config().items()
        }
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = min(config["momentum"], _BATCH_NORM_MOMENTUM)
        config["dtype"] = "mixed_bfloat16" if half else "float32"
        return type(layer).from_config(config)

    try:
        copy = keras.models.clone_model(model, clone_function=copy_layer, recursive=True)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"the model {model.name!r} cannot be copied for training: {error}",
            "Only functional and sequential models whose layers have get_config can be trained.",
            code="layer-not-copied",
        ) from error
    give_weights(copy, model.get_weights())
    return keras.Model(bare(copy.inputs), bare(copy.outputs), name=model.name)


def bare(values: Sequence[Any]) -> Any:
    """Return a single value by itself, several as a tuple: how Keras wants inputs and targets."""
    return values[0] if len(values) == 1 else tuple(values)


def flat(values: Any) -> list[Any]:
    """Return what `bare` packed as a list."""
    return list(values) if isinstance(values, list | tuple) else [values]


def kept_layers(student_copy: Any, teacher: Any) -> list[Any]:
    """Return the trainable layers that the teacher has too: same name, same weight shapes.

    Empty where they are all there are, since freezing them would leave nothing to train.
    """
    known = {layer.name: _weight_shapes(layer) for layer in leaf_layers(teacher)}
    layers = [layer for layer in leaf_layers(student_copy) if layer.trainable_weights]
    kept = [layer for layer in layers if known.get(layer.name) == _weight_shapes(layer)]
    return kept if len(kept) < len(layers) else []


def seed_random_layers(student_copy: Any, seed: int) -> None:
    """Give dropout and its like a known state: layers made without a seed start at random."""
    weights = {id(variable) for variable in student_copy.weights}
    states = [variable for variable in student_copy.variables if id(variable) not in weights]
    for number, state in enumerate(states):
        state.assign([seed, number])


def _output_operations(model: Any) -> Iterator[Any]:
    """Yield the innermost operations that give the model's outputs."""
    import keras

    for tensor in model.outputs:
        operation = tensor._keras_history.operation
        if isinstance(operation, keras.Model):
            yield from _output_operations(operation)
        else:
            yield operation


def _weight_shapes(layer: Any) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]
