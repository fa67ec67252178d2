"""ONNX to Keras, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsconvert.base.errors import DsconvertError, InputError, require
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent
from dsconvert.formats.onnx.composites import composed
from dsconvert.formats.onnx.contrib import spelled_out
from dsconvert.formats.onnx.functions import inlined, spelled_by_onnx
from dsconvert.formats.onnx.loops import without_control_flow
from dsconvert.formats.onnx.messages import copied, sha256_of
from dsconvert.formats.onnx.open import embed_weights, open_onnx
from dsconvert.formats.onnx.sequences import without_sequences
from dsconvert.formats.onnx.training import refuse_training

from . import weights
from .batch import check_each_sample, check_kept, fixed_batch, free_batch
from .drawing import ConvertedGraph, check_supported, convert_graph, known_operators
from .graph import Graph, read_graph
from .probe import ProbedValues, probe
from .values import Order, common_shape
from .verify import check_given, compare
from .weights import Binding


@dataclass(frozen=True)
class Imported:
    """An ONNX model as a Keras model of stock layers that gives the same outputs.

    Attributes:
        model: The functional `keras.Model`. Images are NHWC in it. One input or output is a tensor,
            several are lists in the order of the graph.
        source: The original, a `ModelProto` with its weights in memory and its functions inlined.
        path: The file it came from, or None.
        sha256: The file's hash, or that of the serialised model.
        notes: What the user should know, in sentences.
        input_names: The inputs' names in the ONNX graph.
        output_names: The outputs' names in the ONNX graph.
        input_axes: For each input the ONNX axis that each Keras axis holds: (0, 2, 3, 1) for an
            NCHW image. ``np.transpose(onnx_array, axes)`` gives what Keras takes.
        output_axes: The same for the outputs.
    """

    model: Any
    source: Any
    path: Path | None
    sha256: str
    notes: tuple[str, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    input_axes: tuple[Order, ...]
    output_axes: tuple[Order, ...]
    _bindings: tuple[Binding, ...] = field(repr=False)
    _folded: dict[str, Array] = field(repr=False)

    def write_back(self, model: Any = None) -> Any:
        """Return the original ONNX graph with the values that the Keras model's weights have now.

        Nodes, names, layout, opset and metadata stay; a weight that was not changed stays as it
        is, bit by bit. Values are stored in the type of the original. An initialiser that several
        nodes share is split where their layers' values have come to differ.

        Args:
            model: The model to read: `model` itself if None, or one that was loaded from a file
                saved from it.

        Returns:
            A `ModelProto` with all weights in it.

        Raises:
            InputError: If the model lacks a layer of the import.
        """
        return weights.write_back(
            self.source, self._bindings, self.model if model is None else model, self._folded
        )


def import_onnx(
    model: str | Path | Any,
    *,
    inputs: Sequence[Array] | None = None,
    seed: int = 0,
    progress: Progress = silent,
    called: str = "",
) -> Imported:
    """Draw an ONNX model in Keras, in NHWC, and compare its outputs with ONNX Runtime's.

    The Keras model consists of stock layers and `keras.ops`: it is saved and loaded without
    dsconvert, its weights train, and it converts to TFLite.

    Args:
        model: A path, or an `onnx.ModelProto`.
        inputs: Real inputs, one array per input, in the ONNX layout: the outputs are compared on
            them too, besides random ones.
        seed: Of the random inputs.
        progress: Told of two steps: run the original, convert_graph and compare.
        called: What the progress calls it; by default its file, or the graph's name.

    Raises:
        InputError: If the file cannot be read, ONNX Runtime refuses it, or it has operators that
            have no counterpart; all of those are named at once.
        GateFailed: If an output differs by more than 1e-4 of its largest value (1e-2 where the
            file stores float16).
        MissingExtra: If keras, onnx or onnxruntime is not installed.
    """
    for package in ("keras", "onnx", "onnxruntime"):
        require(package, "all", "to import .onnx files into Keras")
    source, path, sha, repairs = _open(model)
    called = called or (path.name if path else source.graph.name or "model")
    with progress(f"Importing {called}", 2) as advance:
        source = spelled_out(inlined(source))
        embed_weights(source, path.parent if path else Path.cwd())
        source = composed(without_sequences(without_control_flow(source)))
        source = composed(spelled_by_onnx(source, known_operators()))
        refuse_training(source, path.parent if path else None, str(path or source.graph.name))
        graph = read_graph(source)
        check_supported(graph)
        if inputs is not None:
            check_given(graph, inputs)
        facts = probe(graph, inputs, seed)
        advance()
        try:
            drawn, notes = _draw(graph, facts, inputs, seed)
        except InputError:
            if inputs is None or not _free_sizes(facts):
                raise
            facts = probe(graph, inputs, seed, pinned=True)
            drawn, notes = _draw(graph, facts, inputs, seed)
        notes = (*repairs, *_pinned(graph, facts), *notes)
        advance()
    return Imported(
        model=drawn.model,
        source=source,
        path=path,
        sha256=sha,
        notes=(*notes, *drawn.notes),
        input_names=tuple(info.name for info in graph.inputs),
        output_names=graph.outputs,
        input_axes=drawn.input_axes,
        output_axes=drawn.output_axes,
        _bindings=drawn.bindings,
        _folded={b.value: facts.constants[b.value][0] for b in drawn.bindings},
    )


def _free_sizes(facts: ProbedValues) -> bool:
    """Tell whether any size but the batch is free."""
    return any(None in common_shape(shapes)[1:] for shapes in facts.inputs.values())


def _pinned(graph: Graph, facts: ProbedValues) -> tuple[str, ...]:
    """Return what to say of sizes that the model calls free and that are not."""
    notes = []
    for info in graph.inputs:
        for axis, size in enumerate(common_shape(facts.inputs[info.name])):
            if axis > 0 and size is not None and not isinstance(info.shape[axis], int):
                notes.append(
                    f"axis {axis} of the input {info.name!r} is fixed to {size}, as in the real "
                    "inputs: the model does not run, or cannot be drawn, with that size free"
                )
    return tuple(notes)


def _draw(
    graph: Graph, facts: ProbedValues, inputs: Sequence[Array] | None, seed: int
) -> tuple[ConvertedGraph, tuple[str, ...]]:
    """Return the graph in Keras, compared; with a free batch where that can be had."""
    notes: tuple[str, ...] = ()
    batch = fixed_batch(graph, facts)
    if batch is not None:
        try:
            freed = read_graph(free_batch(graph, facts, batch))
            check_each_sample(graph, freed, facts, seed)
            freed_facts = probe(freed, None, seed)
            if fixed_batch(freed, freed_facts) is not None:
                raise InputError("it does not run on a larger one", code="samples-not-independent")
            check_kept(freed, freed_facts)
            drawn = convert_graph(freed, freed_facts)
            compare(freed, freed_facts, drawn, inputs, seed)
        except DsconvertError as error:
            notes = (f"the batch of {batch} stays fixed: {error.message}",)
        else:
            return drawn, notes
    drawn = convert_graph(graph, facts)
    compare(graph, facts, drawn, inputs, seed)
    return drawn, notes


def _open(model: Any) -> tuple[Any, Path | None, str, tuple[str, ...]]:
    onnx = require("onnx", "onnx", "to read .onnx files")
    if isinstance(model, onnx.ModelProto):
        return copied(model), None, sha256_of(model), ()
    if not isinstance(model, str | Path):
        raise InputError(
            f"import_onnx takes a path or an onnx.ModelProto, got {type(model).__name__}.",
            code="not-a-model",
        )
    file = open_onnx(model)
    return file.model, file.path, file.sha256, file.repairs
