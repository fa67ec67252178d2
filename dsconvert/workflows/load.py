"""Open a model once, to give it to as many functions as you like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dsconvert.base.arguments import as_path
from dsconvert.base.input_size import SizeWords, as_sizes

from .model_files import ModelFile, ModelPath, open_model


def load(
    path: str | Path,
    *,
    trust: bool = False,
    custom_objects: str | Mapping[str, object] | None = None,
    input_size: SizeWords | None = None,
    dequantize: bool = False,
) -> ModelFile:
    """Load a Keras file of any age, or an .onnx file; nothing of TensorFlow for the latter.

    Args:
        path: A .keras, .h5, .hdf5 or .onnx file.
        trust: Whether code that the file carries (the bytecode of Lambda layers) may run.
        custom_objects: Classes and functions of the user's own, by the names in the file; or
            "package.module:name" of a class, a function or such a dictionary.
        input_size: What sizes that the inputs leave free are fixed to, for all that is done with
            the model: "256x256" or (256, 256), height and width; of several inputs
            {"image": (256, 256)}.
        dequantize: Whether a quantized .onnx file is read as the float model that it stands for;
            the loss is told.

    Returns:
        The model with its kind, the names and shapes of its inputs (batch axis first), its hash
        and what had to be repaired; every other function takes it.

    Raises:
        InputError: If the file is no loadable model, or does not run at the size; the message names
            the cause.
        MissingExtra: If what loads it is not installed.

    Example:
        >>> import dsconvert as ds
        >>> loaded = ds.load("model.onnx")
        >>> loaded
        model.onnx (onnx): image (None, 8, 8, 1)
        >>> ds.inspect(loaded).params == ds.inspect("model.keras").params
        True
    """
    return open_model(
        ModelPath(
            as_path(path, "path"),
            trust=trust,
            custom_objects=custom_objects,
            dequantize=dequantize,
            input_size=as_sizes(input_size),
        )
    )
