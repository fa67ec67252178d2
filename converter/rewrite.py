"""A model, data and a policy in; a new model and a report out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent
from dsconvert.base.units import first_few

from .backends.backend import Convolution, backend_for
from .calibration import as_inputs, split
from .check_rebuilt import check_rebuilt
from .core.fitting.styles import DEFAULT, block_style
from .core.network.fit_network import fit_network
from .core.network.fit_state import FitRun, FitSettings, FitStrategy
from .core.planning.budget import within_macs
from .core.planning.limits import Limit
from .core.planning.policy import Policy, make_plan, replay_plan, with_block_style
from .core.report import RewriteReport, Trial, layer_reports
from .core.stages import Stages
from .core.types import Choice, Method, OrderChoice, Plan


@dataclass(frozen=True)
class Rewritten:
    """The result of `rewrite`.

    Attributes:
        model: A functional keras.Model of stock layers, or an onnx.ModelProto.
        plan: What was decided about each convolution.
        report: What came of it.
    """

    model: Any
    plan: Plan
    report: RewriteReport


def rewrite(
    model: Any,
    *,
    folder: Path | None = None,
    calibration: Array | Sequence[Array] | None = None,
    method: Method | None = None,
    pairs: int = 1,
    order: OrderChoice = "auto",
    block: str | None = None,
    channels: int | None = None,
    macs: Limit | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    plan: Plan | None = None,
    memory: int = 2 << 30,
    seed: int = 0,
    source_sha256: str = "",
    progress: Progress = silent,
) -> Rewritten:
    """Replace the standard convolutions of a trained model by depthwise + pointwise pairs.

    The given model is not changed. An ONNX model needs no training framework.

    Args:
        model: A functional, Sequential or subclassed ``keras.Model``; the last kind is redrawn as
            a functional one where its ``call`` is made of Keras layers and operations. Or an
            ``onnx.ModelProto``.
        folder: Where the external data of an ONNX model are, if it has any.
        calibration: Unlabelled images as the model takes them, (n, ...), or one such array per
            input. A fifth of them is kept out of the fit and decides how far it may go.
        method: "data" fits the pairs to the calibration images (the default when there are any),
            "svd" to the weights alone (the default otherwise), "random" starts afresh as the
            tutorials do, for comparison.
        pairs: T, the number of pairs that are summed for each convolution.
        order: "depthwise-first", "pointwise-first", or "auto": the lower error at equal cost.
        block: The block style: "linear" (the default) has nothing between the two kernels of a
            pair, "mobilenet", depthwise first, a BatchNorm and a ReLU, which needs calibration
            images and fine-tuning. With a plan it says so of every layer; without it the plan
            does. "three-factor" is a 1×1, a depthwise and a 1×1 convolution.
        channels: R, between the three of a three-factor block; without it, each is as wide as
            ``pairs`` pairs cost. "auto" fits both and keeps the lower error.
        macs: The most that may be left of the network's MACs, instead of ``pairs`` and
            ``channels``: every layer gets the same share.
        include: Glob patterns of the layers to rewrite; empty means all.
        exclude: Glob patterns of the layers to leave alone.
        plan: What to do with each layer, instead of ``pairs`` … ``exclude``.
        memory: Bytes of activations held in memory at most; more go to temporary files.
        seed: Seeds the choice of images and patches.
        source_sha256: Of the model's file, for the record.
        progress: See `core.progress`.

    Raises:
        InputError: If the model cannot be rewritten, or the data do not fit it.
        GateFailed: If the new model does not compute what was fitted; a bug, and not silent.
    """
    method = method or ("svd" if calibration is None else "data")
    if method == "data" and calibration is None:
        raise InputError(
            "fitting to data needs calibration images.",
            "Add --calibration FILE.npz, or use --method svd.",
            code="needs-calibration",
        )
    source = backend_for(model, folder)
    convolutions = source.convolutions
    remarks: tuple[str, ...] = ()
    if plan is None:
        policy = Policy(
            pairs=pairs,
            order=order,
            block=block or DEFAULT,
            channels=msgspec.UNSET if channels is None else channels,
            include=tuple(include),
            exclude=tuple(exclude),
        )
        plan = make_plan(convolutions, policy, source_sha256)
        if macs is not None:
            plan = within_macs(plan, source.macs(), macs, policy.block)
    else:
        if block is not None:
            plan, remarks = with_block_style(plan, block)
        plan = replay_plan(plan, convolutions)
    images = (
        as_inputs(calibration, source.input_shapes, source.input_types)
        if method == "data"
        else None
    )
    if images is None or not plan.chosen:
        data, shared = None, False
        fit_runs = [_factorize(convolutions, plan.chosen, method, seed)]
    else:
        data = split(images, seed)
        stages = source.stages(plan.chosen, data.inputs)
        fit_runs = fit_network(
            stages,
            data.inputs,
            data.held_out,
            plan.chosen,
            _strategies(stages),
            FitSettings(memory=memory, seed=seed),
            progress,
        )
        # A shared layer is fitted at its last call, so its earlier calls ran as they were.
        shared = any(site is not None and site.calls > 1 for site in stages.sites)
    best = fit_runs[0]
    for other in fit_runs[1:]:  # of which no more than the error is told
        other.weights.clear()
        other.factors.clear()
        other.live.clear()
    costs_before = source.macs(), source.params()
    rebuilt, notes = source.rebuild(best)
    if data is not None and not shared:
        check_rebuilt(rebuilt, data.inputs, [best.live[value] for value in stages.outputs])
    report = RewriteReport(
        method=method,
        source_sha256=source_sha256,
        layers=layer_reports(plan, best.factors),
        macs_before=costs_before[0],
        macs_after=rebuilt.macs(),
        params_before=costs_before[1],
        params_after=rebuilt.params(),
        calibration_images=data.fitted if data else 0,
        held_out_images=data.held_out if data else 0,
        trials=tuple(
            Trial(strategy=str(fit_run.strategy), output_error=fit_run.output_error)
            for fit_run in fit_runs
            if data
        ),
        refitted=tuple(best.refitted),
        notes=(*remarks, *notes, *_untrained(plan.chosen)),
    )
    return Rewritten(rebuilt.model, plan, report)


def _untrained(chosen: Mapping[str, Choice]) -> list[str]:
    """Return what to know of blocks that must be fine-tuned."""
    names: dict[str, list[str]] = {}
    for name, choice in chosen.items():
        if block_style(choice.block).untrained:
            names.setdefault(choice.block, []).append(name)
    notes = []
    for block, layers in names.items():
        style = block_style(block)
        have = "have" if len(layers) > 1 else "has"
        notes.append(
            f"{style.title}s need fine-tuning: {first_few(layers)} {have} {style.untrained}"
        )
    return notes


def _strategies(stages: Stages) -> list[FitStrategy]:
    """Return the ways worth trying on this network: no two that would do the same."""
    sites = [site for site in stages.sites if site is not None]
    strategies = [FitStrategy(), FitStrategy(sequential=True)]
    if any(site.role == "shortcut" or site.beside is not None for site in sites):
        strategies.append(FitStrategy(sequential=True, shortcuts=True))
    if any(site.role == "conv" and site.norm is not None for site in sites):
        strategies.append(FitStrategy(sequential=True, match_variance=True))
    return strategies


def _factorize(
    convolutions: Iterable[Convolution], chosen: Mapping[str, Choice], method: Method, seed: int
) -> FitRun:
    """Return the pairs of each layer by itself, without data."""
    rng = np.random.default_rng(seed)
    fit_run = FitRun(FitStrategy())
    for convolution in convolutions:
        if convolution.name not in chosen:
            continue
        choice, spec = chosen[convolution.name], convolution.spec
        assert spec is not None, "only what has a geometry is chosen"
        kernel, bias = convolution.weights()
        style = block_style(choice.block)
        fit_run.factors[convolution.name] = (
            style.random(kernel, bias, choice, rng)
            if method == "random"
            else style.from_weights(kernel, bias, spec, choice)
        )
    return fit_run
