"""Known defects, planted one at a time into files that are sound.

Each is what somebody has done to a file once: weights, scales and zero points that are wrong in the
file, inputs that were prepared another way, outputs that are put together wrong.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from small_networks import Network, run

from dsconvert.base.fidelity import compare_outputs
from dsconvert.base.output_fidelity import failures
from dsconvert.deploy.schemes import SCHEMES
from dsconvert.deploy.verification import integer_pairs
from dsconvert.deploy.verification.tolerances import judge_outputs
from dsconvert.formats.quantization import Quantization

Outputs = list[np.ndarray]

_SPATIAL = ("segmenter", "denoiser")
_CHANNEL_AXIS = {"detector": 2, "segmenter": 1, "denoiser": 1}


@dataclass(frozen=True)
class Planted:
    """A defect in a file.

    Attributes:
        defect: Its name.
        outputs: What the file gives with it.
        file: The file itself, where the defect is in it.
    """

    defect: str
    outputs: Outputs
    file: onnx.ModelProto | None = None


def plant(network: Network, path: Path) -> Iterator[Planted]:
    """Plant every defect that the network can have into its int8 file, one at a time."""
    sound = run(path, network.inputs)
    for name, change in _INPUTS.items():
        if network.name == "embedding" and name == "axes of the picture exchanged":
            continue  # its features are means over the picture
        yield Planted(name, run(path, change(network.inputs)))
    for name, edit in _FILES.items():
        model = onnx.load(path)
        if edit(model):
            yield Planted(name, run(model, network.inputs), model)
    for name, spoil in _OUTPUTS.items():
        outputs = spoil(network, [output.copy() for output in sound])
        if outputs is not None:
            yield Planted(name, outputs)


def refusals(
    network: Network,
    references: Outputs,
    outputs: Outputs,
    quantize: Quantization,
    file: onnx.ModelProto | None = None,
) -> tuple[str, ...]:
    """Tell why outputs, and the file that they are from, are refused."""
    kinds = (network.outputs, references)
    fidelity = compare_outputs(*kinds, outputs, inputs=[network.inputs])
    found = list(judge_outputs(fidelity, SCHEMES[quantize].tolerance))
    if file is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "planted.onnx"
            onnx.save(file, path)
            found += integer_pairs.find(
                path,
                fidelity,
                lambda undone: compare_outputs(*kinds, run(undone, network.inputs)),
            )
    return failures(found)


def defects() -> tuple[str, ...]:
    """The names of all."""
    return (*_INPUTS, *_FILES, *_OUTPUTS)


def _channels(network: Network, output: np.ndarray) -> np.ndarray:
    """A view with the channels last."""
    return np.moveaxis(output, _CHANNEL_AXIS.get(network.name, 1), -1)


# What is done to the pictures.
_INPUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "other mean and deviation": lambda x: ((x - 0.45) / 0.23).astype(np.float32),
    "0 … 255 for 0 … 1": lambda x: (x * 255).astype(np.float32),
    "BGR for RGB": lambda x: np.ascontiguousarray(x[:, ::-1]),
    "axes of the picture exchanged": lambda x: np.ascontiguousarray(x.swapaxes(2, 3)),
}


# What is wrong in the file; False where it has no such thing.
def _initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _set(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    before = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(before.dtype), tensor.name))


def _quantizers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Of activations, in the order of the network."""
    return [node for node in model.graph.node if node.op_type == "QuantizeLinear"]


def _zero_point(model: onnx.ModelProto) -> bool:
    """The zero point of the first output, off by eight on one side.

    Of boxes where boxes and scores are joined in float.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    reader = made[model.graph.output[0].name]
    while reader.op_type != "DequantizeLinear":
        reader = made[reader.input[0]]
    stored = _initializers(model)[reader.input[2]]
    zero = numpy_helper.to_array(stored)
    moved = numpy_helper.from_array(np.asarray(np.clip(int(zero) + 8, 0, 255), zero.dtype), "moved")
    if int(zero) + 8 > 255:
        moved = numpy_helper.from_array(np.asarray(int(zero) - 8, zero.dtype), "moved")
    model.graph.initializer.append(moved)
    reader.input[2] = "moved"
    return True


def _scaled(node: onnx.NodeProto, model: onnx.ModelProto, factor: float) -> bool:
    _set(
        tensor := _initializers(model)[node.input[1]],
        numpy_helper.to_array(tensor) * np.float32(factor),
    )
    return True


def _saturated(model: onnx.ModelProto) -> bool:
    """The range of an activation in the middle is an eighth of what it should be."""
    between = _quantizers(model)[1:-1]
    return bool(between) and _scaled(between[len(between) // 2], model, 0.125)


def _too_wide(model: onnx.ModelProto) -> bool:
    """The range of an activation in the middle is a hundred times too wide."""
    between = _quantizers(model)[1:-1]
    return bool(between) and _scaled(between[len(between) // 2], model, 100.0)


def _kernels(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """What makes weights of integers real again, in the order of the network."""
    stored = _initializers(model)
    readers = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
    return [n for n in readers if n.input[0] in stored and len(stored[n.input[0]].dims) > 1]


def _doubled_scale(model: onnx.ModelProto) -> bool:
    """The weights of the second layer are twice as large."""
    return _scaled(_kernels(model)[1], model, 2.0)


def _zeroed_layer(model: onnx.ModelProto) -> bool:
    """Half of the output channels of the second layer have no weights."""
    tensor = _initializers(model)[_kernels(model)[1].input[0]]
    values = numpy_helper.to_array(tensor).copy()
    values[: len(values) // 2] = 0
    _set(tensor, values)
    return True


def _flipped_kernels(model: onnx.ModelProto) -> bool:
    """The kernels of the second layer are mirrored: a convolution for a correlation."""
    tensor = _initializers(model)[_kernels(model)[1].input[0]]
    values = numpy_helper.to_array(tensor)
    if values.ndim != 4 or values.shape[2] == 1:
        return False
    _set(tensor, values[:, :, ::-1, ::-1].copy())
    return True


_FILES: dict[str, Callable[[onnx.ModelProto], bool]] = {
    "zero point off by 8": _zero_point,
    "saturated activation": _saturated,
    "range a hundred times too wide": _too_wide,
    "weights of a layer doubled": _doubled_scale,
    "half of a layer without weights": _zeroed_layer,
    "kernels mirrored": _flipped_kernels,
}


# What is wrong with the outputs; None where they have no such thing.
def _dead_class(network: Network, outputs: Outputs) -> Outputs | None:
    """The commonest class but one gets nothing, and what is left sums to one again."""
    if network.name not in ("classifier", "segmenter"):
        return None
    view = _channels(network, outputs[0])
    named = np.bincount(view.reshape(-1, view.shape[-1]).argmax(axis=1))
    view[..., np.argsort(named)[-2]] = 0
    view /= np.maximum(view.sum(axis=-1, keepdims=True), 1e-6)
    return outputs


def _dead_scores(network: Network, outputs: Outputs) -> Outputs | None:
    if network.name != "detector":
        return None
    outputs[0][..., 4:] = 0
    return outputs


def _dead_output(network: Network, outputs: Outputs) -> Outputs | None:
    if network.name != "multiple":
        return None
    outputs[-1][:] = 0
    return outputs


def _constant(network: Network, outputs: Outputs) -> Outputs:
    """The channel that varies most is always its own mean."""
    view = _channels(network, outputs[0])
    axes = tuple(range(view.ndim - 1))
    channel = view.std(axis=axes).argmax()
    view[..., channel] = view[..., channel].mean()
    return outputs


def _swapped(network: Network, outputs: Outputs) -> Outputs:
    view = _channels(network, outputs[0])
    view[..., [0, 1]] = view[..., [1, 0]]
    return outputs


def _with(value: float) -> Callable[[Network, Outputs], Outputs]:
    def put(network: Network, outputs: Outputs) -> Outputs:
        outputs[-1].flat[outputs[-1].size // 3] = value
        return outputs

    return put


def _next_sample(network: Network, outputs: Outputs) -> Outputs:
    return [np.roll(output, 1, axis=0) for output in outputs]


def _first_sample(network: Network, outputs: Outputs) -> Outputs:
    return [np.repeat(output[:1], len(output), axis=0) for output in outputs]


def _next_cell(network: Network, outputs: Outputs) -> Outputs | None:
    if network.name == "detector":
        return [np.roll(outputs[0], 1, axis=1)]
    return [np.roll(outputs[0], 1, axis=3)] if network.name in _SPATIAL else None


def _moved_box(network: Network, outputs: Outputs) -> Outputs | None:
    """Boxes stand a cell of 32 pixels further right."""
    if network.name != "detector":
        return None
    outputs[0][..., 1] += 32
    return outputs


def _clipped(network: Network, outputs: Outputs) -> Outputs:
    """Nothing is above half of the largest value."""
    view = _channels(network, outputs[-1])
    part = view[..., 4:] if network.name == "detector" else view
    np.minimum(part, part.max() / 2, out=part)
    return outputs


def _inverted(network: Network, outputs: Outputs) -> Outputs:
    view = _channels(network, outputs[-1])
    part = view[..., 4:] if network.name == "detector" else view
    part[:] = part.max() + part.min() - part
    return outputs


def _many(network: Network, outputs: Outputs) -> Outputs | None:
    """Probabilities that sum to 23."""
    if network.name not in ("classifier", "segmenter"):
        return None
    return [outputs[0] * 23]


def _logits(network: Network, outputs: Outputs) -> Outputs | None:
    """The last activation is left out."""
    if network.name not in ("classifier", "segmenter", "detector"):
        return None
    view = _channels(network, outputs[0])
    part = view[..., 4:] if network.name == "detector" else view
    part[:] = np.log(np.maximum(part, 1e-3))
    return outputs


def _doubled(network: Network, outputs: Outputs) -> Outputs:
    outputs[-1] *= 2
    return outputs


def _exchanged(network: Network, outputs: Outputs) -> Outputs | None:
    return [outputs[0].swapaxes(2, 3)] if network.name in _SPATIAL else None


def _mirrored(network: Network, outputs: Outputs) -> Outputs | None:
    return [outputs[0][..., ::-1]] if network.name in _SPATIAL else None


def _scores_first(network: Network, outputs: Outputs) -> Outputs | None:
    if network.name != "detector":
        return None
    return [np.concatenate([outputs[0][..., 4:], outputs[0][..., :4]], axis=-1)]


_OUTPUTS: dict[str, Callable[[Network, Outputs], Outputs | None]] = {
    "a class never predicted": _dead_class,
    "all scores zero": _dead_scores,
    "an output of zeros": _dead_output,
    "a constant channel": _constant,
    "two channels exchanged": _swapped,
    "one NaN": _with(np.nan),
    "one infinity": _with(np.inf),
    "outputs of the sample before": _next_sample,
    "outputs of the first sample": _first_sample,
    "outputs of the cell before": _next_cell,
    "boxes a cell further": _moved_box,
    "clipped at half": _clipped,
    "inverted": _inverted,
    "softmax that sums to 23": _many,
    "last activation left out": _logits,
    "scale doubled": _doubled,
    "height and width exchanged": _exchanged,
    "mirrored": _mirrored,
    "scores before boxes": _scores_first,
}
