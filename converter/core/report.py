"""What a rewrite did, as data: written as JSON, printed by the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from .fitting.cost import conv_macs, conv_params
from .fitting.styles import block_style
from .types import Choice, Factorization, LayerPlan, Method, Order, Plan, Reason


class LayerReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One convolution, before and after.

    Attributes:
        name: The layer's name.
        order: Which operation comes first; None if it was left alone.
        pairs: T; None if it was left alone.
        block: The block style; None if it was left alone.
        channels: R, the channels inside; None where the style has no such width.
        reason: Why it was left alone.
        macs_before: Per image, over all calls; None where the model leaves the size free.
        macs_after: The same for what stands there now.
        params_before: Weights and biases.
        params_after: The same for what stands there now.
        weight_error: ‖W − Ŵ‖ / ‖W‖; None for a block that stands for no kernel.
        data_error: ‖y − ŷ‖ / ‖y − E y‖ on calibration patches.
        notes: What a reader should know about the fit.
    """

    name: str
    order: Order | None = None
    pairs: int | None = None
    block: str | None = None
    channels: int | None = None
    reason: Reason | None = None
    macs_before: int | None = None
    macs_after: int | None = None
    params_before: int | None = None
    params_after: int | None = None
    weight_error: float | None = None
    data_error: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return what the layer became, e.g. "2 × depthwise-first"; empty if it was left alone."""
        if self.block is None or self.pairs is None:
            return ""
        choice = Choice(
            pairs=self.pairs,
            order=self.order or "auto",
            block=self.block,
            channels=msgspec.UNSET if self.channels is None else self.channels,
        )
        return block_style(self.block).text(choice)


class Trial(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"strategy": "recipe", "output_error": "harm"},
):
    """One way of fitting the network and what the held-out images said of it.

    Attributes:
        strategy: What the fit was free to do.
        output_error: KL of class distributions in nats, squared relative error of other outputs,
            summed.
    """

    strategy: str
    output_error: float


class RewriteReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole rewrite.

    Attributes:
        schema: Name and version of this record.
        method: How the pairs were found.
        source_sha256: Of the model file, where there is one.
        layers: Every convolution in the order of the network.
        macs_before: Of the whole model per image: convolutions and dense layers.
        macs_after: The same after.
        params_before: All weights of the model.
        params_after: The same after.
        calibration_images: Images the pairs were fitted to.
        held_out_images: Images that chose between the trials.
        trials: The ways tried, best first; the first one was taken.
        refitted: Layers that kept their form and got new weights.
        notes: What could not be carried over, and other remarks.
    """

    schema: Literal["dsconvert.rewrite/1"] = "dsconvert.rewrite/1"
    method: Method
    source_sha256: str = ""
    layers: tuple[LayerReport, ...]
    macs_before: int | None
    macs_after: int | None
    params_before: int
    params_after: int
    calibration_images: int = 0
    held_out_images: int = 0
    trials: tuple[Trial, ...] = ()
    refitted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rewritten(self) -> tuple[str, ...]:
        """Names of the convolutions that became pairs."""
        return tuple(layer.name for layer in self.layers if layer.pairs is not None)

    @property
    def untrained(self) -> tuple[str, ...]:
        """Name the blocks that must be fine-tuned, e.g. "MobileNet blocks", once per style."""
        styles = dict.fromkeys(layer.block for layer in self.layers if layer.block is not None)
        return tuple(f"{style.title}s" for style in map(block_style, styles) if style.untrained)


def layer_reports(plan: Plan, factors: Mapping[str, Factorization]) -> tuple[LayerReport, ...]:
    """Return one report per layer of the plan."""
    return tuple(_layer_report(layer, factors.get(layer.name)) for layer in plan.layers)


def _layer_report(layer: LayerPlan, factors: Factorization | None) -> LayerReport:
    spec = layer.spec
    if spec is None:
        return LayerReport(name=layer.name, reason=layer.reason)
    macs, params = conv_macs(spec), conv_params(spec)
    if factors is None:
        return LayerReport(
            name=layer.name,
            reason=layer.reason,
            macs_before=macs,
            macs_after=macs,
            params_before=params,
            params_after=params,
        )
    choice = factors.choice
    style = block_style(choice.block)
    return LayerReport(
        name=layer.name,
        order=None if choice.order == "auto" else choice.order,
        pairs=choice.pairs,
        block=choice.block,
        channels=None if choice.channels is msgspec.UNSET else choice.channels,
        macs_before=macs,
        macs_after=style.macs(spec, choice),
        params_before=params,
        params_after=style.params(spec, choice, bias=factors.bias is not None),
        weight_error=factors.weight_error if factors.linear else None,
        data_error=factors.data_error,
        notes=factors.notes,
    )
