"""From an .onnx file to a graph. The only file that reads one."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.errors import InputError, require
from dsconvert.base.files import sha256

from .functions import expanded_size
from .messages import undecodable
from .sparse import store_in_full
from .tensors import INLINE, embedded, external_place, is_external, size_in_bytes, tensors_of

if TYPE_CHECKING:
    from onnx import ModelProto


_NO_KERNEL = "Could not find an implementation"
"""What ONNX Runtime says of an operator that it knows, of a type that it does not compute in."""
_MOST_NODES = 1_000_000
"""That the calls of functions may become: a hundred times as many as large networks have."""


@dataclass(frozen=True)
class OnnxFile:
    """A model from a file.

    Attributes:
        model: The graph; weights in external files are named, not loaded.
        path: The file; external weights are beside it.
        sha256: Of the file; where it has weights in others, of its hash and theirs.
        repairs: What had to be repaired, in sentences.
        dequantized: Whether it was quantized or in half precision, and its float form was asked
            for.
        sizes_moved: Whether ONNX Runtime takes it only as it is here: the file has small values,
            such as sizes, in the file beside it.
    """

    model: ModelProto
    path: Path
    sha256: str
    repairs: tuple[str, ...] = ()
    dequantized: bool = False
    sizes_moved: bool = False


def load(path: str | Path, *, weights: bool = False) -> ModelProto:
    """Read an .onnx file, unchecked.

    Args:
        path: The file.
        weights: Whether to read its external data too; else they are named only.

    Raises:
        InputError: If it is not there or no ONNX model, or its external data are missing, too
            short, or outside its folder.
        MissingExtra: If onnx is not installed.
    """
    onnx = require("onnx", "onnx", "to read .onnx files")
    path = Path(path)
    if not path.is_file():
        other = "not a regular file" if path.exists() else "no such file"
        what = "a folder" if path.is_dir() else other
        raise InputError(f"{path}: {what}.", "Give the path of an .onnx file.", code="damaged-file")
    try:
        model: ModelProto = onnx.load_model(path, load_external_data=False)
    except Exception as error:  # the protobuf parser's own class is private
        raise InputError(
            f"{path} is not an ONNX model: {error}",
            "Export it again from where it was made.",
            code="not-a-model",
        ) from error
    if not model.graph.node:
        raise InputError(
            f"{path} holds no graph.", "Export it again from where it was made.", code="not-a-model"
        )
    broken = undecodable(model)
    if broken:
        raise InputError(
            f"{path} is damaged: a {broken} in it is no UTF-8 text.",
            "Copy it again, or export it again from where it was made.",
            code="damaged-file",
        )
    if model.functions:
        _check_functions(model, path)
    store_in_full(model, path.parent)
    if weights:
        embed_weights(model, path.parent)
    return model


def _check_functions(model: ModelProto, path: Path) -> None:
    """Refuse functions that call themselves, or whose bodies in place of the calls never end."""
    size = expanded_size(model)
    if size is None or size > _MOST_NODES:
        told = "call themselves" if size is None else f"make {size:,} nodes of its calls"
        raise InputError(
            f"{path}: its functions {told}; at most {_MOST_NODES:,} are read.",
            "Export it again, with the functions inlined.",
            code="too-many-nodes",
        )


def _digest(model: ModelProto, path: Path) -> str:
    """Return a hash that changes with the weights, wherever they are.

    Raises:
        InputError: If external data are missing, too short, or outside the folder.
    """
    tensors = (tensor for tensor, _ in tensors_of(model) if is_external(tensor))
    others = sorted({external_place(tensor, path.parent)[0] for tensor in tensors})
    if not others:
        return sha256(path)
    return hashlib.sha256("".join(map(sha256, (path, *others))).encode()).hexdigest()


def embed_weights(model: ModelProto, folder: Path | None) -> None:
    """Read a model's external data into the model itself.

    Raises:
        InputError: If they are missing, too short, or outside the folder.
    """
    for tensor, _ in tensors_of(model):
        if is_external(tensor):
            tensor.CopyFrom(embedded(tensor, folder))


def embed_sizes(model: ModelProto, folder: Path) -> bool:
    """Read what is small of a model's external data into the model: sizes may be among it.

    ONNX Runtime takes no model whose sizes are elsewhere ("Cannot parse data from external
    tensors"); `onnx.save_model` with ``size_threshold=0`` writes such files.

    Returns:
        Whether there was any.

    Raises:
        InputError: If they are missing, too short, or outside the folder.
    """
    small = [
        tensor
        for tensor, _ in tensors_of(model)
        if is_external(tensor) and size_in_bytes(tensor) <= INLINE
    ]
    for tensor in small:
        tensor.CopyFrom(embedded(tensor, folder))
    return bool(small)


def _check_stored(model: ModelProto, path: Path) -> None:
    """Refuse tensors that hold more or less than they say: their values are about to be read.

    Raises:
        InputError: With the first of them.
    """
    from onnx import numpy_helper

    for tensor, _ in tensors_of(model):
        try:
            numpy_helper.to_array(tensor)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(
                f"{path} is damaged: tensor {tensor.name!r} cannot be read: {error}",
                "Copy it again, or export it again from where it was made.",
                code="damaged-file",
            ) from error


def _instead(refusal: str) -> str:
    """Say what to do about a file that does not run."""
    if _NO_KERNEL in refusal:
        return (
            "ONNX Runtime computes it in other types only: export it anew in float32, or of ONNX's "
            "own operators."
        )
    return (
        "Export it anew, of ONNX's own operators: what the message names is not as ONNX defines it."
    )


def open_onnx(path: str | Path, *, dequantize: bool = False) -> OnnxFile:
    """Read an .onnx file that is valid and that ONNX Runtime runs.

    Args:
        path: The file.
        dequantize: Whether a quantized or half-precision graph becomes one of float32, with its
            weights in memory.

    Raises:
        InputError: If it is not; in one sentence, before any work is done.
        MissingExtra: If onnx or ONNX Runtime is not installed.
    """
    from .checking import Refused, check_runs
    from .dequantize import dequantized, is_quantized
    from .form import mend_form
    from .half import in_float32, is_half
    from .sizes import check_sizes
    from .training import refuse_training

    path = Path(path)
    model = load(path)
    digest = _digest(model, path)
    sizes_moved = embed_sizes(model, path.parent)
    quantized, half = is_quantized(model), is_half(model)
    if dequantize and (quantized or half):
        embed_weights(model, path.parent)
        _check_stored(model, path)
        mend_form(model, path.parent)
        if half:
            model = in_float32(model)
        if quantized:
            model = dequantized(model, path.parent)
    repairs = mend_form(model, path.parent)
    try:
        check_runs(model, path.parent)
    except Refused as error:
        raise InputError(
            f"{path} does not run as it is; {error}",
            "Read its float form: add --dequantize to inspect, plan, rewrite, optimize, finetune, "
            "export or import, or of a reference to verify or evaluate, as in "
            f"dsconvert export {shlex.quote(str(path))} --dequantize"
            if quantized and not dequantize
            else _instead(str(error)),
            code="does-not-run",
        ) from error
    check_sizes(model, path.parent, str(path))
    refuse_training(model, path.parent, str(path))
    floats = dequantize and (quantized or half)
    return OnnxFile(model, path, digest, repairs, floats, sizes_moved)
