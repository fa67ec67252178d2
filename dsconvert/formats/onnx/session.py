"""Sessions of ONNX Runtime on the CPU. The only file that makes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dsconvert.base.errors import require

from .messages import in_bytes

if TYPE_CHECKING:
    from onnx import ModelProto

PROVIDERS = ("CPUExecutionProvider",)
"""What runs every node: a session with others would fall back to them without a word."""

Optimization = Literal["all", "basic", "none"]
"""How far ONNX Runtime may rewrite a graph: for this machine, within standard operators, or not."""
_LEVELS = {"all": "ORT_ENABLE_ALL", "basic": "ORT_ENABLE_BASIC", "none": "ORT_DISABLE_ALL"}


def session(
    model: ModelProto | bytes | str | Path,
    folder: Path | None = None,
    *,
    optimization: Optimization = "all",
    threads: int | None = None,
    optimized: Path | None = None,
) -> Any:
    """Open a model in ONNX Runtime on the CPU, with logging disabled.

    Args:
        model: The model, its bytes, or the path of its file.
        folder: Where the external data of a model without a file are.
        optimization: How far ONNX Runtime may rewrite the graph.
        threads: Of each node, with nodes one after the other; None for ONNX Runtime's choice.
        optimized: Where to write the graph as ONNX Runtime has rewritten it.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        MissingExtra: If ONNX Runtime is not installed.
        Exception: Whatever ONNX Runtime raises for a model that it does not take; its exceptions
            share no base class.
    """
    ort = require("onnxruntime", "onnx", "to run .onnx files")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what matters is raised
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[optimization])
    if optimization == "none":
        options.add_session_config_entry("session.disable_prepacking", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    # Idle workers would spin into the time of whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    given: str | bytes
    if isinstance(model, str | Path):
        given = str(model)
    else:
        given = model if isinstance(model, bytes) else in_bytes(model)
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(folder)
            )
    return ort.InferenceSession(given, options, providers=list(PROVIDERS))


def sentence(error: Exception) -> str:
    """Return the part of a message that says what is wrong, on one line."""
    text = " ".join(str(error).split())
    for noise in ("Load model from", "Fatal error: ", "failed:"):
        _, _, after = text.rpartition(noise)
        text = after if noise != "Load model from" or "failed:" not in text else text
    return text[:300].strip() or type(error).__name__
