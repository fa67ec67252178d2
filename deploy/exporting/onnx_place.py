"""An ONNX graph with new weights, put in place after it was seen to give what it should."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from dsconvert.base.files import check_writable, sha256
from dsconvert.base.output_fidelity import warnings
from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.half import is_half
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.save import save
from dsconvert.formats.quantization import Quantization, VerifiedOn

from ..runtimes.registry import open_runtime
from ..runtimes.samples import samples_of
from ..verification.gate import judge, refused
from . import rejected
from .metadata import stamp_onnx
from .records import Artifact, Metadata
from .source import tools


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
        model: An `onnx.ModelProto` with all weights in it.
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
        GateFailed: If the outputs differ too much; the threshold is in `verify`. The file is then
            kept under another name, with its report.
    """
    path = Path(path)
    check_writable(path, overwrite=overwrite)
    quantize: Quantization = "float16" if is_half(model) else "none"
    metadata = Metadata(
        tools=tools("keras", "onnx", "onnxruntime", "dsconvert"),
        source_sha256=source_sha256,
        quantization=quantize,
        verified_on=verified_on,
    )
    stamp_onnx(model, metadata)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as name:
        folder = Path(name)
        trial = folder / path.name
        if external:
            save(model, None, trial, overwrite=False, external=True)
            model = load(trial)
        else:
            save(model, None, trial, overwrite=False)
        verdict = judge(trial, names, references, inputs, quantize)
        runtime = open_runtime(trial) if verdict.runs else None
        artifact = Artifact(
            path=str(path),
            format="onnx",
            quantization=quantize,
            size_bytes=sum(file.stat().st_size for file in folder.iterdir()),
            sha256=sha256(trial),
            source_sha256=source_sha256,
            tools=metadata.tools,
            inputs=() if runtime is None else runtime.inputs,
            outputs=() if runtime is None else runtime.outputs,
            fidelity=verdict.fidelity,
            findings=verdict.findings,
            verified_on=verified_on,
            samples=samples_of(inputs),
            failures=verdict.failures,
            notes=(*notes, *warnings(verdict.findings)),
        )
        if verdict.failures:
            error = refused(verdict, path.name, quantize, verified_on)
            stamp_onnx(model, msgspec.structs.replace(metadata, rejected=True))
            save(model, folder, trial, overwrite=True, external=False, check=False)
            error.add_hint(rejected.keep(trial, path, artifact))
            raise error
        size = save(model, folder, path, overwrite=overwrite)
    return msgspec.structs.replace(artifact, sha256=sha256(path), size_bytes=size)
