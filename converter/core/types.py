"""The nouns of the rewrite. Everything here is frozen; what is a Struct can be written as JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from dsconvert.base.predictor import Array

Float = NDArray[np.float64]
Size = tuple[int, int]
Padding = Literal["same", "same-lower", "valid"] | tuple[Size, Size]
Order = Literal["depthwise-first", "pointwise-first"]
OrderChoice = Literal["depthwise-first", "pointwise-first", "auto"]
Lowering = Literal["sum", "multiplier"]
Method = Literal["data", "svd", "random"]

ORDERS: tuple[Order, ...] = ("depthwise-first", "pointwise-first")

STEM_CHANNELS = 4
"""Up to this many input channels (grey, RGB, RGBA) a first layer gains no time."""


class ConvSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A two-dimensional convolution without its weights.

    Attributes:
        name: The layer's or node's name, unique in the model.
        kernel_size: (kh, kw).
        strides: (vertical, horizontal).
        dilation: (vertical, horizontal).
        padding: "same" (TensorFlow's: the odd pixel goes to the end), "same-lower" (ONNX: it
            goes to the start), "valid", or explicit ((top, bottom), (left, right)).
        in_channels: C, of the whole input.
        out_channels: N.
        groups: 1 for a standard convolution.
        use_bias: Whether it adds a bias of its own.
        input_size: (H, W) of each call; None where the model leaves it free.
    """

    name: str
    kernel_size: Size
    strides: Size = (1, 1)
    dilation: Size = (1, 1)
    padding: Padding = "valid"
    in_channels: int
    out_channels: int
    groups: int = 1
    use_bias: bool = True
    input_sizes: tuple[Size | None, ...] = ()

    @property
    def taps(self) -> int:
        """k² = kh·kw."""
        return self.kernel_size[0] * self.kernel_size[1]

    def full_rank(self, order: Order) -> int:
        """Return the number of pairs that reproduces any kernel: min(k², N), or min(k², C)."""
        mixed = self.out_channels if order == "depthwise-first" else self.in_channels
        return min(self.taps, mixed)


class Reason(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a layer is left alone.

    Attributes:
        code: One word to filter by, e.g. "stem", "groups", "excluded".
        text: The sentence, with its numbers.
    """

    code: str
    text: str


NOT_FINITE = Reason(code="not-finite", text="its weights hold NaN or infinity")
"""Of a diverged training, or of values that overflowed in float16."""


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a convolution is replaced by.

    Attributes:
        pairs: T, the number of depthwise + pointwise pairs.
        order: Which of the two comes first; "auto" takes the lower error at equal cost.
        lowering: How T > 1 pairs are written down: as T branches that are summed, or, depthwise
            first only, as one depthwise convolution with depth_multiplier T and one pointwise.
        block: The name of a block style: "linear" has nothing between the two, as SeparableConv2D;
            see `fitting.styles`.
        channels: R, the channels inside a block whose width is free; unset where the style has
            none.
    """

    pairs: int = 1
    order: OrderChoice = "auto"
    lowering: Lowering = "sum"
    block: str = "linear"
    channels: int | msgspec.UnsetType = msgspec.UNSET


class Figure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one form of a block costs, and how sure that is.

    Attributes:
        value: The median, in the cost model's unit.
        ratio_low: Lower end of the 95 % interval of value / the original's value; the original
            itself has 1. For an estimate that is exact, the ratio itself.
        ratio_high: The upper end.
        faster: Whether it is cheaper than the original by more than the noise.
    """

    value: float
    ratio_low: float = 1.0
    ratio_high: float = 1.0
    faster: bool = False


class Effect(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"output_error": "harm"},
):
    """What one choice for one layer does, all other layers being as they were.

    Attributes:
        data_error: ‖y − ŷ‖ / ‖y − E y‖ of the layer on calibration patches.
        output_error: To the network's outputs on held-out images: KL of class distributions in
            nats, squared relative error of other outputs, summed.
    """

    data_error: float
    output_error: float


class LayerPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One convolution of the plan: either a choice or the reason why there is none.

    Attributes:
        name: Its name in the model.
        spec: Its geometry; None for what is no two-dimensional convolution.
        choice: What it becomes.
        reason: Why it is left alone.
        effect: What the choice, alone, was measured to do.
        cost_before: What the convolution costs on the plan's target, over all its calls.
        cost_after: The same for the choice.
    """

    name: str
    spec: ConvSpec | None
    choice: Choice | None = None
    reason: Reason | None = None
    effect: Effect | None = None
    cost_before: Figure | None = None
    cost_after: Figure | None = None


class Totals(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"output_error": "harm"},
):
    """A whole network.

    Attributes:
        macs: Multiply-accumulates of one image; None where its size is free.
        params: Weights.
        bytes: Of the weights, at the plan's precision.
        cost: On the plan's target, in its unit; None where nothing was measured.
        output_error: The sum of the layers' harms: a prediction.
        arena: Bytes of the activations on a microcontroller; unset where nobody asked.
        flash: Bytes of the .tflite file; likewise.
    """

    macs: int | None
    params: int
    bytes: int
    cost: float | None = None
    output_error: float = 0.0
    arena: int | msgspec.UnsetType = msgspec.UNSET
    flash: int | msgspec.UnsetType = msgspec.UNSET


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do with every convolution of one model; editable and replayable.

    Attributes:
        schema: Name and version of this record.
        source_sha256: Of the model's file.
        target: What the costs were measured on, in words; empty if nothing was measured.
        unit: Of the costs: "ms" or "cycles".
        goal: What was asked for, in words.
        before: The network as it is.
        after: The network as planned.
        notes: How the choice was made.
        layers: Every convolution in the order of the network.
    """

    schema: Literal["dsconvert.plan/1"] = "dsconvert.plan/1"
    source_sha256: str = ""
    target: str = ""
    unit: str = ""
    goal: tuple[str, ...] = ()
    before: Totals | None = None
    after: Totals | None = None
    notes: tuple[str, ...] = ()
    layers: tuple[LayerPlan, ...]

    @property
    def chosen(self) -> dict[str, Choice]:
        """The layers that will be rewritten, in the order of the network."""
        return {layer.name: layer.choice for layer in self.layers if layer.choice is not None}


@dataclass(frozen=True)
class Depthwise:
    """A depthwise convolution with the strides, dilation and padding of what it stands for.

    Attributes:
        kernel: (kh, kw, G, m): G channels, each with m outputs, which follow each other.
        ending: What its name ends with.
    """

    kernel: Float
    ending: str = "dw"


@dataclass(frozen=True)
class Pointwise:
    """A 1×1 convolution.

    Attributes:
        kernel: (C, N).
        ending: What its name ends with.
    """

    kernel: Float
    ending: str = "pw"


@dataclass(frozen=True)
class NormActivation:
    """A BatchNorm and a ReLU: z → relu((z − μ)/√(σ² + ε)·γ + β).

    Attributes:
        mean: μ of each channel: (T, C) for T pairs, (G,) as a layer of a branch.
        variance: σ², of the same shape.
        gamma: γ, of the same shape.
        beta: β, of the same shape.
        epsilon: ε.
    """

    mean: Float
    variance: Float
    gamma: Float
    beta: Float
    epsilon: float = 1e-3

    def each(self, change: Callable[[Float], Float]) -> NormActivation:
        """Apply a function to every array."""
        mean, variance, gamma, beta = map(change, (self.mean, self.variance, self.gamma, self.beta))
        return NormActivation(mean, variance, gamma, beta, self.epsilon)


BlockLayer = Depthwise | Pointwise | NormActivation
Branch = tuple[BlockLayer, ...]
"""Stock layers, one after the other; the last one is a convolution."""


@dataclass(frozen=True, kw_only=True)
class Factorization(ABC):
    """The weights of a block that stands for one convolution W (kh, kw, C, N).

    Attributes:
        bias: (N,), of the last operation; None leaves the convolution's own bias as it is.
        weight_error: ‖W − Ŵ‖ / ‖W‖ (Frobenius).
        data_error: ‖y − ŷ‖ / ‖y − E y‖ on the patches it was fitted to; None without data.
        notes: What a reader of the report should know about the fit.
    """

    bias: Float | None
    weight_error: float
    data_error: float | None = None
    notes: tuple[str, ...] = ()

    @property
    @abstractmethod
    def choice(self) -> Choice:
        """Return what this is, with nothing left open."""

    @property
    def linear(self) -> bool:
        """Tell whether `kernel` says all that it computes, besides the bias."""
        return True

    @abstractmethod
    def kernel(self) -> Float:
        """The kernel that it stands for, (kh, kw, C, N); norms and activations are left out."""

    @abstractmethod
    def scaled(self, gain: Float) -> Self:
        """Return the same with each output, before the bias, multiplied by its gain (N,)."""

    def renormed(self, change: Callable[[NormActivation], NormActivation]) -> Self:
        """Return the same with other norms inside; itself where it has none."""
        return self

    @abstractmethod
    def branches(self) -> list[Branch]:
        """Return the layers that are written down: of each branch, whose outputs are summed."""


def error_between(kernel: Array, approximation: Array) -> float:
    """‖W − Ŵ‖ / ‖W‖, zero for a zero kernel that is met exactly."""
    norm = float(np.linalg.norm(np.asarray(kernel, np.float64)))
    gap = float(np.linalg.norm(np.asarray(kernel, np.float64) - approximation))
    return gap / norm if norm > 0 else float(gap > 0)


def as_float(values: Any) -> Float:
    """Return a float64 copy or view, in which all algebra of the core is done."""
    return np.asarray(values, np.float64)
