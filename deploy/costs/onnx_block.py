"""A form as an .onnx file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.errors import require
from dsconvert.base.predictor import Array
from dsconvert.converter.core.planning.cost_model import Activation
from dsconvert.formats.onnx.messages import in_bytes

from .block_variants import INPUT, OUTPUT, Add, Conv, Form, shapes
from .quantized import Scale, quantized_bias, quantized_kernel, scales
from .target import Precision

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

_OPSET, _IR_VERSION = 17, 8


def onnx_block(form: Form, precision: Precision) -> bytes:
    """Write a form as an .onnx file of batch 1, NCHW.

    In int8 it is QDQ as ONNX Runtime's quantizer writes it: activations with a scale per tensor,
    int8 kernels with a scale per output channel, int32 biases, and no Relu or Clip, whose work
    saturation does. Activations are uint8: on x86, ONNX Runtime 1.31 leaves a convolution in float
    that shares an int8 input with another one, as the branches of a sum do.

    Raises:
        MissingExtra: If onnx is not installed.
    """
    onnx = require("onnx", "onnx", "to write .onnx files")
    helper = onnx.helper
    writer = _Quantized(form) if precision == "int8" else _Writer()
    writer.begin()
    for step in form.steps:
        if isinstance(step, Add):
            writer.add(step)
        else:
            writer.convolution(step)
    ends = []
    for name, value in ((INPUT, INPUT), (OUTPUT, writer.output)):
        height, width, channels = shapes(form)[name]
        shape = [1, channels, height, width]
        ends.append(helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, shape))
    graph = helper.make_graph(writer.nodes, "block", ends[:1], ends[1:], writer.constants)
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    return in_bytes(model)


class _Writer:
    """Nodes in float32.

    Attributes:
        output: Name of the graph's output.
    """

    output = OUTPUT

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def begin(self) -> None:
        """What comes before the first operation."""

    def convolution(self, step: Conv) -> None:
        """A Conv and its activation."""
        inputs = [step.source, self.constant(f"{step.target}_kernel", _arranged(step, step.kernel))]
        if step.bias is not None:
            inputs.append(self.constant(f"{step.target}_bias", step.bias))
        self.conv_node(step, inputs, self.before(step))
        self.activate(step.activation, step.target)

    def add(self, step: Add) -> None:
        """An Add and its activation."""
        self.node("Add", list(step.sources), self.before(step))
        self.activate(step.activation, step.target)

    def before(self, step: Conv | Add) -> str:
        """The name of what its activation reads: the target itself where there is none."""
        return step.target if step.activation == "none" else f"{step.target}_linear"

    def activate(self, activation: Activation, target: str) -> None:
        """A Relu or Clip, if any."""
        if activation == "relu":
            self.node("Relu", [f"{target}_linear"], target)
        elif activation == "relu6":
            low, high = np.array(0, np.float32), np.array(6, np.float32)
            limits = [self.constant(f"{target}_{n}", v) for n, v in (("low", low), ("high", high))]
            self.node("Clip", [f"{target}_linear", *limits], target)

    def conv_node(self, step: Conv, inputs: list[str], target: str) -> None:
        """A Conv of the step's geometry."""
        (top, bottom), (left, right) = step.pads
        self.node(
            "Conv",
            inputs,
            target,
            kernel_shape=step.kernel.shape[:2],
            strides=step.strides,
            dilations=step.dilation,
            pads=[top, left, bottom, right],
            group=step.kernel.shape[2] if step.depthwise else 1,
        )

    def node(self, kind: str, inputs: list[str], target: str, **attributes: Any) -> None:
        """One node with one output."""
        from onnx import helper

        name = f"{kind}_{target}"
        self.nodes.append(helper.make_node(kind, inputs, [target], name, **attributes))

    def constant(self, name: str, values: Array) -> str:
        """An initializer."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name


class _Quantized(_Writer):
    """Nodes between pairs of QuantizeLinear and DequantizeLinear.

    A value v is stored as uint8 under the name v_stored, and read as v_real.
    """

    output = f"{OUTPUT}_real"

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.scales = scales(form)

    def begin(self) -> None:
        """Store the input."""
        self._store(INPUT, INPUT)

    def convolution(self, step: Conv) -> None:
        """A Conv of dequantized inputs; its activation is the saturation of what follows."""
        stored, by_channel = quantized_kernel(step)
        source = self.scales[step.source]
        bias = quantized_bias(step, source, by_channel)
        inputs = [f"{step.source}_real"]
        for what, values, scale in (
            ("kernel", _arranged(step, stored), by_channel),
            ("bias", bias, np.float32(source.scale) * by_channel),
        ):
            name = self.constant(f"{step.target}_{what}", values)
            zeros = np.zeros(len(scale), values.dtype)
            parameters = (
                self.constant(f"{name}_scale", scale),
                self.constant(f"{name}_zero_point", zeros),
            )
            self._dequantize(name, name, *parameters, axis=0)
            inputs.append(f"{name}_real")
        self.conv_node(step, inputs, f"{step.target}_linear")
        self._store(step.target, f"{step.target}_linear")

    def add(self, step: Add) -> None:
        """An Add of dequantized inputs."""
        self.node("Add", [f"{name}_real" for name in step.sources], f"{step.target}_linear")
        self._store(step.target, f"{step.target}_linear")

    def _store(self, name: str, computed: str) -> None:
        """Store a computed value, and make it real again for those who read it."""
        scale: Scale = self.scales[name]
        parameters = (
            self.constant(f"{name}_scale", np.array(scale.scale, np.float32)),
            self.constant(f"{name}_zero_point", np.array(scale.zero_point + 128, np.uint8)),
        )
        stored = f"{name}_stored"
        self.node("QuantizeLinear", [computed, *parameters], stored)
        self._dequantize(name, stored, *parameters)

    def _dequantize(self, name: str, stored: str, *parameters: str, **attributes: Any) -> None:
        self.node("DequantizeLinear", [stored, *parameters], f"{name}_real", **attributes)


def _arranged(step: Conv, kernel: Array) -> Array:
    """The kernel in ONNX's order of axes, (outputs, inputs of a group, kh, kw)."""
    if step.depthwise:
        return kernel.reshape(*kernel.shape[:2], step.channels).transpose(2, 0, 1)[:, np.newaxis]
    return kernel.transpose(3, 2, 0, 1)
