"""Sizes that a network of tf.keras 2 computes from the shapes of its tensors, as numbers.

``tf.reshape(x, [tf.shape(x)[0], -1])`` is recorded as four layers. A shape is known once the layers
before it are built; what is computed from shapes alone is computed here, by TensorFlow itself, and
the numbers stand in the calls that take them. The number of samples is found by doing all of it at
two of them: a size that grows with it is -1 then, or a copy of a constant for each sample.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array, Shape

from .graph import is_tensor
from .tf_calls import (
    OPERATORS,
    call_of,
    first_tensor,
    function_of,
    references,
    shape_function,
    with_call,
    with_references,
)
from .tf_numbers import MOST, by_tensorflow, index_of
from .tf_spelled import Spelled
from .tree import Config, edit, name_of, with_config

if TYPE_CHECKING:
    import keras

Build = Callable[[Config], "keras.Model"]
"""Builds a part of the network; raises `InputError` where it cannot."""
Place = tuple[str, int]
"""A layer and the number of its output."""
Values = tuple[Array, ...]
"""What a tensor is at each of `_BATCHES`."""

_BATCHES = (5, 7)
_FREE = -1
"""In the place of a size that grows with the number of samples."""


def known_shapes(model: Config, build: Build) -> tuple[Config, str | None]:
    """Put numbers in the place of what is computed from shapes.

    Args:
        model: The configuration; functional models inside it are done as well.
        build: Builds a part of one.

    Returns:
        The configuration, and what was done.
    """
    told: list[str] = []

    def change(item: Config) -> Config | None:
        layers = item["config"].get("layers")
        if not isinstance(layers, list) or not any(shape_function(one) for one in layers):
            return None
        try:
            done = _Folding(item, build).done()
        except InputError:
            return None  # the whole model will be refused for the same reason, by its name
        if done is not None:
            told.append(item["config"].get("name") or item["class_name"])
        return done

    changed, _ = edit(model, change)
    return changed, f"computed the sizes that {', '.join(told)} takes from shapes" if told else None


class _Folding:
    """One functional model, whose layers are replaced one after the other."""

    def __init__(self, item: Config, build: Build) -> None:
        self.item, self.build = item, build
        self.layers: dict[str, Config] = {name_of(one): one for one in item["config"]["layers"]}
        self.known: dict[Place, Values] = {}
        self.shapes: dict[Place, tuple[Shape, ...]] = {}

    def done(self) -> Config | None:
        """Return the model with every size that could be found; None where there is none."""
        if not all(map(_has_sizes, self.layers.values())):
            return None
        found = False
        while self._measure():
            found = True
            while self._compute():
                pass
            for name in list(self.layers):
                self._settle(name)
        return self._without_unread() if found else None

    # Shapes.

    def _measure(self) -> bool:
        """Find shapes that can be had by now; tell whether there was a new one."""
        wanted = [
            ref
            for name, layer in self.layers.items()
            if shape_function(layer) and (name, 0) not in self.known
            for ref in [first_tensor(layer)]
            if ref is not None and self._plain(ref)
        ]
        if not wanted:
            return False
        beside = [
            ref
            for layer in self.layers.values()
            if function_of(layer) == "reshape"
            for ref in [first_tensor(layer)]
            if ref is not None and (ref[0], ref[2]) not in self.shapes and self._plain(ref)
        ]
        refs = [ref for ref in (*wanted, *beside) if (ref[0], ref[2]) not in self.shapes]
        if refs:
            each = [self._shapes_at(refs, batch) for batch in _BATCHES]
            for place, *shapes in zip([(r[0], r[2]) for r in refs], *each, strict=True):
                self.shapes[place] = tuple(shapes)
        for name, layer in self.layers.items():
            function, ref = shape_function(layer), first_tensor(layer)
            if function and ref is not None and (ref[0], ref[2]) in self.shapes:
                at = self.shapes[ref[0], ref[2]]
                self.known[name, 0] = tuple(np.asarray(_of_shape(function, one)) for one in at)
        return True

    def _plain(self, ref: list[Any]) -> bool:
        """Tell whether all that a tensor depends on can be built."""
        return all(
            not shape_function(self.layers[name])
            and not any(place[0] == name for place in self.known)
            for name in self._before(ref[0])
        )

    def _before(self, name: str) -> list[str]:
        """Name a layer and all that it depends on, in the order of the model."""
        found, left = set(), [name]
        while left:
            one = left.pop()
            if one not in found and one in self.layers:
                found.add(one)
                left += [ref[0] for ref in references(self.layers[one].get("inbound_nodes"))]
        return [one for one in self.layers if one in found]

    def _shapes_at(self, refs: list[list[Any]], batch: int) -> list[Shape]:
        """Build what some tensors depend on, for so many samples, and look at their shapes."""
        needed = {name for ref in refs for name in self._before(ref[0])}
        layers = [_at(self.layers[name], batch) for name in self.layers if name in needed]
        inputs = [[n, 0, 0] for n in needed if self.layers[n]["class_name"] == "InputLayer"]
        part = with_config(
            self.item,
            layers=layers,
            input_layers=inputs,
            output_layers=[ref[:3] for ref in refs],
            name="part",
        )
        model = self.build({**part, "class_name": "Functional"})
        return [tuple(tensor.shape) for tensor in model.outputs]

    # Values.

    def _compute(self) -> bool:
        """Compute what depends on known values alone; tell whether there was anything."""
        found = False
        for name, layer in self.layers.items():
            if (name, 0) in self.known or layer["class_name"] not in OPERATORS:
                continue
            refs = list(references(layer.get("inbound_nodes")))
            if not refs or not all((ref[0], ref[2]) in self.known for ref in refs):
                continue
            each = [self._value(layer, place) for place in range(len(_BATCHES))]
            results = [one for one in each if one]
            if len(results) < len(_BATCHES):
                continue
            if function_of(layer) in _FILLED and results[0][0].shape != results[1][0].shape:
                continue  # for each sample one: stands for no number
            for index, values in enumerate(zip(*results, strict=True)):
                self.known[name, index] = values
                found = True
        return found

    def _value(self, layer: Config, place: int) -> list[Array] | None:
        """Return the outputs of a layer, at one number of samples."""
        first, keywords = call_of(layer)
        first, keywords = (
            with_references(value, lambda ref: self.known[ref[0], ref[2]][place])
            for value in (first, keywords)
        )
        if layer["class_name"] == "SlicingOpLambda":
            return [np.asarray(first)[index_of(keywords["slice_spec"])]]
        return by_tensorflow(function_of(layer), str(layer["config"]["function"]), first, keywords)

    def _number(self, ref: list[Any]) -> Any:
        """Return a known tensor as numbers, with -1 where they grow with the samples.

        Raises:
            ValueError: If it depends on the samples in another way.
        """
        one, other = self.known[ref[0], ref[2]]
        if one.shape != other.shape:
            raise ValueError(ref[0])
        if (one == other).all():
            return one.tolist()
        free = one * _BATCHES[1] == other * _BATCHES[0]
        if one.dtype.kind != "i" or not (free | (one == other)).all():
            raise ValueError(ref[0])
        return np.where(one == other, one, _FREE).tolist()

    # Calls that take them.

    def _settle(self, name: str) -> None:
        """Put numbers into the call of a layer that takes known values besides others."""
        layer = self.layers[name]
        if layer["class_name"] not in OPERATORS or (name, 0) in self.known:
            return
        if not any(
            (ref[0], ref[2]) in self.known for ref in references(layer.get("inbound_nodes"))
        ):
            return
        first, keywords = call_of(layer)
        function = function_of(layer)
        try:
            keywords = {k: self._put(v) for k, v in keywords.items()}
            first = self._put(first)
        except ValueError:
            return
        if function == "reshape" and isinstance(keywords.get("shape"), list):
            keywords["shape"] = self._one_free(first, keywords["shape"])
            if keywords["shape"] is None:
                return
        elif function == "slice":
            if not _to_the_end(keywords):
                return
        elif self._free_in(layer) and function in _FILLED:
            self._fill(name, function, first, keywords)
            return
        elif self._free_in(layer):
            return
        self.layers[name] = with_call(layer, first, keywords)

    def _free_in(self, layer: Config) -> bool:
        refs = [r for r in references(layer["inbound_nodes"]) if (r[0], r[2]) in self.known]
        values = [np.asarray(self._number(ref)) for ref in refs]
        at = [self.known[ref[0], ref[2]][0] for ref in refs]
        return any((v != one).any() for v, one in zip(values, at, strict=True))

    def _put(self, value: Any) -> Any:
        """Replace known tensors by numbers."""
        return with_references(
            value,
            lambda ref: self._number(ref) if (ref[0], ref[2]) in self.known else ref[:3],
        )

    def _one_free(self, x: Any, shape: list[Any]) -> list[Any] | None:
        """Return a shape that leaves one size free at most."""
        if not all(isinstance(size, int) for size in shape):
            return None
        if shape.count(_FREE) <= 1:
            return shape
        at = self.shapes.get((x[0], x[2])) if is_tensor(x) else None
        if at is None or shape.count(_FREE) > 2:
            return None
        # [samples, -1]: what is left for the second is known from the sizes of one sample.
        rest = prod(size for size in shape if size != _FREE)
        counts = [prod(size or 0 for size in one) for one in at]
        each = {n // (rest * batch) for n, batch in zip(counts, _BATCHES, strict=True) if rest}
        if len(each) != 1 or any(
            n % (rest * batch) for n, batch in zip(counts, _BATCHES, strict=True)
        ):
            return None
        first = shape.index(_FREE)
        second = shape.index(_FREE, first + 1)
        return [each.pop() if place == second else size for place, size in enumerate(shape)]

    def _fill(self, name: str, function: str, first: Any, keywords: Config) -> None:
        """Let a constant stand for each sample: zeros, ones, fill, tile and broadcast_to."""
        made = _filled(function, first, keywords)
        source = next(
            (one for one in self.layers.values() if one["class_name"] == "InputLayer"), None
        )
        if made is None or source is None:
            return
        rank = len(_input_shape(source) or ())
        do = Spelled(name)
        spec = [{"start": None, "stop": None, "step": None}, *[0] * (rank - 1)]
        flat = do.item([name_of(source), 0, 0], spec) if rank > 1 else [name_of(source), 0, 0]
        zero = do("zeros_like", do("cast", flat, dtype="float32"))
        column = do("reshape", zero, shape=[-1, *[1] * (made.ndim - 1)])
        do("math.add", column, y=made.tolist())
        layers: dict[str, Config] = {}
        for key, layer in self.layers.items():
            layers |= {name_of(one): one for one in do.layers()} if key == name else {key: layer}
        self.layers = layers

    def _without_unread(self) -> Config:
        """Return the model without the layers that nothing needs any more."""
        config = self.item["config"]
        ends = [ref[0] for ref in references(config["output_layers"])]
        ends += [ref[0] for ref in references(config["input_layers"])]
        needed = {name for end in ends for name in self._before(end)}
        kept = [layer for name, layer in self.layers.items() if name in needed]
        return with_config(self.item, layers=kept)


_FILLED = ("zeros", "ones", "fill", "tile", "broadcast_to")


def _filled(function: str, first: Any, keywords: Config) -> Array | None:
    """Return what stands for each sample, (1, …); None where samples are not what is made."""
    dtype = keywords.get("dtype", "float32")
    if function in ("zeros", "ones", "fill"):
        shape = keywords.get("shape", keywords.get("dims", first))
        value = {"zeros": 0.0, "ones": 1.0}.get(function, keywords.get("value"))
        if dtype != "float32" or not isinstance(value, float) or not _per_sample(shape):
            return None
        return np.full((1, *shape[1:]), value, np.float32)
    key = "multiples" if function == "tile" else "shape"
    sizes, base = keywords.get(key), np.asarray(first if not is_tensor(first) else np.nan)
    if not _per_sample(sizes) or base.dtype.kind != "f" or base.ndim == 0:
        return None
    if base.size * prod(sizes[1:]) > MOST:
        return None
    if function == "tile":
        same = base.ndim == len(sizes) and base.shape[0] == 1
        return np.tile(base, (1, *sizes[1:])) if same else None
    if base.ndim == len(sizes) and base.shape[0] != 1:
        return None
    return np.broadcast_to(base, (1, *sizes[1:]))


def _to_the_end(keywords: Config) -> bool:
    """Tell whether a slice takes from each free axis all of it, or numbers."""
    starts, sizes = keywords.get("begin"), keywords.get("size")
    return (
        isinstance(starts, list)
        and isinstance(sizes, list)
        and all(n != _FREE or start == 0 for n, start in zip(sizes, starts, strict=True))
    )


def _per_sample(shape: Any) -> TypeGuard[list[int]]:
    """Tell whether a shape has the samples first, and numbers behind."""
    return (
        isinstance(shape, list)
        and shape[:1] == [_FREE]
        and all(isinstance(size, int) and size >= 0 for size in shape[1:])
        and prod(shape[1:]) <= MOST
    )


def _of_shape(function: str, shape: Shape) -> Any:
    if function == "shape":
        return np.asarray(shape, np.int32)
    return np.int32(len(shape) if function == "rank" else prod(size or 0 for size in shape))


def _input_shape(layer: Config) -> list[Any] | None:
    found: list[Any] | None = layer["config"].get("batch_input_shape") or layer["config"].get(
        "batch_shape"
    )
    return found


def _has_sizes(layer: Config) -> bool:
    """Tell whether an input's shape is known but for the samples; every other layer is fine."""
    if layer["class_name"] != "InputLayer":
        return True
    shape = _input_shape(layer)
    return shape is not None and all(isinstance(size, int) for size in shape[1:])


def _at(layer: Config, batch: int) -> Config:
    """Return an input layer for so many samples, and any other as it is."""
    if layer["class_name"] != "InputLayer":
        return layer
    key = "batch_input_shape" if "batch_input_shape" in layer["config"] else "batch_shape"
    return with_config(layer, **{key: [batch, *layer["config"][key][1:]]})
