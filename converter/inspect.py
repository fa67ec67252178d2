"""What a model's convolutions are, and what rewriting each of them would cost and save."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent

from .backends.backend import backend_for
from .calibration import as_inputs
from .core.fitting.cost import (
    affordable_orders,
    block_macs,
    block_params,
    channels_of_pairs,
    conv_macs,
    conv_params,
    pair_macs,
    pair_params,
)
from .core.fitting.factorize import weight_errors
from .core.fitting.fit import FitOptions
from .core.fitting.linear_block import best_fit
from .core.fitting.moments import Statistics
from .core.fitting.three_factor_fit import fit_three_factors, full_channels
from .core.network.fit_state import FitSettings
from .core.network.layer_statistics import observe_network
from .core.network.sensitivity import QUICK
from .core.planning.policy import Policy, make_plan
from .core.stages import Site
from .core.types import Choice, ConvSpec, Order, Reason
from .potential import WORTHWHILE, Potential, potential

MOST_PAIRS = 4


class PairOption(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What T pairs would make of a convolution.

    Attributes:
        pairs: T.
        order: The better order at no higher cost than depthwise first.
        macs: Per image, over all calls; None where the model leaves the size free.
        params: Weights and bias.
        weight_error: ‖W − Ŵ‖ / ‖W‖ of the pairs nearest to the weights.
        data_error: ‖y − ŷ‖ / ‖y − E y‖ of the pairs fitted to data; None without data.
    """

    pairs: int
    order: Order
    macs: int | None
    params: int
    weight_error: float
    data_error: float | None = None


class BlockOption(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a three-factor block would make of a convolution, at the MACs of T pairs.

    Attributes:
        pairs: T.
        channels: R, a multiple of eight where one fits.
        macs: Per image, over all calls; None where the model leaves the size free.
        params: Weights and bias.
        data_error: ‖y − ŷ‖ / ‖y − E y‖ of a block fitted to data.
    """

    pairs: int
    channels: int
    macs: int | None
    params: int
    data_error: float


class Inspected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One convolution of the model.

    Attributes:
        name: Its name.
        spec: Its geometry; None for what is no two-dimensional convolution.
        macs: Per image, over all calls; None where the model leaves the size free.
        params: Weights and bias.
        full_rank: The number of pairs that would reproduce it exactly.
        options: What T = 1 … 4 pairs would make of it; empty where it cannot be rewritten.
        three_factor: What blocks of as many MACs would make of it; empty without data.
        reason: Why it is left alone by default.
    """

    name: str
    spec: ConvSpec | None = None
    macs: int | None = None
    params: int | None = None
    full_rank: int | None = None
    options: tuple[PairOption, ...] = ()
    three_factor: tuple[BlockOption, ...] = ()
    reason: Reason | None = None


class Inspection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole model.

    Attributes:
        schema: Name and version of this record.
        model: The model's name; of a command, what the model was read from.
        macs: Of convolutions and dense layers per image; None where the size is free.
        params: All weights, a norm's moving statistics included.
        dense_macs: How many of the MACs are dense layers'.
        kernels: How many of the weights are kernels: of convolutions and dense layers, without
            biases and norms. Papers differ in which of the two they call parameters.
        convolutions: In the order of the network.
        potential: What rewriting the network can save at most.
        calibration_images: How many images the data errors come from.
    """

    schema: Literal["dsconvert.inspection/1"] = "dsconvert.inspection/1"
    model: str
    macs: int | None
    params: int
    dense_macs: int | None = None
    kernels: int | None = None
    convolutions: tuple[Inspected, ...]
    potential: Potential
    calibration_images: int = 0


def inspect(
    model: Any,
    *,
    folder: Path | None = None,
    calibration: Array | Sequence[Array] | None = None,
    memory: int = 2 << 30,
    seed: int = 0,
    progress: Progress = silent,
) -> Inspection:
    """List every convolution of a model, with what rewriting it would do.

    Args:
        model: A functional, Sequential or subclassed ``keras.Model``, or an ``onnx.ModelProto``.
        folder: Where the external data of an ONNX model are, if it has any.
        calibration: Images as the model takes them, (n, ...), or one such array per input. With
            them the errors of pairs fitted to data are shown as well.
        memory: Bytes of activations held in memory at most.
        seed: Seeds the choice of patches.
        progress: See `core.progress`.

    Raises:
        InputError: If the model has no graph, or the data do not fit it.
    """
    source = backend_for(model, folder)
    convolutions = source.convolutions
    plan = make_plan(convolutions, Policy())
    fits: dict[str, dict[int, tuple[Order, float]]] = {}
    blocks: dict[str, tuple[BlockOption, ...]] = {}
    images = 0
    inputs = as_inputs(calibration, source.input_shapes, source.input_types)
    if inputs is not None:
        images = len(inputs[0])
        names = [convolution.name for convolution in convolutions if convolution.reason is None]
        settings = FitSettings(memory=memory, seed=seed)

        def visit(site: Site, stats: Sequence[Statistics]) -> None:
            if len(stats) == 1:  # else too wide to be fitted four times over
                fits[site.name] = _data_errors(site, stats[0], settings.fit)
                blocks[site.name] = _block_options(site, stats)

        stages = source.stages(names, inputs, refit=False)
        observe_network(stages, inputs, settings, visit, progress)
    inspected = []
    for convolution, layer in zip(convolutions, plan.layers, strict=True):
        spec = convolution.spec
        if spec is None or convolution.reason is not None:
            inspected.append(_refused(convolution.name, spec, layer.reason))
            continue
        kernel, _ = convolution.weights()
        inspected.append(
            Inspected(
                name=convolution.name,
                spec=spec,
                macs=conv_macs(spec),
                params=conv_params(spec),
                full_rank=spec.full_rank("depthwise-first"),
                options=_options(spec, kernel, fits.get(convolution.name, {})),
                three_factor=blocks.get(convolution.name, ()),
                reason=layer.reason,
            )
        )
    macs, params = source.macs(), source.params()
    return Inspection(
        model=source.name,
        macs=macs,
        params=params,
        dense_macs=source.dense_macs(),
        kernels=source.kernels(),
        convolutions=tuple(inspected),
        potential=potential(inspected, macs, params, worthwhile=WORTHWHILE),
        calibration_images=images,
    )


def potential_of(model: Any, *, folder: Path | None = None) -> Potential:
    """Tell what rewriting a model can save at most, without looking at any weight.

    Args:
        model: As for `inspect`.
        folder: Where the external data of an ONNX model are, if it has any.
    """
    source = backend_for(model, folder)
    convolutions = source.convolutions
    plan = make_plan(convolutions, Policy())
    rows = []
    for convolution, layer in zip(convolutions, plan.layers, strict=True):
        spec = convolution.spec
        row = _refused(convolution.name, spec, layer.reason)
        if spec is not None and layer.reason is None:
            order = affordable_orders(spec, 1)[0]
            option = PairOption(
                pairs=1,
                order=order,
                macs=pair_macs(spec, order, 1),
                params=pair_params(spec, order, 1, bias=spec.use_bias),
                weight_error=math.nan,
            )
            row = msgspec.structs.replace(row, options=(option,))
        rows.append(row)
    return potential(rows, source.macs(), source.params(), worthwhile=WORTHWHILE)


def _refused(name: str, spec: ConvSpec | None, reason: Reason | None) -> Inspected:
    if spec is None:
        return Inspected(name=name, reason=reason)
    return Inspected(
        name=name, spec=spec, macs=conv_macs(spec), params=conv_params(spec), reason=reason
    )


def _data_errors(
    site: Site, stats: Statistics, options: FitOptions
) -> dict[int, tuple[Order, float]]:
    errors = {}
    for pairs in range(1, MOST_PAIRS + 1):
        factors = best_fit(stats, site, Choice(pairs=pairs), options)
        errors[pairs] = (factors.order, factors.data_error or 0.0)
    return errors


def _block_options(site: Site, stats: Sequence[Statistics]) -> tuple[BlockOption, ...]:
    """Fit a block at the MACs of each number of pairs, from the widest to the narrowest."""
    weight = None if site.norm is None else site.norm.gain**2
    found, wider = [], None
    for pairs in range(MOST_PAIRS, 0, -1):
        channels = channels_of_pairs(site.spec, pairs)
        exact = channels >= full_channels(site.kernel.shape)
        if wider is None or wider.channels != channels:
            made = fit_three_factors(
                stats, site.kernel, channels, output_weight=weight, options=QUICK, start=wider
            )
        wider = None if exact else made
        found.append(
            BlockOption(
                pairs=pairs,
                channels=made.channels,
                macs=block_macs(site.spec, made.channels),
                params=block_params(site.spec, made.channels, bias=site.spec.use_bias),
                data_error=made.data_error or 0.0,
            )
        )
    return tuple(reversed(found))


def _options(
    spec: ConvSpec, kernel: Array, fits: dict[int, tuple[Order, float]]
) -> tuple[PairOption, ...]:
    errors = {order: weight_errors(kernel, order) for order in affordable_orders(spec, 1)}

    def option(pairs: int) -> PairOption:
        def error(order: Order) -> float:
            return float(errors[order][min(pairs, len(errors[order])) - 1])

        order, data_error = fits.get(pairs) or (min(errors, key=error), None)
        return PairOption(
            pairs=pairs,
            order=order,
            macs=pair_macs(spec, order, pairs),
            params=pair_params(spec, order, pairs, bias=spec.use_bias),
            weight_error=error(order),
            data_error=data_error,
        )

    return tuple(map(option, range(1, MOST_PAIRS + 1)))
