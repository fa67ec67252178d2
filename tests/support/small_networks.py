"""Six small networks of different tasks, trained in seconds, as .onnx files and their int8 forms.

Their convolutions are random and only the last layer is fitted, by ridge regression on pictures of
coloured shapes. That is enough for outputs that depend on shape, colour and place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from coloured_shapes import SIZE, Pictures, pictures
from onnx import TensorProto, helper, numpy_helper

from dsconvert.deploy.exporting.onnx_half import to_float16
from dsconvert.deploy.exporting.onnx_reduce import quantize_dynamic
from dsconvert.deploy.exporting.onnx_static import quantize_static

CELLS = 4
"""The detector's grid is 4×4, its cells are 4 pixels wide."""
PIXELS = 640.0
"""What the detector calls the width of a picture."""
_TRAIN, _CALIBRATION, _TEST = 2000, 128, 64


@dataclass(frozen=True)
class Network:
    """A float32 network with the pictures that it is quantized and judged on.

    Attributes:
        name: Its task.
        model: The graph.
        calibration: Inputs for ranges, (128, 3, 16, 16).
        inputs: Inputs to judge on, (64, 3, 16, 16).
        in_float: Nodes that a sound int8 file leaves in float.
    """

    name: str
    model: onnx.ModelProto
    calibration: np.ndarray
    inputs: np.ndarray
    in_float: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.model.graph.output)

    def write(self, folder: Path, precision: str) -> Path:
        """Write the file: "float32", "float16", "dynamic" or "int8"."""
        full, path = folder / f"{self.name}.onnx", folder / f"{self.name}-{precision}.onnx"
        onnx.save(self.model, full)
        if precision == "float32":
            return full
        if precision == "float16":
            onnx.save(to_float16(onnx.load(full)), path)
        elif precision == "dynamic":
            quantize_dynamic(full, path)
        else:
            quantize_static(full, path, [self.calibration], exclude=self.in_float)
        return path


def run(model: onnx.ModelProto | Path, images: np.ndarray) -> list[np.ndarray]:
    stored = str(model) if isinstance(model, Path) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(stored, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})


class _Builder:
    """A graph under construction."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.last = "image"

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: object) -> str:
        output = output or f"{kind.lower()}{len(self.nodes)}"
        given = inputs or (self.last,)
        self.nodes.append(helper.make_node(kind, given, [output], name=output, **attributes))
        self.last = output
        return output

    def constant(self, name: str, values: np.ndarray | list[int]) -> str:
        array = np.asarray(values)
        self.weights[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
        return name

    def convolution(
        self, width: int, channels: int, stride: int = 1, relu: bool = True, output: str = ""
    ) -> str:
        """A 3×3 convolution of random weights."""
        name = f"conv{len(self.nodes)}"
        kernel = self.rng.normal(0, (2 / (9 * channels)) ** 0.5, (width, channels, 3, 3))
        bias = self.rng.normal(0, 0.05, width)
        inputs = (self.last, self.constant(f"{name}.w", kernel), self.constant(f"{name}.b", bias))
        self.add("Conv", *inputs, output=output, pads=[1] * 4, strides=[stride] * 2)
        return self.add("Relu") if relu else self.last

    def pooled(self) -> str:
        """Means and maxima of features over the four quarters of a picture, flat."""
        for width, channels, stride in ((24, 3, 1), (48, 24, 2), (96, 48, 1)):
            last = self.convolution(width, channels, stride)
        parts = [
            self.add(kind, last, kernel_shape=[4, 4], strides=[4, 4])
            for kind in ("AveragePool", "MaxPool")
        ]
        self.add("Concat", *parts, axis=1)
        return self.add("Flatten")

    def pointwise(self, weights: np.ndarray, bias: np.ndarray, source: str, output: str) -> str:
        """A 1×1 convolution of given weights, (features, width)."""
        kernel = self.constant(f"{output}.w", weights.T[:, :, None, None])
        return self.add("Conv", source, kernel, self.constant(f"{output}.b", bias), output=output)

    def dense(self, weights: np.ndarray, bias: np.ndarray, source: str, output: str) -> str:
        """A dense layer of given weights, (features, width)."""
        names = (self.constant(f"{output}.w", weights), self.constant(f"{output}.b", bias))
        return self.add("Gemm", source, *names, output=output)

    def features(self, value: str, images: np.ndarray) -> np.ndarray:
        """What a value is for some images."""
        return run(self.model([value]), images)[0]

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])
        stored = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        needed, nodes = set(outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                nodes.insert(0, node)
                needed.update(node.input)
        graph = helper.make_graph(
            nodes,
            "net",
            [image],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [tensor for tensor in stored if tensor.name in needed],
        )
        opsets = [helper.make_opsetid("", 17)]
        return onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opsets, ir_version=8)
        )


def _ridge(
    features: np.ndarray, targets: np.ndarray, strength: float = 2e-2
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (features, width) and bias of the least squared error."""
    X = features.reshape(len(features), -1).astype(np.float64)
    about, aim = X.mean(axis=0), targets.mean(axis=0)
    Z = X - about
    gram = Z.T @ Z
    gram += np.eye(len(gram)) * strength * np.trace(gram) / len(gram)
    weights = np.linalg.solve(gram, Z.T @ (targets - aim))
    return weights, aim - about @ weights


def _per_cell(features: np.ndarray) -> np.ndarray:
    """(n, C, H, W) as (n·H·W, C)."""
    return features.transpose(0, 2, 3, 1).reshape(-1, features.shape[1])


def _classifier(train: Pictures, seed: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    net = _Builder(seed + 1)
    flat = net.pooled()
    aims = np.eye(9)[train.kinds] * 8 - 4
    net.dense(*_ridge(net.features(flat, train.images), aims), flat, "logits")
    net.add("Softmax", "logits", output="probabilities", axis=1)
    return net.model(["probabilities"]), ()


def _detector(train: Pictures, seed: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Boxes in pixels and scores of nine classes, (n, 16, 13), joined in float."""
    net = _Builder(seed + 2)
    for width, channels, stride in ((24, 3, 1), (48, 24, 2), (64, 48, 2), (64, 64, 1)):
        net.convolution(width, channels, stride)
    last = net.last
    cell = (train.centres // (SIZE / CELLS)).astype(int)
    y, x = np.mgrid[:CELLS, :CELLS]
    near = (y[None] == cell[:, :1, None]) & (x[None] == cell[:, 1:, None])
    classes = near[..., None] * np.eye(9)[train.kinds][:, None, None]
    boxes = np.concatenate([train.centres / SIZE, np.stack([train.radii / SIZE] * 2, 1)], 1)
    boxes = np.broadcast_to(boxes[:, None, None], (*near.shape, 4))
    features = _per_cell(net.features(last, train.images))
    aims = np.log(np.clip(boxes, 0.02, 0.98) / (1 - np.clip(boxes, 0.02, 0.98)))
    net.pointwise(*_ridge(features, aims.reshape(-1, 4)), last, "box_logits")
    net.add("Sigmoid", output="box_parts")
    net.add("Mul", "box_parts", net.constant("pixels", np.array(PIXELS)), output="boxes")
    net.pointwise(*_ridge(features, classes.reshape(-1, 9) * 48 - 5), last, "score_logits")
    net.add("Sigmoid", output="scores")
    parts = []
    for part in ("boxes", "scores"):
        net.add("Transpose", part, output=f"{part}_last", perm=[0, 2, 3, 1])
        width = 4 if part == "boxes" else 9
        shape = net.constant(f"{part}_shape", np.array([0, -1, width], np.int64))
        parts.append(net.add("Reshape", f"{part}_last", shape, output=f"{part}_rows"))
    net.add("Concat", *parts, output="detections", axis=2)
    return net.model(["detections"]), ("detections",)


def box_detector(joined: bool = True) -> Network:
    """A detector whose boxes find the shapes: (n, 16, 4 + 9) or both parts, in pixels of 640.

    Boxes are centre x, centre y, width and height, scores those of nine classes.
    """
    net, train = _Builder(8), pictures(_TRAIN, 0)
    for width, channels, stride in ((48, 3, 1), (96, 48, 2), (192, 96, 2), (384, 192, 1)):
        net.convolution(width, channels, stride)
    last, unit = net.last, SIZE / CELLS
    cell = (train.centres // unit).astype(int)
    places = net.features(last, train.images)
    features = places.transpose(0, 2, 3, 1)[np.arange(_TRAIN), cell[:, 0], cell[:, 1]]
    offsets = (train.centres / unit - cell)[:, ::-1]
    sizes = np.stack([2 * train.radii / unit] * 2, 1)
    aims = np.concatenate([offsets, sizes], 1)
    net.pointwise(*_ridge(features, aims, 1e-3), last, "box_units")
    y, x = np.mgrid[:CELLS, :CELLS]
    grid = np.stack([x, y, 0 * x, 0 * x])[None] * 1.0
    net.add("Add", "box_units", net.constant("grid", grid), output="box_cells")
    net.add("Mul", "box_cells", net.constant("pixels", np.array(PIXELS / CELLS)), output="boxes")
    near = (y[None] == cell[:, :1, None]) & (x[None] == cell[:, 1:, None])
    classes = near[..., None] * np.eye(9)[train.kinds][:, None, None]
    weights = _ridge(_per_cell(places), classes.reshape(-1, 9) * 20 - 8, 1e-5)
    net.pointwise(*weights, last, "score_logits")
    net.add("Sigmoid", output="scores")
    parts = []
    for part, width in (("boxes", 4), ("scores", 9)):
        net.add("Transpose", part, output=f"{part}_last", perm=[0, 2, 3, 1])
        shape = net.constant(f"{part}_shape", np.array([0, -1, width], np.int64))
        parts.append(net.add("Reshape", f"{part}_last", shape, output=f"{part}_rows"))
    net.add("Concat", *parts, output="detections", axis=2)
    outputs = ["detections"] if joined else parts
    calibration, inputs = (pictures(count, i).images for i, count in ((1, _CALIBRATION), (2, 300)))
    return Network("boxes", net.model(outputs), calibration, inputs, ("detections",))


def fastest_detector() -> Network:
    """A detector as FastestDet writes it: objectness, box and classes of a cell, (n, 14, 4, 4).

    The objectness is a sigmoid, the box (x and y in the cell, width and height) tanh and sigmoid in
    pixels of 640, and the classes a softmax, all in one output.
    """
    net, train = _Builder(9), pictures(_TRAIN, 0)
    for width, channels, stride in ((48, 3, 1), (96, 48, 2), (192, 96, 2), (384, 192, 1)):
        net.convolution(width, channels, stride)
    last, unit = net.last, SIZE / CELLS
    cell = (train.centres // unit).astype(int)
    places = net.features(last, train.images)
    features = places.transpose(0, 2, 3, 1)[np.arange(_TRAIN), cell[:, 0], cell[:, 1]]
    y, x = np.mgrid[:CELLS, :CELLS]
    near = (y[None] == cell[:, :1, None]) & (x[None] == cell[:, 1:, None])
    weights = _ridge(_per_cell(places), near.reshape(-1, 1) * 16.0 - 6, 1e-5)
    net.pointwise(*weights, last, "object_logits")
    net.add("Sigmoid", output="objectness")
    offsets = (train.centres / unit - cell - 0.5)[:, ::-1]
    net.pointwise(*_ridge(features, np.arctanh(np.clip(offsets, -0.9, 0.9)), 1e-3), last, "xy_raw")
    net.add("Tanh", output="xy_units")
    net.add("Mul", "xy_units", net.constant("cell_pixels", np.array(PIXELS / CELLS)), output="xy")
    share = np.stack([2 * train.radii / SIZE] * 2, 1)
    net.pointwise(*_ridge(features, np.log(share / (1 - share)), 1e-3), last, "wh_raw")
    net.add("Sigmoid", output="wh_units")
    net.add("Mul", "wh_units", net.constant("pixels", np.array(PIXELS)), output="wh")
    net.pointwise(*_ridge(features, np.eye(9)[train.kinds] * 12 - 6, 1e-3), last, "class_logits")
    net.add("Softmax", output="classes", axis=1)
    net.add("Concat", "objectness", "xy", "wh", "classes", output="cells", axis=1)
    calibration, inputs = (
        pictures(count, i).images for i, count in ((1, _CALIBRATION), (2, _TEST))
    )
    return Network("fastest", net.model(["cells"]), calibration, inputs, ("cells",))


def _segmenter(train: Pictures, seed: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    net = _Builder(seed + 3)
    first = net.convolution(24, 3)
    net.convolution(32, 24, 2)
    net.convolution(48, 32)
    scales = net.constant("twice", np.array([1, 1, 2, 2], np.float32))
    wide = net.add("Resize", net.last, "", scales, mode="nearest")
    both = net.add("Concat", wide, first, axis=1)
    net.last = both
    last = net.convolution(64, 72)
    aims = np.eye(4)[train.masks[:300]].reshape(-1, 4) * 24 - 8
    net.pointwise(*_ridge(_per_cell(net.features(last, train.images[:300])), aims), last, "logits")
    net.add("Softmax", "logits", output="classes", axis=1)
    return net.model(["classes"]), ()


def _denoiser(train: Pictures, seed: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    net = _Builder(seed + 4)
    net.convolution(24, 3)
    last = net.convolution(48, 24)
    clean = train.images[:300]
    noisy = _noisy(clean, 5)
    aims = (noisy - clean).transpose(0, 2, 3, 1).reshape(-1, 3)
    net.pointwise(*_ridge(_per_cell(net.features(last, noisy)), aims), last, "noise")
    net.add("Sub", "image", "noise", output="clean")
    return net.model(["clean"]), ()


def _multiple(train: Pictures, seed: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Logits of nine classes, a place of two coordinates and a size of one value."""
    net = _Builder(seed + 6)
    flat = net.pooled()
    features = net.features(flat, train.images)
    net.dense(*_ridge(features, np.eye(9)[train.kinds] * 8 - 4), flat, "kind")
    net.dense(*_ridge(features, train.centres - 8), flat, "place")
    net.dense(*_ridge(features, train.radii[:, None]), flat, "size")
    return net.model(["kind", "place", "size"]), ()


def _embedding(train: Pictures, seed: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """64 features of very different sizes, averaged over the picture."""
    net = _Builder(seed + 7)
    for width, channels, stride in ((24, 3, 1), (32, 24, 2), (48, 32, 2)):
        net.convolution(width, channels, stride)
    net.convolution(64, 48)
    pooled = net.add("GlobalAveragePool")
    net.add("Flatten", pooled, output="embedding")
    del train
    return net.model(["embedding"]), ()


_TASKS: dict[str, Callable[[Pictures, int], tuple[onnx.ModelProto, tuple[str, ...]]]] = {
    "classifier": _classifier,
    "detector": _detector,
    "segmenter": _segmenter,
    "denoiser": _denoiser,
    "multiple": _multiple,
    "embedding": _embedding,
}
NAMES = tuple(_TASKS)


@cache
def network(name: str, number: int = 0) -> Network:
    """The network of a task; the same object every time, not to be changed.

    Args:
        name: The task.
        number: Others have other weights and pictures. Tolerances were set with those of 0.
    """
    seed = 1000 * number
    model, in_float = _TASKS[name](pictures(_TRAIN, seed), seed)
    calibration, inputs = (
        pictures(count, seed + i).images for i, count in ((1, _CALIBRATION), (2, _TEST))
    )
    if name == "denoiser":
        calibration, inputs = _noisy(calibration, seed + 8), _noisy(inputs, seed + 9)
    return Network(name, model, calibration, inputs, in_float)


def _noisy(images: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.08, images.shape)
    return (images + noise).astype(np.float32)
