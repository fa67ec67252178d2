"""MobileNet blocks: a BatchNorm and a ReLU between the depthwise and the pointwise kernel.

ŷ = Σ_c p_c · relu((z_c − μ_c)/√(σ_c² + ε)·γ_c + β_c) + b, with z_c the depthwise output of channel
c (Howard et al., arXiv:1704.04861; there the pointwise is followed by another of each, which here
is what followed the convolution).

Linear pairs are the start. With the statistics of z in the BatchNorm and β_c = k standard
deviations, a ReLU cuts off what lies k deviations below the mean: for large k nothing, and the
block is the linear pair exactly; for k = 0 about half. The pointwise kernels and the bias are then
fitted by least squares to what the ReLU really lets through, for several k.

Patches that no fit has seen choose the k. The larger it is the nearer is the start, but the worse
is the block trained: its ReLU does nothing, and all that the pointwise kernel reads has a mean of
k standard deviations. So the smallest k is taken that costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from ..types import Choice, ConvSpec, Factorization, Float, NormActivation, as_float
from .block_style import BlockStyle, Fitted, Sample, SiteData
from .cost import pair_params
from .factorize import random_pairs
from .fit import FitOptions, refit
from .linear_block import LinearBlock, fit_pairs
from .moments import Moments, Statistics
from .pairs import Pairs
from .threads import single_threaded

WORTH = 0.1
"""By what share a larger shift must lower ‖y − ŷ‖ on unseen patches to be worth it."""


def inner_moments(
    factors: Pairs, stats: Sequence[Statistics], blocks: Sequence[slice]
) -> tuple[Float, Float]:
    """Mean and variance of every depthwise output, each (T, C), from the moments of the patches.

    Args:
        factors: Pairs, depthwise first.
        stats: The moments of each block's patches.
        blocks: The input channels of each.
    """
    T, kh, kw, C = factors.depthwise.shape
    taps = factors.depthwise.reshape(T, kh * kw, C).transpose(0, 2, 1)  # (T, C, k²)
    mean, variance = np.empty((T, C)), np.empty((T, C))
    for part, block in zip(stats, blocks, strict=True):
        own, size = taps[:, block], block.stop - block.start
        cov = part.cov.reshape(size, kh * kw, size, kh * kw)
        mean[:, block] = np.einsum("tca,ca->tc", own, part.mean_x.reshape(size, -1))
        variance[:, block] = np.einsum("tca,cacb,tcb->tc", own, cov, own, optimize=True)
    return mean, np.maximum(variance, 0.0)


def shifted(factors: Pairs, mean: Float, variance: Float, shift: float) -> Pairs:
    """Return the blocks that are these pairs wherever their ReLU lets through what comes.

    Args:
        factors: Pairs, depthwise first.
        mean: Of each depthwise output, (T, C).
        variance: The same.
        shift: k, standard deviations below the mean at which the ReLU cuts.
    """
    between = NormActivation(mean, variance, np.ones_like(mean), np.zeros_like(mean))
    size = np.sqrt(variance + between.epsilon)
    between = replace(between, beta=shift * np.sqrt(variance) / size)
    offset = np.einsum("tc,tcn->n", mean - between.beta * size, factors.pointwise)
    return replace(
        factors,
        pointwise=factors.pointwise * size[..., None],
        bias=offset if factors.bias is None else factors.bias + offset,
        between=between,
    )


def fresh_block(factors: Pairs) -> Pairs:
    """Pairs with an untrained BatchNorm and a ReLU in between, as Keras initialises it."""
    zero, one = np.zeros(factors.pointwise.shape[:2]), np.ones(factors.pointwise.shape[:2])
    return replace(factors, between=NormActivation(mean=zero, variance=one, gamma=one, beta=zero))


def through(between: NormActivation, inner: Array) -> Array:
    """Return what the BatchNorm and the ReLU make of depthwise outputs (P, T·C), in float32."""
    gain = between.gamma / np.sqrt(between.variance + between.epsilon)
    offset = between.beta - between.mean * gain
    made = inner * gain.ravel().astype(np.float32) + offset.ravel().astype(np.float32)
    return np.asarray(np.maximum(made, 0))


@single_threaded
def fit_block(
    start: Pairs,
    mean: Float,
    variance: Float,
    sample: Sample,
    *,
    shifts: Sequence[float],
    ridge: float,
    output_weight: Float | None = None,
) -> tuple[Pairs, Statistics]:
    """Turn fitted pairs into MobileNet blocks.

    The sign of a channel is free as long as nothing is between the kernels. Here the longer tail
    of z is turned upwards, so that the ReLU cuts off the shorter one.

    Args:
        start: The pairs, depthwise first.
        mean: Of each depthwise output, (T, C).
        variance: The same.
        sample: Their outputs on patches, and what to aim at.
        shifts: The k to choose from, the smallest first; see the module.
        ridge: Pulls towards the linear pair, as in `fit.FitOptions`.
        output_weight: (N,) how much the squared error of each output counts.

    Returns:
        The blocks, and the moments of what the pointwise kernels read.
    """
    centred = sample.inner - mean.ravel().astype(np.float32)
    skew = np.einsum("pc,pc,pc->c", centred, centred, centred, dtype=np.float64)
    sign = np.where(skew < 0, -1.0, 1.0).reshape(mean.shape)
    turned = replace(
        start,
        depthwise=start.depthwise * sign[:, None, None, :],
        pointwise=start.pointwise * sign[..., None],
    )
    upright = replace(sample, inner=sample.inner * sign.ravel().astype(np.float32))
    weight = 1.0 if output_weight is None else output_weight
    tried = [
        _fit_shift(shifted(turned, mean * sign, variance, shift), upright, ridge, weight)
        for shift in shifts
    ]
    allowed = (1 + WORTH) ** 2 * min(error for error, _, _ in tried)
    best = next(place for place, (error, _, _) in enumerate(tried) if error <= allowed)
    _, factors, stats = tried[best]
    note = f"the ReLU cuts {shifts[best]:g} σ below the mean"
    return replace(factors, notes=(*factors.notes, note)), stats


def _fit_shift(
    block: Pairs, sample: Sample, ridge: float, weight: Float | float
) -> tuple[float, Pairs, Statistics]:
    """The best pointwise kernels behind a ReLU: their held-out error, the block, the moments."""
    assert block.between is not None, "a block has something between its kernels"
    T, C, N = block.pointwise.shape
    outputs = through(block.between, sample.inner)
    stats = [_moments(outputs, sample.target, rows) for rows in (~sample.held_out, sample.held_out)]
    best = refit(stats[0], block.pointwise.reshape(1, 1, T * C, N), ridge)
    flat, bias = as_float(best.kernel).reshape(T * C, N), as_float(best.bias)
    missed = stats[1].explained(flat) + (stats[1].mean_y - flat.T @ stats[1].mean_x - bias) ** 2
    error = np.sqrt(np.maximum(missed.sum(), 0.0) / max(float(stats[1].var_y.sum()), 1e-300))
    made = replace(block, pointwise=flat.reshape(T, C, N), bias=bias, data_error=float(error))
    return float((missed * weight).sum()), made, stats[0]


def _moments(inputs: Array, targets: Array, rows: NDArray[np.bool_]) -> Statistics:
    moments = Moments(inputs.shape[1], targets.shape[1])
    moments.update(inputs[rows], targets[rows])
    return moments.statistics()


class MobileNetBlock(LinearBlock):
    """The block style "mobilenet": see `block_style.BlockStyle`."""

    name = "mobilenet"
    title = "MobileNet block"
    untrained = "a ReLU inside that the trained network had not"

    def check(self, choice: Choice) -> None:
        """Refuse pointwise first, besides what no pairs can be.

        Raises:
            InputError: If so: a ReLU after the pointwise would be another network.
        """
        super().check(choice)
        if choice.order == "pointwise-first":
            raise InputError(
                "a MobileNet block is depthwise first: its BatchNorm and ReLU stand behind the "
                "depthwise kernel.",
                "Make the order depthwise-first, or leave it at auto, or use the block linear.",
                code="option-not-applicable",
            )

    def settled(self, choice: Choice, spec: ConvSpec | None) -> Choice:
        """Turn the pairs depthwise first."""
        return msgspec.structs.replace(super().settled(choice, spec), order="depthwise-first")

    def written(self, choice: Choice) -> Choice:
        """Its order is never open."""
        self.check(choice)
        return super().written(self.settled(choice, None))

    def candidates(self, spec: ConvSpec, most: int) -> list[Choice]:
        """None: what it is worth shows only after training, which a plan does not do."""
        return []

    def text(self, choice: Choice) -> str:
        """T: "2 × MobileNet"."""
        return f"{choice.pairs} × MobileNet"

    def params(self, spec: ConvSpec, choice: Choice, *, bias: bool) -> int:
        """The pairs, and four numbers per channel of the BatchNorm, of which runtimes fold two."""
        pairs = pair_params(spec, "depthwise-first", choice.pairs, bias=bias)
        return pairs + 4 * choice.pairs * spec.in_channels

    def fit(
        self,
        data: SiteData,
        choice: Choice,
        options: FitOptions,
        start: Factorization | None = None,
    ) -> Fitted:
        """Fit pairs, and their pointwise kernels once more to what the ReLU lets through."""
        pairs = fit_pairs(data, self.settled(choice, data.site.spec), options)
        mean, variance = inner_moments(pairs, data.stats, data.blocks)
        if data.sample is None:
            note = "a shared layer: its pointwise kernel was not fitted to the ReLU"
            made = shifted(pairs, mean, variance, max(options.shifts))
            made = replace(made, notes=(*pairs.notes, note))
            return Fitted(made, _mixer(made), None)
        fitted, read = fit_block(
            pairs,
            mean,
            variance,
            data.sample(pairs.depthwise),
            shifts=options.shifts,
            ridge=options.ridge,
            output_weight=data.output_weight,
        )
        return Fitted(fitted, _mixer(fitted), read)

    def from_weights(
        self, kernel: Array, bias: Array | None, spec: ConvSpec, choice: Choice
    ) -> Factorization:
        """Refuse.

        Raises:
            InputError: Always: weights say nothing of the statistics inside.
        """
        raise InputError(
            "a MobileNet block needs calibration images: its BatchNorm holds their statistics.",
            "Add --calibration FILE.npz, or use --method random or --block linear.",
            code="needs-calibration",
        )

    def random(
        self, kernel: Array, bias: Array | None, choice: Choice, rng: np.random.Generator
    ) -> Factorization:
        """Draw fresh pairs with an untrained BatchNorm and a ReLU in between."""
        pairs = random_pairs(kernel, bias, "depthwise-first", choice.pairs, rng)
        return fresh_block(replace(pairs, lowering=choice.lowering))


STYLE: BlockStyle = MobileNetBlock()


def _mixer(pairs: Pairs) -> Float:
    """Return the pointwise kernels as they multiply the depthwise outputs: (T·C, N)."""
    return pairs.pointwise.reshape(-1, pairs.pointwise.shape[2])
