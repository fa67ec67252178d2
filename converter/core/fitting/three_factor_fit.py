"""Pointwise → depthwise → pointwise with R channels between: fitted to data or to the weights.

The block stands for Ŵ[k, c, n] = Σ_r p[c, r]·q[k, r]·v[r, n], a CP decomposition of the kernel. The
fit minimises the same objective as that of pairs, from the same moments, by L-BFGS over p and q
with v solved for (see `cp_objective`). Alternating least squares over the three factors was
measured beside this: after 60 sweeps at the error that L-BFGS has after 15 evaluations, each of
which costs less than a sweep.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import scipy.optimize

from dsconvert.base.predictor import Array

from ..types import Float, Order, as_float
from .cp_objective import CpObjective, Point, channel_blocks
from .cp_starts import Inputs, Start
from .factorize import by_channel, from_weights
from .fit import FitOptions, Problem
from .moments import Statistics
from .threads import single_threaded
from .three_factor import ThreeFactors, from_pairs
from .three_factor_end import finished

_WORK_OF_STARTS = 1e10
"""Multiplications of the fits from all starts together, where a layer gets more than one."""
_WIDE = 4608
"""Features, C·k², from which on the weights' own fit looks at blocks of channels."""
_FIRST_GAIN = 0.1
"""Share of the objective that the first step would gain if the slope stayed. Steps of the layer's
own units were up to nine times as long as all factors, and cost three evaluations more."""
_PATIENCE = 10
"""Steps over which the gain is judged."""
_RELATIVE = 2e-3
"""Share of the objective that these steps must gain: the error then ends within half a percent of
where it would end with half of that."""


def full_channels(kernel_shape: tuple[int, ...]) -> int:
    """Give the least R with which pairs, written as a three-factor block, reproduce any kernel."""
    kh, kw, C, N = kernel_shape
    return min(C * min(kh * kw, N), N * min(kh * kw, C))


@single_threaded
def fit_three_factors(
    stats: Sequence[Statistics],
    kernel: Array,
    channels: int,
    *,
    keeps_bias: bool = True,
    output_weight: Float | None = None,
    options: FitOptions | None = None,
    seed: int = 0,
    start: ThreeFactors | None = None,
    trace: Callable[[float], None] | None = None,
) -> ThreeFactors:
    """Fit a three-factor block to the moments.

    Args:
        stats: Moments of patches and of the outputs to aim at: of the whole layer, or of each
            block of its input channels in their order with its share of the output.
        kernel: The trained W, (kh, kw, C, N): the start and the prior.
        channels: R, at least 1; no more than `full_channels` are made.
        keeps_bias: Whether to return the bias b̂ = E y − ŴᵀE x; otherwise None.
        output_weight: (N,) how much the squared error of each output counts; see `fit.fit`.
        options: See `fit.FitOptions`.
        seed: Draws the random start.
        start: A block of the same layer with at least R channels to begin with, instead of the
            starts made from the kernel.
        trace: Called with the objective at each start and after each step of the fit from there,
            for the start that is kept.

    Returns:
        Factors whose R channels have a mean square of 1 both before and after the depthwise
        convolution, the largest terms first.
    """
    options = options or FitOptions()
    weight = np.ones(kernel.shape[3]) if output_weight is None else as_float(output_weight)
    # An output that counts for nothing would leave its pointwise weights undetermined.
    scale = np.sqrt(np.maximum(weight, 1e-6 * max(float(weight.max()), 1e-300)))
    if channels >= full_channels(kernel.shape):  # any kernel can be met, so take the best one
        made = _exact(_best_kernel(stats, kernel, scale, options.ridge) / scale)
        return finished(made, stats, kernel, keeps_bias)
    objective = CpObjective.of(stats, kernel, scale, options.ridge, options.penalty)
    begin = _starts(objective, channels, options, seed, start)
    first, taps, point = _best(objective, begin, options, trace)
    made = _pack(first, taps, point.last / scale, kernel.shape)
    seen = objective.seen(first, taps, point, scale)
    return finished(made, stats, kernel, keeps_bias, seen)


def three_factors_from_weights(
    kernel: Array, bias: Array | None, channels: int, *, seed: int = 0
) -> ThreeFactors:
    """Find the three-factor block that is near to the kernel, judged by the weights.

    Args:
        kernel: W, (kh, kw, C, N).
        bias: (N,) or None.
        channels: R, at least 1.
        seed: Draws the random start.
    """
    made = fit_three_factors(_white(kernel), kernel, channels, keeps_bias=False, seed=seed)
    bias = None if bias is None else as_float(bias)
    return replace(made, bias=bias, data_error=None, cancellation=None)


def _best_kernel(stats: Sequence[Statistics], kernel: Array, scale: Float, ridge: float) -> Float:
    """Return the unrestricted minimum, scaled like the outputs, (kh, kw, C, N)."""
    each = zip(stats, channel_blocks(stats, kernel), strict=True)
    return np.concatenate(
        [Problem.of(part, own, scale, ridge).best_kernel(own.shape) for part, own in each], axis=2
    )


def _exact(kernel: Float) -> ThreeFactors:
    """Return the pairs of full rank in the order that needs fewer channels, as a block."""
    kh, kw, C, N = kernel.shape
    by_input = C * min(kh * kw, N) <= N * min(kh * kw, C)
    order: Order = "depthwise-first" if by_input else "pointwise-first"
    return from_pairs(from_weights(kernel, None, order, kh * kw))


def _pack(first: Float, taps: Float, last: Float, shape: tuple[int, ...]) -> ThreeFactors:
    kh, kw = shape[:2]
    return ThreeFactors(
        pointwise_in=first,
        depthwise=taps.reshape(kh, kw, -1),
        pointwise_out=last,
        bias=None,
        weight_error=0.0,
    )


# Minimising.


def _starts(
    objective: CpObjective,
    channels: int,
    options: FitOptions,
    seed: int,
    start: ThreeFactors | None,
) -> list[Start]:
    """Return where to begin: at another block's largest terms, or at starts from the kernel."""
    if start is not None:
        taps = start.depthwise.reshape(-1, start.channels)
        return [(start.pointwise_in[:, :channels], taps[:, :channels])]
    work = objective.work(channels) * _steps(objective, channels, options)
    count = int(np.clip(_WORK_OF_STARTS / work, 1, options.starts))
    inputs = Inputs(objective.spread(), objective.roots())
    made = inputs.starts(objective.kernel, channels, np.random.default_rng(seed))
    return list(itertools.islice(made, count))


def _steps(objective: CpObjective, channels: int, options: FitOptions) -> int:
    within = int(options.work / objective.work(channels))
    return min(max(within, options.fewest_steps), options.steps)


def _best(
    objective: CpObjective,
    begin: Sequence[Start],
    options: FitOptions,
    trace: Callable[[float], None] | None,
) -> tuple[Float, Float, Point]:
    """Return the factors p and q of the best of several fits, and the objective there."""
    kept, history = None, []
    quick = objective.for_descent()
    for first, taps in begin:
        values: list[float] = []
        steps = _steps(objective, taps.shape[1], options)
        first, taps, point = _descend(quick, first, taps, steps, options.tolerance, values.append)
        if options.exact_end and quick is not objective:
            point = objective.at(first, taps)
        if kept is None or point.value < kept[2].value:
            kept, history = (first, taps, point), values
    assert kept is not None, "at least one start"
    if trace is not None:
        for value in history:
            trace(value)
    return kept


def _descend(
    objective: CpObjective,
    first: Float,
    taps: Float,
    steps: int,
    tolerance: float,
    trace: Callable[[float], None],
) -> tuple[Float, Float, Point]:
    """L-BFGS from p and q: return those at its end, and the objective there.

    The variables are p, in units in which all input channels vary alike, and q, both of length 1
    at the start and then multiplied by the size of their term, ‖v_r‖. This makes the curvature in
    all directions about the same. L-BFGS begins with a step of length 1 along the slope, so the
    unit of all of them is the length at which the slope promises `_FIRST_GAIN`.
    """
    spread = objective.spread()[:, None]
    length = np.linalg.norm(first * spread, axis=0), np.linalg.norm(taps, axis=0)
    first, taps = (
        first / np.where(length[0] > 0, length[0], 1),
        taps / np.maximum(length[1], 1e-300),
    )
    point = objective.at(first, taps)
    size = np.linalg.norm(point.last, axis=1)
    size = np.maximum(size, 1e-3 * max(float(size.max()), 1e-300))
    split = first.size
    constant = objective.constant or 1.0  # of a kernel of zeros, which any factors meet

    def slope(by: tuple[Float, Float]) -> Float:
        return np.concatenate([(by[0] / (spread * size)).ravel(), (by[1] / size).ravel()])

    gradient = objective.gradient(first, taps, point)
    steepness = float(np.linalg.norm(slope(gradient)))
    if steepness > 0 and point.value > 0:  # from here on in units of the first step
        size = size * (steepness / (_FIRST_GAIN * point.value))

    def factors(values: Float) -> tuple[Float, Float]:
        p, q = values[:split].reshape(first.shape), values[split:].reshape(taps.shape)
        return p / (spread * size), q / size

    def evaluate(values: Float) -> tuple[float, Float]:
        if known:
            point, by = known.pop()
        else:
            p, q = factors(values)
            point = objective.at(p, q)
            by = objective.gradient(p, q, point)
        latest[:] = [(values.copy(), point)]
        return point.value / constant, slope(by) / constant

    known = [(point, gradient)]  # of the factors that the descent begins with
    latest: list[tuple[Float, Point]] = []
    values = [point.value / constant]
    trace(point.value)

    def watch(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        values.append(float(intermediate_result.fun))
        trace(values[-1] * constant)
        least = max(tolerance, _RELATIVE * values[-1]) if tolerance > 0 else tolerance
        if len(values) > _PATIENCE and values[-1 - _PATIENCE] - values[-1] < least:
            raise StopIteration

    begin = np.concatenate([(first * spread * size).ravel(), (taps * size).ravel()])
    result = scipy.optimize.minimize(
        evaluate,
        begin,
        jac=True,
        method="L-BFGS-B",
        callback=watch,
        options={"maxiter": steps, "maxcor": 10, "ftol": 0.0, "gtol": 1e-12},
    )
    made, (seen, point) = factors(result.x), latest[0]
    if not np.array_equal(seen, result.x):  # the last that it tried was no step
        point = objective.at(*made)
    return *made, point


def _white(kernel: Array) -> list[Statistics]:
    """Return the moments of inputs that are all independent and vary by 1.

    They come in blocks of input channels, since those of all channels of a wide layer fill the
    memory with zeros.
    """
    kh, kw, C, _ = kernel.shape
    taps = kh * kw
    size = C if taps * C <= _WIDE else max(1, _WIDE // 4 // taps)
    return [_white_block(kernel[:, :, first : first + size]) for first in range(0, C, size)]


def _white_block(kernel: Array) -> Statistics:
    flat = by_channel(kernel, "depthwise-first").reshape(-1, kernel.shape[3])
    D, N = flat.shape
    return Statistics(
        cov=np.eye(D),
        cross=flat,
        mean_x=np.zeros(D),
        mean_y=np.zeros(N),
        var_y=np.asarray((flat**2).sum(axis=0)),
        count=1,
    )
