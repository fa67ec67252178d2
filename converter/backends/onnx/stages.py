"""An ONNX model as the stages that `core.sequential` walks through."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import OnnxGraph, is_op, key, reads_of, with_inputs
from dsconvert.formats.onnx.subgraph import Part, Unable
from dsconvert.formats.onnx.tensors import size_in_bytes

from ...core.network.partition import Wires, depth_first, live_at
from ...core.stages import Role, Site, Weights, one_by_one
from ...core.types import ConvSpec, Factorization, Float, as_float
from .channel_affine import tail_after
from .classifier_head import Head, head_at
from .comparable import comparable_outputs
from .emit import block_nodes
from .read import OnnxConvolution, conv_weights, main_convolutions

if TYPE_CHECKING:
    from onnx import NodeProto

_SVD = "Use --method svd, which needs no data."
_KERNEL, _BIAS = "dsconvert.kernel", "dsconvert.bias"
"""Names of the site's weights where they are inputs of its stage."""
_TOGETHER = 256 << 20
"""Bytes of weights up to which several stages are one model: ONNX Runtime holds them again."""


class OnnxStages:
    """See `core.staged.Stages`.

    Each stage is a model of its own, and the weights of its site are inputs of that model: other
    weights are only another feed.

    Args:
        graph: The model.
        rewritten: Names of the convolutions to fit.
        inputs: The data that will go through it: they settle free sizes.
        refit: Whether 1×1 convolutions and last dense layers are sites as well.

    Raises:
        InputError: If a value between two stages has no batch axis.
    """

    def __init__(
        self,
        graph: OnnxGraph,
        rewritten: Collection[str],
        inputs: Sequence[Array],
        *,
        refit: bool = True,
    ) -> None:
        self.graph = graph
        nodes = graph.depending_on_data
        names = [x.name for x in graph.inputs]
        names += [name for node in nodes for name in node.output if name]
        self.value_names = tuple(dict.fromkeys(names))
        self._number = {name: number for number, name in enumerate(self.value_names)}
        self.inputs = tuple(range(len(graph.inputs)))
        self.outputs = tuple(
            self._number[x] for x in comparable_outputs(graph) if x in self._number
        )
        order = depth_first(*self._wires(nodes), self.outputs)
        self.steps = [nodes[index] for index in order]
        self._writer = {name: i for i, node in enumerate(self.steps) for name in node.output}
        self._heads: dict[int, Head] = {}
        found = self._find_sites(rewritten, refit)
        self._cuts = [0, *found, len(self.steps)]
        self.sites: tuple[Site | None, ...] = (None, *found.values())
        wires = self._wires(self.steps)
        self._live = [live_at(cut, *wires, self.inputs, self.outputs) for cut in self._cuts[1:]]
        self._current: dict[int, Weights] = {}
        self._part: tuple[int, Factorization | None, Part] | None = None
        self._weights = sum(map(size_in_bytes, graph.initializers.values()))
        self._several: tuple[tuple[int, int], Part] | None = None
        self._settle_batch(inputs)

    @property
    def batch_size(self) -> int | None:
        """The only batch size the stages take: the model's, or 1 where shapes depend on it."""
        return self._batch

    def live_after(self, stage: int) -> tuple[int, ...]:
        """Values that are read after a stage, or are outputs."""
        return self._live[stage]

    @contextmanager
    def using(self, stage: int, weights: Weights | None) -> Iterator[None]:
        """Give the stage's site other weights, and its own back afterwards."""
        if weights is not None:
            self._current[stage] = weights
        try:
            yield
        finally:
            self._current.pop(stage, None)

    def run(
        self, stage: int, values: Mapping[int, Array], last: int | None = None
    ) -> dict[int, Array]:
        """Compute the steps of some stages for one batch: see `Stages.run`."""
        last = stage if last is None else last
        if self._cuts[stage] == self._cuts[last + 1]:
            return {}
        if last > stage and self._weights > _TOGETHER:
            return one_by_one(self, stage, values, last)
        feeds = {
            self.value_names[value]: self._out(value, array) for value, array in values.items()
        }
        if last > stage:
            made = self._part_of_several(stage, last).run(feeds)
        else:
            made = self._part_of_one(stage).run(feeds | self._site_feeds(stage))
        return {self._number[name]: self._back(name, array) for name, array in made.items()}

    # The parts.

    def _part_of_one(self, stage: int) -> Part:
        weights = self._current.get(stage)
        block = None if weights is None else weights.block
        if self._part is None or self._part[0] != stage or self._part[1] is not block:
            self._part = None  # free the last one first
            self._part = stage, block, self._make_part(stage)
        return self._part[2]

    def _part_of_several(self, first: int, last: int) -> Part:
        if self._several is None or self._several[0] != (first, last):
            self._several = None  # free the last one first
            nodes, given, wanted = self._between(first, last)
            part = Part(self.graph, nodes, given, wanted, self._folded, self._shapes)
            self._several = (first, last), part
        return self._several[1]

    def _between(
        self, first: int, last: int
    ) -> tuple[list[NodeProto], dict[str, np.dtype[Any]], list[str]]:
        """Return the nodes of some stages, what they are given by type, and what is wanted."""
        nodes = list(self.steps[self._cuts[first] : self._cuts[last + 1]])
        made = {name for node in nodes for name in node.output}
        read = {name for node in nodes for name in reads_of(node)}
        given = {name: self._types[name] for name in self.value_names if name in read - made}
        wanted = [self.value_names[v] for v in self._live[last] if self.value_names[v] in made]
        return nodes, given, wanted

    def _make_part(self, stage: int) -> Part:
        nodes, given, wanted = self._between(stage, stage)
        site, weights = self.sites[stage], self._current.get(stage)
        if site is not None and weights is not None and weights.block is not None:
            blocks, stored = self._blocks(nodes[0], site, weights)
            folded = self._folded | stored
            return Part(self.graph, blocks + nodes[1:], given, wanted, folded, self._shapes)
        if site is not None:
            self._open(nodes, self._cuts[stage], given)
        return Part(self.graph, nodes, given, wanted, self._folded, self._shapes)

    def _blocks(
        self, node: NodeProto, site: Site, weights: Weights
    ) -> tuple[list[NodeProto], dict[str, Array]]:
        """Return the nodes in a Conv's place, and their weights by name."""
        from onnx import helper, numpy_helper

        assert weights.block is not None, "there is one"
        block, (_, bias) = weights.block, self._before_tail(site, weights)
        if weights.norm is not None and site.norm is not None:
            block = block.scaled(np.sqrt(site.norm.variance / weights.norm.variance))
        kernel = constant_of(self.graph, node.input[1])
        assert kernel is not None, "only constant weights make a site"
        kind = helper.np_dtype_to_tensor_dtype(kernel.dtype)
        opset = self.graph.opset
        made, stored = block_nodes(node, "dsconvert", key(node), block, bias, kind, opset, str)
        return made, {tensor.name: numpy_helper.to_array(tensor) for tensor in stored}

    def _open(self, nodes: list[NodeProto], start: int, given: dict[str, np.dtype[Any]]) -> None:
        """Make the weights of a stage's site inputs of the stage."""
        site, head = nodes[0], self._heads.get(start)
        weights = constant_of(self.graph, site.input[1])
        assert weights is not None, "only constant weights make a site"
        given[_KERNEL] = given[_BIAS] = weights.dtype
        if head is None or head.adder is None:
            nodes[0] = with_inputs(site, [site.input[0], _KERNEL, _BIAS])
        else:
            nodes[0] = with_inputs(site, [site.input[0], _KERNEL])
            place = nodes.index(head.adder)
            nodes[place] = with_inputs(head.adder, [key(site), _BIAS])

    def _site_feeds(self, stage: int) -> dict[str, Array]:
        site = self.sites[stage]
        if site is None:
            return {}
        weights = self._current.get(stage) or Weights(as_float(site.kernel), as_float(site.bias))
        kernel, bias = self._before_tail(site, weights)
        head = self._heads.get(self._cuts[stage])
        if head is None:
            return {_KERNEL: kernel.transpose(3, 2, 0, 1), _BIAS: bias}
        return {_KERNEL: kernel[0, 0].T if head.transposed else kernel[0, 0], _BIAS: bias}

    @staticmethod
    def _before_tail(site: Site, weights: Weights) -> tuple[Float, Float]:
        """Kernel and bias where the tail computes with its trained statistics and not the new."""
        kernel, bias = weights.kernel, weights.bias
        assert bias is not None, "every site has a bias here"
        if weights.norm is None or site.norm is None:
            return kernel, bias
        ratio = np.sqrt(site.norm.variance / weights.norm.variance)
        return kernel * ratio, (bias - weights.norm.mean) * ratio + site.norm.mean

    def _out(self, value: int, array: Array) -> Array:
        return array[0] if self.value_names[value] in self._stacked else array

    def _back(self, name: str, array: Array) -> Array:
        usual, whole = self._shapes[name], name in self._stacked
        if array.shape[0 if whole else 1 :] != usual[0 if whole else 1 :]:
            raise InputError(
                f"{name!r} has the shape {array.shape} for one image and {usual} for another, so "
                "the layers cannot be fitted to data.",
                _SVD,
                code="shape-varies",
            )
        if array.dtype.kind in "iu" and name in self.graph.readers and _inexact(array):
            raise InputError(
                f"{name!r} holds whole numbers that are too large to be kept between two layers.",
                _SVD,
                code="integers-too-large",
            )
        array = np.asarray(array, np.float32)
        return array[None] if name in self._stacked else array

    # Batches.

    def _settle_batch(self, inputs: Sequence[Array]) -> None:
        """Choose the batch, and learn types, shapes and what is constant at these sizes."""
        declared = self.graph.inputs[0].type.tensor_type.shape.dim
        fixed = declared[0].dim_value if declared and declared[0].dim_value > 0 else None
        self._batch: int | None = fixed
        if fixed is None and self._takes_any(inputs):
            return
        self._batch = fixed or 1
        try:
            fits = self._try_batch(inputs, self._batch)
        except Unable as error:
            shapes = ", ".join(str(array.shape) for array in inputs)
            raise InputError(
                f"the model does not run on data of the shape {shapes}: {error}",
                "Give images of a size that it takes, or use --method svd.",
                code="does-not-run",
            ) from error
        if not fits:
            raise InputError(
                "a value between two layers has no batch axis in front, or the images of a batch "
                "change each other's results, so the layers cannot be fitted one after the other.",
                _SVD,
                code="no-batch-axis",
            )

    def _takes_any(self, inputs: Sequence[Array]) -> bool:
        """Tell whether batches of all sizes may pass, and nothing constant depends on the size."""
        seen = []
        for size in (3, 2):
            try:
                if not self._try_batch(inputs, size):
                    return False
            except Unable:  # a constant shape does not fit this batch
                return False
            seen.append(self._folded)
        return all(np.array_equal(seen[0][name], seen[1][name]) for name in seen[0])

    def _try_batch(self, inputs: Sequence[Array], size: int) -> bool:
        """Run one batch, and see whether all values between stages have the batch in front."""
        feeds = {
            x.name: np.resize(array, (size, *array.shape[1:]))
            for x, array in zip(self.graph.inputs, inputs, strict=True)
        }
        given = self.graph.input_types
        between = sorted({self.value_names[v] for live in self._live for v in live})
        folded = self._shape_dependent()
        wanted = [*(name for name in between if name not in given), *folded]
        probe = Part(
            self.graph, self.graph.nodes_without_constants, given, wanted, {}, _shapes(feeds)
        )
        seen = feeds | probe.run(feeds)
        for name in between:
            if not isinstance(seen[name], np.ndarray):
                raise InputError(
                    f"{name!r}, which is needed between two layers, is a list and no tensor.",
                    _SVD,
                    code="not-a-tensor",
                )
        self._folded = {name: seen[name] for name in folded}
        self._types = given | {name: seen[name].dtype for name in between if name not in given}
        self._shapes = {name: seen[name].shape for name in between}
        odd = {name for name in between if seen[name].shape[:1] != (size,)}
        self._stacked = odd if size == 1 else set()
        if size == 1 or odd:
            return size == 1
        # Each image for itself: the first one comes to the same, whatever the others are.
        feeds = {name: np.repeat(array[:1], size, axis=0) for name, array in feeds.items()}
        again = feeds | probe.run(feeds)
        return all(_near(seen[name][0], again[name][0]) for name in between)

    def _shape_dependent(self) -> list[str]:
        """Return what the steps read that is neither stored nor computed from the data."""
        read = {name for node in self.steps for name in reads_of(node)}
        return sorted(read - self.graph.stored - set(self.value_names))

    # The sites.

    def _wires(self, nodes: Sequence[NodeProto]) -> tuple[Wires, Wires]:
        def numbers(names: Sequence[str]) -> list[int]:
            return [self._number[name] for name in names if name in self._number]

        return [numbers(reads_of(n)) for n in nodes], [numbers(n.output) for n in nodes]

    def _find_sites(self, rewritten: Collection[str], refit: bool) -> dict[int, Site]:
        """Sites by the index of their step, in order."""
        convolutions = main_convolutions(self.graph)
        found = {}
        for index, node in enumerate(self.steps):
            convolution = convolutions.get(key(node))
            if convolution is not None and convolution.name in rewritten:
                found[index] = self._convolution(index, convolution, "conv")
            elif not refit:
                continue
            elif convolution is not None and _is_shortcut(convolution):
                found[index] = self._convolution(index, convolution, "shortcut")
            else:
                head = head_at(self.graph, node)
                if head is not None:
                    self._heads[index] = head
                    found[index] = self._head(node, head)
        return found

    def _convolution(self, index: int, convolution: OnnxConvolution, role: Role) -> Site:
        spec, node = convolution.spec, convolution.node
        assert spec is not None, "only what has a geometry is a site"
        kernel, bias = conv_weights(self.graph, node)
        tail = tail_after(self.graph, node, spec.out_channels)
        return Site(
            name=spec.name,
            role=role,
            spec=spec,
            kernel=kernel,
            bias=np.zeros(spec.out_channels) if bias is None else bias,
            reads=self._number[node.input[0]],
            norm=None if tail is None else tail.norm,
            beside=self._beside(index, key(node) if tail is None else tail.output),
            channels_first=True,
        )

    def _head(self, node: NodeProto, head: Head) -> Site:
        features, units = head.kernel.shape
        name = self.graph.names[key(node)]
        return Site(
            name=name,
            role="head",
            spec=ConvSpec(name=name, kernel_size=(1, 1), in_channels=features, out_channels=units),
            kernel=head.kernel[None, None],
            bias=head.bias,
            reads=self._number[node.input[0]],
            norm=None,
        )

    def _beside(self, index: int, value: str) -> int | None:
        """Return the other operand of the sum that a value goes into, if known before a step."""
        after = self.graph.only_reader(value)
        if after is None or not is_op(after, "Add", "Sum") or len(after.input) != 2:
            return None
        other = next((name for name in after.input if name != value), "")
        shapes = self.graph.shapes
        same = shapes.get(other) is not None and shapes.get(other) == shapes.get(value)
        if not same or other not in self._number:
            return None
        return self._number[other] if self._writer.get(other, -1) < index else None


def _shapes(values: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in values.items()}


def _is_shortcut(convolution: OnnxConvolution) -> bool:
    return convolution.reason is not None and convolution.reason.code == "pointwise"


def _inexact(array: Array) -> bool:
    """Tell whether float32 cannot hold these whole numbers."""
    return bool(np.any(np.asarray(array, np.float32).astype(np.float64) != array))


def _near(first: Array, second: Array) -> bool:
    """Tell whether two results are the same but for rounding."""
    size = np.abs(first[np.isfinite(first)]).max(initial=0)
    same = first.shape == second.shape
    return same and np.allclose(first, second, rtol=1e-3, atol=1e-3 * size, equal_nan=True)
