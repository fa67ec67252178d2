"""What a handler works with: operands, layers, weights and axis orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from . import layout
from .graph import Graph, Node
from .maker import KerasMaker
from .neighbours import bias_of, is_non_negative, origin
from .probe import ProbedValues
from .values import Constant, Order, Sizes, Tensor, Value, in_float32
from .weights import Arrange, Binding

_WITHOUT_KERAS = (
    "`dsconvert rewrite`, `export --format onnx` and `profile` take the .onnx file itself, "
    "without Keras; or cut the part with this operator off."
)


def refuse(node: Node, why: str, hint: str = _WITHOUT_KERAS) -> InputError:
    """Return the error for a node that cannot be drawn in Keras; to be raised."""
    return InputError(f"{node} cannot be imported: {why}.", hint, code="operator-not-imported")


def _computed(node: Node, name: str) -> InputError:
    return refuse(
        node,
        f"its input {name!r} is computed from the model's inputs, and Keras needs a constant there",
    )


def _as_it_is(array: Array) -> Array:
    return array


class KerasBuilder(KerasMaker):
    """Draws one graph in Keras.

    Args:
        graph: The graph.
        facts: What is known of its values.

    Attributes:
        graph: The graph.
        bindings: Which variable came from which stored tensor, so far.
        notes: Sentences for the user, so far.
    """

    def __init__(self, graph: Graph, facts: ProbedValues) -> None:
        super().__init__()
        self.graph = graph
        self.bindings: list[Binding] = []
        self.notes: list[str] = []
        self._facts = facts
        self._values: dict[str, Value] = {}
        self._reordered: dict[tuple[str, Order], Tensor] = {}
        self._absorbed: set[int] = set()

    # --- operands -------------------------------------------------------------------------

    def value(self, node: Node, index: int) -> Value:
        """Input `index`: a `Tensor`, or a `Constant` where it does not depend on the data."""
        value = self._values[node.inputs[index]]
        if isinstance(value, Constant) and not value.is_fixed:
            value = self._for_each_sample(value) or value
        return self.unflatten(value) if isinstance(value, Tensor) else value

    def tensor(self, node: Node, index: int = 0, *, rows: bool = False) -> Tensor:
        """Input `index`, which has to depend on the data.

        Args:
            node: The node.
            index: Which input.
            rows: Whether the handler copes with `Tensor.rows`; else there will be none.

        Raises:
            InputError: If it is a constant.
        """
        value = self._values[node.inputs[index]]
        if isinstance(value, Constant):
            drawn = None if value.is_fixed else self._for_each_sample(value)
            if drawn is None:
                raise refuse(node, f"its input {value.name!r} is a constant")
            return drawn
        return value if rows else self.unflatten(value)

    def constant(self, node: Node, index: int, default: Any = None) -> Any:
        """Return the value of input `index` as an array, or the default where it is left out.

        Floats come in float32.

        Raises:
            InputError: If it depends on the data or on free sizes.
        """
        if not node.has(index):
            return default
        value = self._values[node.inputs[index]]
        if isinstance(value, Tensor):
            raise _computed(node, value.name)
        return value.value

    def is_constant(self, node: Node, index: int) -> bool:
        """Tell whether input `index` is given and does not depend on the data."""
        return node.has(index) and isinstance(self._values[node.inputs[index]], Constant)

    def setting(self, node: Node, name: str, index: int, default: Any = None) -> Any:
        """Return what older opsets have as attribute `name` and newer ones as input `index`.

        An input comes as an array, an attribute as it is.
        """
        if name in node.attributes:
            return node.attributes[name]
        return self.constant(node, index, default)

    def sizes(self, name: str) -> tuple[Sizes, ...]:
        """Return the shape of a data-dependent value in ONNX axes, once per probe."""
        return self._facts.shapes[name]

    def output_shapes(self, node: Node, index: int = 0) -> tuple[Sizes, ...]:
        """Return the shape of output `index` in ONNX axes, once per probe."""
        return self._facts.shapes[node.outputs[index]]

    # --- making things ----------------------------------------------------------------------

    def result(
        self, node: Node, tensor: Any, order: Order, index: int = 0, rows: Array | None = None
    ) -> Tensor:
        """Output `index` of a node: a Keras tensor and the ONNX axis at each of its axes."""
        name = node.outputs[index]
        return Tensor(name, tensor, tuple(order), self._facts.shapes[name], rows)

    def weight(
        self,
        node: Node,
        index: int,
        layer: Any,
        variable: str,
        arrange: Arrange = _as_it_is,
        scale: float = 1.0,
    ) -> None:
        """Fill a variable of a built layer from input `index`, and remember the way back.

        Args:
            node: The node.
            index: Which input holds the weight.
            layer: A layer that is built.
            variable: The attribute that holds the variable, such as ``"kernel"``.
            arrange: Moves the stored elements to where Keras has them; computes nothing.
            scale: What they are multiplied by.
        """
        reader, place, moves = origin(self.graph, node, index)
        value = reader.inputs[place]
        if value not in self._facts.constants:
            raise _computed(node, value)
        if moves is None:
            whole = arrange
        else:
            first = moves

            def whole(stored: Array) -> Array:
                return arrange(first(stored))

        binding = Binding(layer.name, variable, reader.index, place, value, whole, scale)
        getattr(layer, variable).assign(binding.forward(self._facts.constants[value][0]))
        self.bindings.append(binding)

    # --- what is around a node ----------------------------------------------------------------

    def is_used(self, name: str) -> bool:
        """Tell whether anybody reads a value."""
        return name in self.graph.consumers or name in self.graph.outputs

    def refuse_outputs(self, node: Node, first: int, what: str) -> None:
        """Refuse a node of which more outputs are used than are drawn.

        Raises:
            InputError: If output `first` or a later one is read by anybody.
        """
        for name in node.outputs[first:]:
            if self.is_used(name):
                raise refuse(
                    node, f"its output {name!r} ({what}) is used, and no Keras layer has it"
                )

    def bias_after(self, node: Node, channel_axis: int) -> tuple[Node, int] | None:
        """Return the Add that gives a node its bias, and which of its inputs holds it.

        It counts as drawn from then on: the layer takes the bias as a weight that trains.

        Args:
            node: A convolution or matrix product without a bias of its own.
            channel_axis: The ONNX axis of its output along which there is one bias each.
        """
        found = bias_of(self.graph, node, self.output_shapes(node)[0], channel_axis)
        if found is not None:
            self._absorbed.add(found[0].index)
        return found

    def absorbed(self, node: Node) -> Tensor | None:
        """Return the output of a node that the layer before it has taken in."""
        if node.index not in self._absorbed:
            return None
        x = next(v for v in map(self.read, node.inputs) if isinstance(v, Tensor))
        return Tensor(node.outputs[0], x.keras, x.order, x.shapes, x.rows)

    def is_non_negative(self, name: str) -> bool:
        """Tell whether a value is known to hold nothing below zero."""
        return is_non_negative(self.graph, name)

    # --- axis orders ------------------------------------------------------------------------

    def channels_last(self, x: Tensor) -> Tensor:
        """Return the tensor as (N, ..., C)."""
        return self.reorder(x, layout.channels_last(x.rank))

    def onnx_order(self, x: Tensor) -> Tensor:
        """Return the tensor with its axes as ONNX has them."""
        return self.reorder(x, layout.identity(x.rank))

    def reorder(self, x: Tensor, order: Order) -> Tensor:
        """Return the tensor with its axes in this order; transposed once for all who ask."""
        if x.order == order:
            return x
        known = self._reordered.get((x.name, order))
        if known is not None:
            return known
        perm = tuple(x.order.index(axis) for axis in order)
        name = f"{x.name}_transposed"
        if layout.is_trivial(x.shapes, x.order, order):
            tensor = self.reshape(
                x.keras, stored_shapes(x.shapes, x.order), stored_shapes(x.shapes, order), name
            )
        elif perm[0] == 0:
            tensor = self.keras.layers.Permute(perm[1:], name=self.name(name), dtype=x.keras.dtype)(
                x.keras
            )
        else:
            tensor = self.keras.ops.transpose(x.keras, perm)
            self.rename(tensor, name)
        moved = Tensor(x.name, tensor, order, x.shapes)
        self._reordered[x.name, order] = moved
        return moved

    def unflatten(self, x: Tensor) -> Tensor:
        """Return the tensor without `Tensor.rows`."""
        if x.rows is None:
            return x
        tensor = self.keras.ops.take(x.keras, np.argsort(x.rows).astype(np.int32), axis=-1)
        self.rename(tensor, f"{x.name}_sorted")
        return Tensor(x.name, tensor, x.order, x.shapes)

    def spread(
        self, node: Node, x: Tensor, axes: Sequence[int], shapes: Sequence[Sizes]
    ) -> Tensor | None:
        """Repeat axes of one position to free sizes: those of a tensor that is drawn already.

        Args:
            node: The node.
            x: A tensor.
            axes: The ONNX axes, of one position in every probe.
            shapes: The shape that is wanted, once per probe.

        Returns:
            The tensor with these axes as long as wanted; None if no tensor drawn so far has
            these sizes at these axes, and the batch of ``x``.
        """
        same = (0, *axes)
        wanted = [
            tuple(new[axis] if axis in axes else size for axis, size in enumerate(old))
            for old, new in zip(x.shapes, shapes, strict=True)
        ]
        for other in self._values.values():
            if not isinstance(other, Tensor) or other.rank != x.rank or other.rows is not None:
                continue
            pairs = zip(other.shapes, wanted, strict=True)
            if any(ours[axis] != size[axis] for ours, size in pairs for axis in same):
                continue
            like = self.reorder(other, x.order).keras
            zeros = self.apply(node, "zeros_like", like, dtype=x.keras.dtype)
            first = tuple(slice(None) if axis in same else slice(1) for axis in x.order)
            longer = self.apply(node, "add", x.keras, self.view(node, zeros, first))
            return Tensor(f"{x.name}/{node.name}", longer, x.order, tuple(wanted))
        return None

    def align(self, node: Node) -> tuple[list[Any], Order]:
        """Return all inputs of an elementwise node in one axis order, ready to be broadcast.

        Returns:
            Keras tensors and arrays, and their common order. Constants are transposed here, at
            import; single numbers come as 0-d arrays.
        """
        values = [self.value(node, i) for i in range(len(node.inputs)) if node.has(i)]
        return self.align_values(values)

    def align_values(self, values: Sequence[Value]) -> tuple[list[Any], Order]:
        """As `align`, for values."""
        rank = max(len(_shapes(value)[0]) for value in values)
        tensors = [value for value in values if isinstance(value, Tensor)]
        full = [value for value in tensors if value.rank == rank]
        order = layout.identity(rank)
        if full:  # the largest is not to be moved
            order = max(full, key=lambda value: np.prod(value.shapes[0], dtype=np.int64)).order
        aligned = [self._aligned(value, order) for value in values]
        return [self.held(x, tensors[0].keras) for x in aligned], order

    # --- the drawing itself -------------------------------------------------------------------

    def store(self, value: Value) -> None:
        """Make a value known to the nodes that read it."""
        self._values[value.name] = value

    def read(self, name: str) -> Value:
        """Return a value by its ONNX name."""
        return self._values[name]

    def _for_each_sample(self, value: Constant) -> Tensor | None:
        """Return a constant that is the same for each sample, with a batch that is free.

        Coordinates, tokens and grids are expanded so. None where it is no such constant.
        """
        info = next((x for x in self.graph.inputs if self._has_rows_of(value, x.name)), None)
        if info is None:
            return None
        source, row = self.read(info.name), in_float32(value.probes[0][:1])
        assert isinstance(source, Tensor), "an input holds data"
        shapes = tuple(probe.shape for probe in value.probes)
        one = self.keras.ops.get_item(source.keras, (slice(None), *[slice(1)] * (source.rank - 1)))
        self.rename(one, f"{value.name}_near")
        ones = [(size, *(1,) * (row.ndim - 1)) for size, *_ in shapes]
        near = [(size, *(1,) * (source.rank - 1)) for size, *_ in shapes]
        one = self.reshape(one, near, ones, f"{value.name}_axes")
        zeros = self.keras.ops.zeros_like(one, dtype=row.dtype.name)
        self.rename(zeros, f"{value.name}_zeros")
        join = "logical_or" if row.dtype.kind == "b" else "add"
        made = getattr(self.keras.ops, join)(zeros, self.held(row, source.keras))
        self.rename(made, value.name)
        drawn = Tensor(value.name, made, layout.identity(row.ndim), shapes)
        self.store(drawn)
        return drawn

    def _has_rows_of(self, value: Constant, name: str) -> bool:
        """Tell whether a constant has one and the same row for each sample of an input."""
        counts = [shape[:1] for shape in self._facts.inputs[name]]
        row = value.probes[0][:1]
        return [probe.shape[:1] for probe in value.probes] == counts and all(
            probe.shape[1:] == row.shape[1:] and bool((probe == row).all())
            for probe in value.probes
        )

    def _aligned(self, value: Value, order: Order) -> Any:
        rank = len(order)
        if isinstance(value, Constant):
            array = value.value
            if array.size == 1:
                return array.reshape(())
            return array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(order)
        missing = rank - value.rank
        if missing:
            whole = self.onnx_order(value)
            shapes = tuple((1,) * missing + sizes for sizes in value.shapes)
            tensor = self.reshape(whole.keras, value.shapes, shapes, f"{value.name}_expanded")
            value = Tensor(f"{value.name}/{rank}", tensor, layout.identity(rank), shapes)
        return self.reorder(value, order).keras


def stored_shapes(shapes: Sequence[Sizes], order: Order) -> tuple[Sizes, ...]:
    """Shapes in ONNX axes as the Keras axes of a tensor in this order."""
    return tuple(tuple(sizes[axis] for axis in order) for sizes in shapes)


def _shapes(value: Value) -> Sequence[Sizes]:
    return value.shapes if isinstance(value, Tensor) else [p.shape for p in value.probes]
