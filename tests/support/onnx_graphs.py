"""Small ONNX graphs around one operator, and their run in ONNX Runtime and after the import."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from backend_cases import call, outputs
from onnx import helper, numpy_helper

Operand = str | np.ndarray | None


@dataclass(frozen=True)
class Op:
    """An operator and its inputs.

    Attributes:
        type: Its name.
        inputs: "x", "y" and "z" are what convolutions gave, each of another weight; an array is an
            initialiser, None an input left out.
        attributes: Its attributes.
        outputs: How many outputs it has.
        opset: The opset that it is of.
    """

    type: str
    inputs: tuple[Operand, ...] = ("x",)
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 18


def between_convolutions(
    ops: Sequence[Op], shape: tuple[int, ...] = (2, 3, 6, 8), channels: int = 4, seed: int = 0
) -> onnx.ModelProto:
    """A graph with convolutions before and after each of ``ops``, which stand side by side.

    What goes into an operator is therefore stored the way convolutions store it, and what comes
    out of it must fit one.

    Args:
        ops: The operators, all of the same opset.
        shape: The image's, (batch, channels, *size).
        channels: Of the convolutions in front.
        seed: For the weights.
    """
    rng = np.random.default_rng(seed)
    nodes, constants = [], []

    def constant(value: np.ndarray) -> str:
        name = f"c{len(constants)}"
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def convolution(source: str, into: str, sizes: tuple[int, int], rank: int) -> None:
        kernel = rng.normal(size=(sizes[1], sizes[0], *[1] * (rank - 2))).astype(np.float32)
        bias = rng.normal(size=sizes[1]).astype(np.float32)
        node = helper.make_node("Conv", [source, constant(kernel), constant(bias)], [into], into)
        nodes.append(node)

    sources = [i for op in ops for i in op.inputs if isinstance(i, str)]
    for name in sorted(set(sources)):
        convolution("image", name, (shape[1], channels), len(shape))
    results = []
    for n, op in enumerate(ops):
        names = ["" if i is None else i if isinstance(i, str) else constant(i) for i in op.inputs]
        outs = [f"r{n}_{k}" for k in range(op.outputs)]
        nodes.append(helper.make_node(op.type, names, outs, f"op{n}", **op.attributes))
        results += outs

    opset = ops[0].opset
    inner = run(_model(nodes, constants, shape, results, opset), [np.zeros(shape, np.float32)])
    for name, value in zip(list(results), inner, strict=True):
        if value.dtype == np.float32 and value.ndim == len(shape) and value.size:
            results[results.index(name)] = f"{name}_conv"
            convolution(name, f"{name}_conv", (value.shape[1], 5), value.ndim)
    return _model(nodes, constants, shape, results, opset)


def _model(
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    shape: tuple[int, ...],
    results: list[str],
    opset: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name=name) for name in results],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    del model.graph.output[:]
    inferred = onnx.shape_inference.infer_shapes(
        _with_outputs(model, [onnx.ValueInfoProto(name=name) for name in results])
    )
    return _with_outputs(model, list(inferred.graph.output))


def with_free_sizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose image may be of any size, and any number of them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    sizes = copy.graph.input[0].type.tensor_type.shape.dim
    for axis, name in [(0, "batch"), (2, "height"), (3, "width")]:
        sizes[axis].dim_param = name
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=o.name) for o in model.graph.output)
    return copy


def _with_outputs(model: onnx.ModelProto, values: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(values)
    return copy


def run(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime makes of it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def assert_same(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> Any:
    """Import a model and hold it against ONNX Runtime.

    Returns:
        What `import_onnx` gave.
    """
    from dsconvert.models.onnx_import import import_onnx

    imported = import_onnx(model)
    _assert_close(model, outputs(imported, inputs), run(model, inputs))
    return imported


def assert_same_in_tflite(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> None:
    """The same for the model as a TFLite file of builtin operators."""
    from dsconvert.models.onnx_import import import_onnx

    _assert_close(model, in_tflite(import_onnx(model), inputs), run(model, inputs))


def _assert_close(
    model: onnx.ModelProto, got: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> None:
    for n, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
        where = f"output {model.graph.output[n].name}"
        assert mine.shape == theirs.shape, where
        if theirs.dtype.kind != "f":
            np.testing.assert_array_equal(mine, theirs, where)
            continue
        # Sums of a few hundred float32 products: 1e-5 of the largest value.
        finite = np.abs(theirs[np.isfinite(theirs)])
        atol = 1e-5 * finite.max(initial=1e-3)
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=atol, err_msg=where)


def in_tflite(imported: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the imported model gives as a TFLite file of builtin operators, saved and loaded first.

    Returns:
        Its outputs in ONNX's axis order.
    """
    import keras
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    names = [f"output_{n}" for n in range(len(imported.output_names))]
    fed = [np.transpose(x, axes) for x, axes in zip(inputs, imported.input_axes, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        imported.model.save(f"{folder}/model.keras")
        model = keras.saving.load_model(f"{folder}/model.keras")
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint(
            "serve",
            lambda *tensors: dict(zip(names, call(model, tensors), strict=True)),
            [tf.TensorSpec(x.shape, x.dtype, f"input_{n}") for n, x in enumerate(fed)],
        )
        archive.write_out(f"{folder}/saved", verbose=False)
        content = tf.lite.TFLiteConverter.from_saved_model(f"{folder}/saved").convert()
    interpreter = Interpreter(model_content=content)
    given = interpreter.get_signature_runner()(
        **{f"input_{n}": array for n, array in enumerate(fed)}
    )
    return [
        np.transpose(given[name], np.argsort(axes))
        for name, axes in zip(names, imported.output_axes, strict=True)
    ]


def image(model: onnx.ModelProto, seed: int = 1) -> np.ndarray:
    """An input for a graph of `between_convolutions`."""
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).normal(size=dims).astype(np.float32)
