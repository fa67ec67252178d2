"""A form as a .tflite file, written with LiteRT's own schema: TensorFlow is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from dsconvert.base.errors import require
from dsconvert.base.predictor import Array
from dsconvert.converter.core.planning.cost_model import Activation

from .block_variants import INPUT, NO_PADS, OUTPUT, Add, Conv, Form, shapes
from .quantized import Scale, quantized_bias, quantized_kernel, scale_for
from .target import Precision

_SCHEMA_VERSION = 3
_INT8_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "ADD": 2, "PAD": 2}
"""The version of an operator from which on it takes int8."""
_DILATED_VERSION = 2
"""The version from which on a float depthwise convolution is dilated."""


def tflite_block(form: Form, precision: Precision) -> bytes:
    """Write a form as a .tflite file of batch 1, NHWC.

    Padding that TFLite has no word for is a PAD before everything else, as the converter leaves
    it. In int8 its input and output are int8 too.

    Raises:
        MissingExtra: If LiteRT is not installed.
    """
    return _Writer(precision).file(form)


class _Writer:
    """One subgraph in the making."""

    def __init__(self, precision: Precision) -> None:
        self.schema = require("ai_edge_litert.schema_py_generated", "keras", "to write .tflite")
        self.int8 = precision == "int8"
        self.tensors: list[Any] = []
        self.buffers = [self.schema.BufferT()]  # the empty one, of all that is computed
        self.operators: list[Any] = []
        self.codes: dict[tuple[str, int], int] = {}
        self.named: dict[str, int] = {}
        self.scales: dict[str, Scale] = {}

    def file(self, form: Form) -> bytes:
        """The whole file."""
        first = self._computed(INPUT, shapes(form)[INPUT], scale_for(1.0, "none"))
        if not form.is_same and form.pads != NO_PADS:
            form = self._pad(form)
        sizes = shapes(form)
        for step in form.steps:
            scale = scale_for(step.spread, step.activation)
            target = self._computed(step.target, sizes[step.target], scale)
            if isinstance(step, Add):
                self._add(step, target)
            else:
                self._convolution(step, target)
        return self._packed(first, self.named[OUTPUT])

    def _convolution(self, step: Conv, target: int) -> None:
        """A CONV_2D or DEPTHWISE_CONV_2D, always with a bias, as the converter writes them."""
        s, name = self.schema, "DEPTHWISE_CONV_2D" if step.depthwise else "CONV_2D"
        common = {
            "padding": s.Padding.VALID if step.pads == NO_PADS else s.Padding.SAME,
            "strideH": step.strides[0],
            "strideW": step.strides[1],
            "dilationHFactor": step.dilation[0],
            "dilationWFactor": step.dilation[1],
            "fusedActivationFunction": self._activation(step.activation),
        }
        if step.depthwise:
            options = s.DepthwiseConv2DOptionsT(depthMultiplier=step.kernel.shape[3], **common)
        else:
            options = s.Conv2DOptionsT(**common)
        dilated = step.depthwise and max(step.dilation) > 1
        version = _DILATED_VERSION if dilated else 1
        inputs = [self.named[step.source], *self._weights(step)]
        self._operator(name, version, inputs, target, options)

    def _weights(self, step: Conv) -> tuple[int, int]:
        """The kernel, (N, kh, kw, C) or, depthwise, (1, kh, kw, C·M), and the bias, (N,)."""
        name, axis = step.target, 3 if step.depthwise else 0
        if not self.int8:
            bias = np.zeros(step.channels, np.float32) if step.bias is None else step.bias
            kernel = self._constant(f"{name}/kernel", _arranged(step, step.kernel))
            return kernel, self._constant(f"{name}/bias", bias)
        stored, by_channel = quantized_kernel(step)
        source = self.scales[step.source]
        integers = quantized_bias(step, source, by_channel)
        return (
            self._constant(f"{name}/kernel", _arranged(step, stored), by_channel, axis),
            self._constant(f"{name}/bias", integers, np.float32(source.scale) * by_channel, 0),
        )

    def _add(self, step: Add, target: int) -> None:
        options = self.schema.AddOptionsT(fusedActivationFunction=self._activation(step.activation))
        self._operator("ADD", 1, [self.named[name] for name in step.sources], target, options)

    def _pad(self, form: Form) -> Form:
        """A PAD of the input; gives what is left to write, of a larger input."""
        (top, bottom), (left, right) = form.pads
        height, width = form.block.input_size
        larger = (height + top + bottom, width + left + right)
        amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        inputs = [self.named[INPUT], self._constant("paddings", amounts)]
        shape = (*larger, form.block.in_channels)
        target = self._computed(INPUT, shape, self.scales[INPUT])  # what reads x reads this now
        self._operator("PAD", 1, inputs, target, self.schema.PadOptionsT())
        return replace(
            form,
            block=msgspec.structs.replace(form.block, input_size=larger),
            pads=NO_PADS,
            steps=tuple(
                replace(step, pads=NO_PADS) if isinstance(step, Conv) else step
                for step in form.steps
            ),
        )

    def _computed(self, name: str, shape: Sequence[int], scale: Scale) -> int:
        """A tensor that is computed, (1, H, W, channels)."""
        self.scales[name] = scale
        quantization = self.schema.QuantizationParametersT(
            scale=[scale.scale], zeroPoint=[scale.zero_point]
        )
        kind = self.schema.TensorType.INT8 if self.int8 else self.schema.TensorType.FLOAT32
        tensor = self._tensor(name, (1, *shape), kind, 0, quantization if self.int8 else None)
        self.named[name] = tensor
        return tensor

    def _constant(
        self, name: str, values: Array, by_channel: Array | None = None, axis: int = 0
    ) -> int:
        """A tensor of the file, with the scale of each slice along ``axis`` if it has scales."""
        quantization = None
        if by_channel is not None:
            quantization = self.schema.QuantizationParametersT(
                scale=by_channel.tolist(),
                zeroPoint=[0] * len(by_channel),
                quantizedDimension=axis,
            )
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self.buffers.append(self.schema.BufferT(data=data))
        kind = getattr(self.schema.TensorType, values.dtype.name.upper())
        return self._tensor(name, values.shape, kind, len(self.buffers) - 1, quantization)

    def _tensor(
        self, name: str, shape: Sequence[int], kind: int, buffer: int, quantization: Any
    ) -> int:
        tensor = self.schema.TensorT(
            name=name, shape=list(shape), type=kind, buffer=buffer, quantization=quantization
        )
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _operator(
        self, name: str, version: int, inputs: Sequence[int], target: int, options: Any
    ) -> None:
        version = _INT8_VERSIONS[name] if self.int8 else version
        code = self.codes.setdefault((name, version), len(self.codes))
        kind = type(options).__name__.removesuffix("T")
        self.operators.append(
            self.schema.OperatorT(
                opcodeIndex=code,
                inputs=list(inputs),
                outputs=[target],
                builtinOptionsType=getattr(self.schema.BuiltinOptions, kind),
                builtinOptions=options,
            )
        )

    def _activation(self, activation: Activation) -> int:
        return int(getattr(self.schema.ActivationFunctionType, activation.upper()))

    def _packed(self, first: int, last: int) -> bytes:
        """The file of what has been collected."""
        import flatbuffers

        s = self.schema
        codes = [
            s.OperatorCodeT(
                deprecatedBuiltinCode=getattr(s.BuiltinOperator, name),  # for older readers
                builtinCode=getattr(s.BuiltinOperator, name),
                version=version,
            )
            for name, version in self.codes
        ]
        graph = s.SubGraphT(
            tensors=self.tensors,
            inputs=[first],
            outputs=[last],
            operators=self.operators,
            name="main",
        )
        model = s.ModelT(
            version=_SCHEMA_VERSION,
            operatorCodes=codes,
            subgraphs=[graph],
            description="dsconvert block",
            buffers=self.buffers,
        )
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _arranged(step: Conv, kernel: Array) -> Array:
    """The kernel in TFLite's order of axes."""
    if step.depthwise:
        return kernel.reshape(1, *kernel.shape[:2], step.channels)
    return kernel.transpose(3, 0, 1, 2)
