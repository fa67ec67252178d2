"""An ONNX graph with new weights, put in place after it was seen to give what it should."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsconvert.converter.core.errors import require
from dsconvert.converter.core.files import check_writable, sha256
from dsconvert.converter.core.predictor import Array
from dsconvert.converter.onnx_graph.save import all_tensors, data_path, save

from .export import tools
from .runtimes import open_runtime
from .types import Artifact, Quantization, VerifiedOn
from .verify import verify

_INLINE = 1024
"""Bytes up to which a tensor stays in the model's own file where there are external data."""


def place_onnx(
    model: Any,
    path: str | Path,
    *,
    names: Sequence[str],
    inputs: Sequence[Array],
    references: Sequence[Array],
    verified_on: VerifiedOn,
    external: bool = False,
    overwrite: bool = False,
    source_sha256: str = "",
    notes: tuple[str, ...] = (),
) -> Artifact:
    """Write an ONNX model, run it in ONNX Runtime, and let it take its place if it passes.

    Args:
        model: An `onnx.ModelProto` with all weights in it; its tensors may be moved out of it.
        path: The file to write.
        names: The names of the outputs, in the order of the references.
        inputs: One array per input, (n, ...), as the ONNX model takes it.
        references: What the outputs should be, as the ONNX model gives them.
        verified_on: What the inputs are.
        external: Whether large weights go into a second file, ``path`` + ".data".
        overwrite: Whether existing files may be replaced.
        source_sha256: The hash of the model file that the weights are from.
        notes: What the user of the file should know.

    Raises:
        InputError: If a file exists or cannot be written.
        GateFailed: If the outputs differ too much; the threshold is in `verify`.
    """
    onnx = require("onnx", "onnx", "to write .onnx files")
    path = Path(path)
    check_writable(path, overwrite=overwrite)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as name:
        folder = Path(name)
        trial = folder / path.name
        if external:
            onnx.save_model(
                model,
                trial,
                save_as_external_data=True,
                location=data_path(trial).name,
                size_threshold=_INLINE,
            )
            model = onnx.load_model(trial, load_external_data=False)
        else:
            save(model, None, trial, overwrite=False)
        stored: Quantization = "float16" if _holds_float16(model) else "none"
        fidelity = verify(trial, names, references, inputs, stored, verified_on)
        runtime = open_runtime(trial)
        save(model, folder, path, overwrite=overwrite)
    written = [path, *([data_path(path)] if external else [])]
    return Artifact(
        path=str(path),
        format="onnx",
        quantization=stored,
        size_bytes=sum(file.stat().st_size for file in written),
        sha256=sha256(path),
        source_sha256=source_sha256,
        tools=tools("keras", "onnx", "onnxruntime", "dsconvert"),
        inputs=runtime.inputs,
        outputs=runtime.outputs,
        fidelity=fidelity,
        verified_on=verified_on,
        samples=len(inputs[0]),
        notes=notes,
    )


def _holds_float16(model: Any) -> bool:
    """Whether the file rounds weights to half precision: float16 or bfloat16."""
    return any(tensor.data_type in (10, 16) for tensor in all_tensors(model.graph))
