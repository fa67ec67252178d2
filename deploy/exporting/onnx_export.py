"""Keras to ONNX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.files import is_unwritable, refuse_without_room
from dsconvert.base.quiet import captured
from dsconvert.formats.onnx.messages import assign
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.repeatable import make_repeatable
from dsconvert.formats.onnx.save import save
from dsconvert.formats.onnx.session import session

from ..runtimes.session import first_line
from .equal_forms import equal_forms
from .free_sizes import FreeSizesRefused
from .in_neither_format import what_helps
from .keras_source import KerasSource
from .layer_paths import layers_in_paths, told_integers, told_layers
from .onnx_operators import HANDLERS, kept_reshapes, pad_outputs, round_scales_up

OPSET = 17
"""The newest in which global average pooling stays one node (18 makes Transpose, ReduceMean)."""


def convert(source: KerasSource, path: Path) -> None:
    """Write the model as an .onnx file, float32, with the model's own names and a free batch.

    tf2onnx leaves the batch normalisation behind a depthwise convolution as a multiplication
    and an addition; ONNX Runtime's basic optimisation, which keeps to standard operators, folds
    them into the convolution.

    Args:
        source: The model. It must have been called.
        path: Where to write.

    Raises:
        InputError: If an operation of the model has no ONNX counterpart.
    """
    require("onnx", "all", "to write .onnx files")
    require("tf2onnx", "all", "to write .onnx files")
    raw = path.with_suffix(".raw.onnx")
    with captured():
        try:
            save(_traced(source), None, raw, overwrite=True, external=False, check=False)
            session(raw, optimization="basic", optimized=path)
        except Exception as error:  # tf2onnx raises ValueError, KeyError and others
            if is_unwritable(error):
                raise
            if raw.exists():  # ONNX Runtime writes another as large
                refuse_without_room([path.parent], raw.stat().st_size)
            if source.free_inputs:
                raise FreeSizesRefused(
                    "ONNX", source.free_inputs, _reason(error, source)
                ) from error
            integers, other = told_integers(source.model, "onnx")
            told = integers or _reason(error, source)
            raise InputError(
                f"ONNX cannot hold this model: {told}",
                other or what_helps(told, "Replace what is named, or export to .tflite."),
                code="not-convertible",
            ) from error
    model = load(path)
    _name_batch(model.graph)
    _reorder(model.graph.input, [info.name for info in source.inputs])
    _reorder(model.graph.output, source.output_names)
    make_repeatable(model)
    used = {node.domain for node in model.graph.node}
    assign(model.opset_import, [opset for opset in model.opset_import if opset.domain in used])
    save(model, None, path, overwrite=True)


def _traced(source: KerasSource) -> Any:
    """Trace the model and convert the graph.

    Keras' own export loses constants that a layer computed when it was built, such as the means of
    Normalization: tf2onnx takes them for inputs. It also leaves convolutions of groups as calls,
    which Keras marks to be compiled; here they are inlined as the others.
    """
    import tensorflow as tf
    import tf2onnx
    from tf2onnx.tf_loader import convert_variables_to_constants_v2

    specs = [tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in source.model.inputs]

    @tf.function  # type: ignore[untyped-decorator]
    def run(*inputs: Any) -> list[Any]:
        outputs = source.model(list(inputs), training=False)
        return [outputs[name] for name in source.output_names]

    with equal_forms(source.model, "onnx"):
        traced = run.get_concrete_function(*specs)
    taken = [tensor.name for tensor in traced.inputs[: len(specs)]]
    given = [tensor.name for tensor in traced.outputs]
    frozen = convert_variables_to_constants_v2(
        traced, lower_control_flow=False, aggressive_inlining=True
    )
    graph = frozen.graph.as_graph_def(add_shapes=True)
    parts = [graph.node, *(function.node_def for function in graph.library.function)]
    for holder in (*graph.library.function, *(node for part in parts for node in part)):
        for mark in ("_XlaMustCompile", "_noinline"):
            holder.attr.pop(mark, None)
    names = [info.name for info in source.inputs]
    renamed = dict(zip([*taken, *given], [*names, *source.output_names], strict=True))
    with kept_reshapes():
        model, _ = tf2onnx.convert.from_graph_def(
            graph,
            input_names=taken,
            output_names=given,
            opset=OPSET,
            custom_op_handlers=HANDLERS,
            tensors_to_rename=renamed,
        )
    round_scales_up(model)
    pad_outputs(model)
    return model


def _reason(error: Exception, source: KerasSource) -> str:
    """Name what cannot be converted, and its layer; tf2onnx writes what it does not know."""
    unknown = re.search(r"No Op registered for (\w+)", str(error))
    if not unknown:
        return first_line(error)
    paths = re.findall(r'In Node, \("([^"]+)"', str(error))
    return f"it has no operation {unknown[1]}{told_layers(layers_in_paths(paths, source.model))}."


def _reorder(values: Any, names: Sequence[str]) -> None:
    """Put graph inputs or outputs in the order of these names."""
    by_name = {value.name: value for value in values}
    assign(values, [by_name[name] for name in names])


def _name_batch(graph: Any) -> None:
    """Call the free first axis of every input and output the same."""
    for value in (*graph.input, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if sizes and not sizes[0].HasField("dim_value"):
            sizes[0].dim_param = "batch"
