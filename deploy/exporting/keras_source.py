"""A Keras model as export needs it: flat, called, in float32, with names that files can keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.in_batches import InBatches, first_size, samples_first
from dsconvert.base.keras_weights import give_weights
from dsconvert.base.label_agreement import LABEL_TYPES
from dsconvert.base.predictor import Array
from dsconvert.base.quiet import captured
from dsconvert.models.loading.sizes import largest_of

from ..runtimes.samples import FREE_SIZE, check_inputs, random_inputs, shape_text
from ..runtimes.session import first_line
from ..runtimes.tensor_info import TensorInfo
from .equal_forms import mixes_samples
from .folding import fold_norms
from .inference_only import without_augmentation
from .plain_names import unique, with_plain_names, without_keyword

_CHUNK = 32
_SAME = 1e-3
"""Of an output's largest value: how far its sums in another order may be from it."""
_TOGETHER = 3
"""Samples that show whether they depend on each other, where any number goes."""
_OTHER_PRECISION = ("float16", "bfloat16", "float64")


@dataclass(frozen=True)
class KerasSource:
    """What is exported, and the reference for what was.

    Attributes:
        model: A functional model: a list of inputs in, a dictionary of outputs by name out. Norms
            behind sums of convolutions are folded.
        reference: The same as it came, to compare with.
        inputs: Its inputs, in the order of the original.
        output_names: Its outputs, in the order of the original.
        notes: What was changed for the export.
        alone: Whether each sample is predicted alone, as a file of a fixed batch of 1 does.
        batch: Samples that a file of a fixed batch takes at once: more than one where a model
            of a fixed batch answers for them together.
    """

    model: Any
    reference: Any
    inputs: tuple[TensorInfo, ...]
    output_names: tuple[str, ...]
    notes: tuple[str, ...]
    alone: bool = False
    batch: int = 1

    @property
    def free_inputs(self) -> tuple[str, ...]:
        """The names of inputs that have free sizes beside the batch."""
        return tuple(info.name for info in self.inputs if None in info.shape[1:])

    def predict(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Return the outputs for one array per input, (n, ...), as float32.

        Raises:
            InputError: If the model cannot run on arrays of these sizes.
        """
        if not samples_first([one.shape for one in self.inputs]):  # inputs of one invocation
            return tuple(np.atleast_1d(output) for output in self._invoked(inputs))
        outputs = [self.reference.output[name] for name in self.output_names]
        running = InBatches(
            self._invoked,
            "the model",
            self.output_names,
            [tuple(output.shape) for output in outputs],
            batch=self.inputs[0].shape[0],
            most=1 if self.alone else _CHUNK,
            traced=True,
            fills=[-1 if str(output.dtype) in LABEL_TYPES else 0 for output in outputs],
            largest=lambda shapes: largest_of(self.reference),
        )
        return running.run(inputs)

    def _invoked(self, inputs: Sequence[Array]) -> list[Array]:
        """Run once."""
        try:
            part = [
                np.asarray(array, info.dtype)
                for array, info in zip(inputs, self.inputs, strict=True)
            ]
            with captured():
                outputs = self.reference(part, training=False)
            return [np.asarray(outputs[name], np.float32) for name in self.output_names]
        except Exception as error:  # TensorFlow's own errors share no base class with Keras'
            raise InputError(
                f"the model cannot run on inputs of shape {[a.shape for a in inputs]}: "
                f"{first_line(error)}",
                "Give verification data that it can run on.",
                code="does-not-run",
            ) from error


def read_source(
    model: Any,
    samples: Sequence[Array] | None,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    *,
    fix_sizes: bool = False,
    alone: bool = False,
) -> KerasSource:
    """Make a Keras model ready for export; the model itself is not changed.

    Args:
        model: Any `keras.Model`: functional, sequential or subclassed.
        samples: One array per input, (n, ...), or None. They give the input shapes of a model
            that was never built, and fix the free sizes of one with dilated convolutions.
        input_names: What to call the inputs; by default as the model does. The model made here
            keeps its own, since Keras allows fewer names than other formats.
        output_names: What to call the outputs; by default as the model does.
        fix_sizes: Fix all free sizes to those of the samples.
        alone: Whether the file takes one sample at a time: where a layer's answer depends on the
            others of a batch, the model is compared so too.

    Raises:
        InputError: If it is no Keras model, runs on another backend than TensorFlow, or has no
            known inputs.
    """
    keras = require("keras", "keras", "to export Keras models")
    if not isinstance(model, keras.Model):
        raise InputError(
            f"only a keras.Model can be exported, got {type(model).__name__}.", code="not-a-model"
        )
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"the export needs Keras on TensorFlow, and it runs on {keras.backend.backend()}.",
            "Set the environment variable KERAS_BACKEND=tensorflow.",
            code="other-backend",
        )
    with captured():
        functional = _functional(keras, model, samples)
        own = getattr(model, "output_names", None) or functional.output_names
        notes = []
        _refuse_states(functional)
        functional, renamed = with_plain_names(functional)
        if renamed:
            notes.append(renamed)
        functional, removed = without_augmentation(functional)
        if removed:
            notes.append(f"without {', '.join(removed)}, which do nothing in inference")
        if any(layer.compute_dtype in _OTHER_PRECISION for layer in _all_layers(functional)):
            functional = _in_float32(keras, functional)
            notes.append("model of another precision: exported, and compared, in float32")
        fixed = None
        if samples is not None and (fix_sizes or _is_dilated(functional)):
            fixed = check_inputs(samples, _infos(functional.inputs), "the data")
        inputs = _named_inputs(keras, functional, fixed)
        taken = input_names or [tensor.name for tensor in inputs]
        # An input may be an output as well; a file's tensors have one name each.
        names = unique([*taken, *(output_names or own)])[len(inputs) :]
        for tensor, original in zip(inputs, functional.inputs, strict=True):
            if tensor.shape != original.shape:
                notes.append(f"input {tensor.name} is fixed to the data's size {tensor.shape[1:]}")
            elif None in tensor.shape[1:]:
                notes.append(f"input {tensor.name} has free sizes: the runtime resizes it")
                if _is_dilated(functional):
                    notes.append(
                        "free sizes around dilated convolutions run slowly: export with data of "
                        "the size that you will run"
                    )

        def flat(source: Any) -> Any:
            outputs = keras.tree.flatten(source(inputs))
            made = keras.Model(inputs, dict(zip(names, outputs, strict=True)))
            made(inputs)  # Keras exports no model that was never called
            return made

        reference, folded = flat(functional), fold_norms(functional)
        exported = reference if folded is functional else flat(folded)
    alone = alone and mixes_samples(functional)
    if alone:
        notes.append(
            "a MelSpectrogram cuts off by the loudest sample of a batch: the file takes one at a "
            "time, and is compared so"
        )
    source = KerasSource(
        model=exported,
        reference=reference,
        inputs=_infos(inputs, input_names),
        output_names=names,
        notes=tuple(notes),
        alone=alone,
    )
    batch = first_size([one.shape for one in source.inputs]) or 1
    if batch == 1 or _is_of_samples(source, batch):
        return source
    told = f"takes a batch of {batch}, as the model does: its samples depend on each other"
    return replace(source, batch=batch, notes=(*source.notes, told))


def refuse_joined_samples(source: KerasSource) -> None:
    """Refuse a model whose free first axis is not that of samples: a .tflite file takes 1 there.

    A recurrent layer may read time on it. It is asked after a failure: it costs three runs.

    Raises:
        InputError: If what the model gives for one sample depends on the others.
    """
    shapes = [one.shape for one in source.inputs]
    free = samples_first(shapes) and first_size(shapes) is None
    if not free or _is_of_samples(source, _TOGETHER):
        return
    raise InputError(
        f"a .tflite file takes one sample at a time, and {shape_text(shapes[0])} of the input "
        f"{source.inputs[0].name} are not n samples: what the model gives for one depends on the "
        "others, as where a recurrent layer reads n steps of time.",
        "Export to .onnx, or fix n in the model: keras.Input(batch_shape=…); of an .onnx file: "
        "python -m onnxruntime.tools.make_dynamic_shape_fixed --dim_param NAME --dim_value N.",
        code="samples-not-independent",
    )


def _is_of_samples(source: KerasSource, batch: int) -> bool:
    """Tell whether a model answers for one sample as for it among so many."""
    inputs = random_inputs(source.inputs, batch, 0, FREE_SIZE)
    try:
        together = source._invoked(inputs)
        each = [source._invoked([x[i : i + 1] for x in inputs]) for i in range(batch)]
        parts = [np.concatenate(outputs) for outputs in zip(*each, strict=True)]
    except (InputError, ValueError):  # it does not run on one, or gives what cannot be joined
        return False
    return all(
        whole.shape == part.shape
        and np.allclose(whole, part, rtol=_SAME, atol=_SAME * np.abs(whole).max(initial=0.0))
        for whole, part in zip(together, parts, strict=True)
    )


def _infos(tensors: Sequence[Any], names: Sequence[str] = ()) -> tuple[TensorInfo, ...]:
    """Describe symbolic tensors, by other names than their own if some are given."""
    return tuple(
        TensorInfo(name=name, shape=tuple(tensor.shape), dtype=tensor.dtype)
        for tensor, name in zip(tensors, names or [t.name for t in tensors], strict=True)
    )


def _functional(keras: Any, model: Any, samples: Sequence[Array] | None) -> Any:
    """Return the model with known symbolic inputs and outputs, in flat lists."""
    if not model.built or not getattr(model, "outputs", None):
        if samples is None:
            raise InputError(
                f"model {model.name} has no known input shapes: it was never built, or is a "
                "subclass of keras.Model.",
                "Give calibration or verification data, or call the model once on an input "
                "made with keras.Input.",
                code="model-not-built",
            )
        inputs = [keras.Input(array.shape[1:]) for array in samples]
        outputs = model(inputs[0] if len(inputs) == 1 else inputs)
        if not getattr(model, "outputs", None):  # a subclass still has none of its own
            return keras.Model(inputs, keras.tree.flatten(outputs))
    return keras.Model(list(model.inputs), keras.tree.flatten(model.outputs))


def _named_inputs(keras: Any, functional: Any, samples: Sequence[Array] | None) -> list[Any]:
    """New inputs whose tensors are called as the model's input layers.

    A tensor of `keras.Input` without a name is called ``keras_tensor_7``, another number in every
    process; its layer's name is saved with the model. Samples fix the sizes other than the batch.
    """
    layers = [x for x in functional.layers if isinstance(x, keras.layers.InputLayer)]
    names = {id(layer.output): without_keyword(layer.name) for layer in layers}
    shapes = [tensor.shape for tensor in functional.inputs]
    if samples is not None:
        shapes = [
            (shape[0], *array.shape[1:]) for shape, array in zip(shapes, samples, strict=True)
        ]
    return [
        keras.Input(batch_shape=shape, dtype=tensor.dtype, name=names[id(tensor)])
        for tensor, shape in zip(functional.inputs, shapes, strict=True)
    ]


def _is_dilated(model: Any) -> bool:
    """Tell whether any convolution is dilated.

    TensorFlow wraps those in SPACE_TO_BATCH and BATCH_TO_SPACE where a size is free.
    """
    return any(np.max(getattr(layer, "dilation_rate", 1)) > 1 for layer in _all_layers(model))


def _refuse_states(model: Any) -> None:
    """Refuse layers that keep their state from one call to the next.

    Raises:
        InputError: With their names.
    """
    names = [layer.name for layer in _all_layers(model) if getattr(layer, "stateful", False)]
    if names:
        raise InputError(
            f"{', '.join(names)} keep their state from one call to the next (stateful=True), and "
            "an exported file has no place for it.",
            "Build the model with stateful=False, give it these weights (set_weights), and export "
            "that: it starts from zeros in every call.",
            code="not-convertible",
        )


def _all_layers(model: Any) -> Iterable[Any]:
    """Return all layers, those of nested models too."""
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _all_layers(layer)


def _in_float32(keras: Any, model: Any) -> Any:
    """Return a copy of the model that computes in float32 with the same weights."""

    def with_policy(config: Any) -> Any:
        """Return the configuration with every low-precision policy in it replaced."""
        if isinstance(config, dict):
            return {key: with_policy(value) for key, value in config.items()}
        if isinstance(config, list | tuple):
            return type(config)(with_policy(value) for value in config)
        if isinstance(config, str) and config.removeprefix("mixed_") in _OTHER_PRECISION:
            return "float32"
        return config

    def copy(layer: Any) -> Any:
        return type(layer).from_config(with_policy(layer.get_config()))

    clone = keras.models.clone_model(model, clone_function=copy, recursive=True)
    give_weights(clone, model.get_weights())
    return clone
