"""The nodes that stand for one Conv, and Adds between the branches of its block.

A BatchNormalization and a Relu inside a block stay nodes, and are not folded into a bias, so that
fine-tuning finds a norm whose statistics can follow the weights; every runtime folds it when it
loads the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.graph import attributes
from dsconvert.formats.onnx.tensors import tensor_from

from ...core.types import Depthwise, Factorization, Float, NormActivation, Pointwise

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

_INFERS = 7
"""The first opset whose BatchNormalization is one for inference."""


def block_nodes(
    node: NodeProto,
    name: str,
    output: str,
    factors: Factorization,
    bias: Float | None,
    data_type: int,
    opset: int,
    fresh: Callable[[str], str],
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return what a Conv is replaced by.

    Args:
        node: The Conv.
        name: What the new nodes' names begin with.
        output: The value that the last new node makes.
        factors: The block; it is scaled to what follows already.
        bias: (N,), or None for none.
        data_type: The element type of the new weights.
        opset: The model's version of ONNX's operators.
        fresh: Makes a name that the model does not use yet.

    Returns:
        The nodes in an order in which they can run, and their weights.

    Raises:
        InputError: If a BatchNormalization is to be made in an opset in which it trains.
    """
    writer = _Writer(node, name, data_type, opset, fresh)
    branches = factors.branches()
    total = ""
    for number, branch in enumerate(branches, 1):
        last = number == len(branches)
        suffix = "" if len(branches) == 1 else str(number)
        target = output if len(branches) == 1 else fresh(f"{name}_pair{suffix}")
        value = str(node.input[0])
        for layer in branch[:-1]:
            value = writer.layer(layer, suffix, value)
        writer.convolution(branch[-1], suffix, value, target, bias if last else None)
        if number > 1:
            total = writer.add(target, total, suffix, output if last else None)
        else:
            total = target
    return writer.nodes, writer.weights


class _Writer:
    """The nodes and weights of one block in the making."""

    def __init__(
        self,
        node: NodeProto,
        name: str,
        data_type: int,
        opset: int,
        fresh: Callable[[str], str],
    ) -> None:
        self.node, self.name, self.data_type, self.opset = node, name, data_type, opset
        self.fresh = fresh
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.geometry = {
            name: value
            for name, value in attributes(node).items()
            if name in ("auto_pad", "dilations", "pads", "strides")
        }

    def layer(self, layer: object, suffix: str, source: str) -> str:
        """Write one layer that is not the last, and give the value that it makes."""
        if isinstance(layer, NormActivation):
            return self._norm_activation(layer, suffix, source)
        assert isinstance(layer, Depthwise | Pointwise), "norms are written above"
        target = self.fresh(f"{self.name}_{layer.ending}{suffix}_out")
        self.convolution(layer, suffix, source, target, None)
        return target

    def convolution(
        self, layer: object, suffix: str, source: str, target: str, bias: Float | None
    ) -> None:
        """Write a depthwise or a 1×1 Conv."""
        assert isinstance(layer, Depthwise | Pointwise), "a branch ends with a convolution"
        kind = f"{layer.ending}{suffix}"
        if isinstance(layer, Depthwise):
            groups, geometry = layer.kernel.shape[2], self.geometry
            kernel = layer.kernel.transpose(2, 3, 0, 1)  # (G, m, kh, kw)
            kernel = kernel.reshape(-1, 1, *kernel.shape[2:])
        else:
            groups, geometry = 1, {}
            kernel = layer.kernel.T[:, :, None, None]  # (N, C, 1, 1)
        inputs = [source, self._weight(kernel, f"{kind}_weight")]
        if bias is not None:
            inputs.append(self._weight(bias, f"{kind}_bias"))
        shape = kernel.shape[2:]
        self._node("Conv", inputs, target, kind, kernel_shape=shape, group=groups, **geometry)

    def add(self, target: str, total: str, suffix: str, output: str | None) -> str:
        """Write the sum of one branch and those before it."""
        value = output or self.fresh(f"{self.name}_sum{suffix}")
        self._node("Add", [target, total], value, f"add{suffix}")
        return value

    def _norm_activation(self, layer: NormActivation, suffix: str, source: str) -> str:
        if self.opset < _INFERS:
            raise InputError(
                f"{self.name}: the model is of opset {self.opset}, whose BatchNormalization no "
                "runtime runs.",
                f"Bring it to opset {_INFERS} or later with onnx.version_converter, or use --block "
                "linear.",
                code="opset-too-old",
            )
        parts = {
            "scale": layer.gamma,
            "offset": layer.beta,
            "mean": layer.mean,
            "variance": layer.variance,
        }
        names = [self._weight(array, f"bn{suffix}_{part}") for part, array in parts.items()]
        normed, made = (self.fresh(f"{self.name}_{kind}{suffix}_out") for kind in ("bn", "relu"))
        inputs = [source, *names]
        self._node("BatchNormalization", inputs, normed, f"bn{suffix}", epsilon=layer.epsilon)
        self._node("Relu", [normed], made, f"relu{suffix}")
        return made

    def _weight(self, array: Array, ending: str) -> str:
        name = self.fresh(f"{self.name}_{ending}")
        self.weights.append(tensor_from(array, name, self.data_type))
        return name

    def _node(
        self, kind: str, inputs: list[str], target: str, ending: str, **attributes: Any
    ) -> None:
        from onnx import helper

        self.nodes.append(
            helper.make_node(
                kind,
                inputs,
                [target],
                self.fresh(f"{self.name}_{ending}"),
                domain=self.node.domain,
                **attributes,
            )
        )
