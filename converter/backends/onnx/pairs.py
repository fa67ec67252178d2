"""The nodes that stand for one Conv: depthwise and pointwise Convs, and Adds between pairs.

T pairs are T branches and T − 1 Adds, unless a measurement has said otherwise, and not a depthwise
Conv with T outputs per channel: ONNX Runtime's fast depthwise kernels need group = channels =
outputs. The bias sits on the last one.

A MobileNet block has a BatchNormalization and a Relu between the two. They stay nodes, and are not
folded into a bias, so that fine-tuning finds a norm whose statistics can follow the weights; every
runtime folds it when it loads the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.graph import attributes
from dsconvert.formats.onnx.tensors import tensor_from

from ...core.fitting.lowering import branches
from ...core.types import Factorization, Float, NormActivation

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto


_INFERS = 7
"""The first opset whose BatchNormalization is one for inference."""


def pair_nodes(
    node: NodeProto,
    name: str,
    output: str,
    factors: Factorization,
    bias: Float | None,
    data_type: int,
    opset: int,
    fresh: Callable[[str], str],
) -> tuple[list[NodeProto], list[TensorProto]]:
    """What a Conv is replaced by.

    Args:
        node: The Conv.
        name: What the new nodes' names begin with.
        output: The value that the last new node makes.
        factors: The pairs; they are scaled to what follows already.
        bias: (N,), or None for none.
        data_type: The element type of the new weights.
        opset: The model's version of ONNX's operators.
        fresh: Makes a name that the model does not use yet.

    Returns:
        The nodes in an order in which they can run, and their weights.

    Raises:
        InputError: If a MobileNet block is to be made in an opset whose BatchNormalization trains.
    """
    from onnx import helper

    if factors.between is not None and opset < _INFERS:
        raise InputError(
            f"{name}: the model is of opset {opset}, whose BatchNormalization no runtime runs.",
            f"Bring it to opset {_INFERS} or later with onnx.version_converter, or use --block "
            "linear.",
        )

    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    geometry = {
        name: value
        for name, value in attributes(node).items()
        if name in ("auto_pad", "dilations", "pads", "strides")
    }

    def weight(array: Array, ending: str) -> str:
        weights.append(tensor_from(array, fresh(f"{name}_{ending}"), data_type))
        return str(weights[-1].name)

    def convolution(kind: str, source: str, kernel: Array, target: str, last: bool) -> None:
        depthwise = kind.startswith("dw")
        inputs = [source, weight(kernel, f"{kind}_weight")]
        if last and bias is not None:
            inputs.append(weight(bias, f"{kind}_bias"))
        nodes.append(
            helper.make_node(
                "Conv",
                inputs,
                [target],
                fresh(f"{name}_{kind}"),
                domain=node.domain,
                kernel_shape=kernel.shape[2:],
                group=groups if depthwise else 1,
                **(geometry if depthwise else {}),
            )
        )

    def normalized(number: str, source: str, between: NormActivation) -> str:
        parts = {
            "scale": between.gamma,
            "offset": between.beta,
            "mean": between.mean,
            "variance": between.variance,
        }
        names = [weight(array, f"bn{number}_{part}") for part, array in parts.items()]
        outputs = [fresh(f"{name}_{kind}{number}_out") for kind in ("bn", "relu")]
        called = [fresh(f"{name}_{kind}{number}") for kind in ("bn", "relu")]
        nodes.append(
            helper.make_node(
                "BatchNormalization",
                [source, *names],
                outputs[:1],
                called[0],
                domain=node.domain,
                epsilon=between.epsilon,
            )
        )
        nodes.append(
            helper.make_node("Relu", outputs[:1], outputs[1:], called[1], domain=node.domain)
        )
        return outputs[1]

    groups = factors.depthwise.shape[3]
    summed = branches(factors)
    total = ""
    for t, branch in enumerate(summed):
        number = "" if len(summed) == 1 else str(t + 1)
        last = t == len(summed) - 1
        target = output if len(summed) == 1 else fresh(f"{name}_pair{number}")
        depthwise = branch.depthwise.transpose(2, 3, 0, 1)  # (G, m, kh, kw)
        depthwise = depthwise.reshape(-1, 1, *depthwise.shape[2:])
        pointwise = branch.pointwise.T[:, :, None, None]  # (N, C·m, 1, 1)
        middle = fresh(f"{name}_between{number}")
        if factors.order == "depthwise-first":
            convolution(f"dw{number}", node.input[0], depthwise, middle, False)
            if branch.between is not None:
                middle = normalized(number, middle, branch.between)
            convolution(f"pw{number}", middle, pointwise, target, last)
        else:
            convolution(f"pw{number}", node.input[0], pointwise, middle, False)
            convolution(f"dw{number}", middle, depthwise, target, last)
        if t > 0:
            value = output if last else fresh(f"{name}_sum{number}")
            called = fresh(f"{name}_add{number}")
            nodes.append(helper.make_node("Add", [target, total], [value], called))
            target = value
        total = target
    return nodes, weights


def scaled(factors: Factorization, gain: Float) -> Factorization:
    """The pairs of the kernel W·gain, where gain (N,) scales the outputs."""
    if factors.order == "depthwise-first":
        return replace(factors, pointwise=factors.pointwise * gain)
    return replace(factors, depthwise=np.asarray(factors.depthwise * gain))
