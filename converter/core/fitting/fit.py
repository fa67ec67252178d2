"""Pairs fitted to data: minimise E‖y − ŷ‖² given the moments of patches and outputs.

The objective, with C = Cov(x, x), G = Cov(x, y) and Ŵ (D, N) the kernel that the pairs stand for,
is J(Ŵ) = tr Var(y) − 2 tr(ŴᵀG) + tr(ŴᵀCŴ). It is quadratic in the pointwise kernels with the
depthwise fixed and the other way round, so alternating least squares never increases it.

Regularisation replaces C by C + λI and G by G + λW: as if white noise were also fed to both the
trained kernel W and the pairs. Where the data say nothing the fit then falls back on the weights,
and every step remains an exact step on one and the same objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dsconvert.base.predictor import Array

from ..stages import Weights
from ..types import Float, Order, as_float, error_between
from .by_taps import ByTaps
from .factorize import by_channel, from_weights, leading_subspace, pack
from .moments import Statistics
from .pairs import Pairs
from .solves import damped, solve_positive
from .threads import single_threaded

Trace = Callable[[float], None] | None
"""Called with the objective."""


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    Attributes:
        sweeps: Alternations at most.
        sweep_features: Wide layers, whose sweeps cost more and gain less, take fewer: as many as
            go over so many of their C·k² features.
        fewest_sweeps: That are made all the same.
        tolerance: Stop when a sweep lowers the objective by less than this share of Var(y).
        ridge: λ as a share of the mean of the diagonal of C.
        shifts: How far below the mean of its input the ReLU of a MobileNet block may cut, in
            standard deviations. At 0 the half of what the pair makes is lost, which was worse than
            1 also after training.
        steps: L-BFGS steps of a three-factor fit at most.
        work: Multiplications after which the fit of a wide layer ends earlier; by default about 5
            seconds of one core.
        fewest_steps: That are taken all the same.
        penalty: μ against terms of a three-factor block that cancel each other; see
            `cp_objective`.
        starts: From how many starts a three-factor fit runs at most; wide layers, where starts
            differ by less than 1 % of the error, take one.
        exact_end: Whether a three-factor fit whose steps were computed in float32 ends with its
            last factor and its errors computed in float64.
        seed: Draws the start of a three-factor fit that is random.
    """

    sweeps: int = 30
    sweep_features: int = 40_000
    fewest_sweeps: int = 8
    tolerance: float = 3e-5
    ridge: float = 1e-3
    shifts: tuple[float, ...] = (1.0, 2.0, 3.0)
    steps: int = 200
    work: float = 1.5e11
    fewest_steps: int = 40
    penalty: float = 2e-3
    starts: int = 4
    exact_end: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Terms:
    """What the regularised quadratic has besides its covariance, by channel.

    Attributes:
        noise: λ, what is added to the variance of every input.
        cross: (G + λW)·s, (C, k², N), columns scaled by the square root of the output weights.
        kernel: W·s, (C, k², N).
        constant: The value of J at Ŵ = 0.
    """

    noise: float
    cross: Float
    kernel: Float
    constant: float

    @classmethod
    def of(cls, stats: Statistics, kernel: Array, scale: Float, ridge: float) -> Terms:
        """Regularise and scale.

        Args:
            stats: Moments with D = C·k².
            kernel: W, (kh, kw, C, N).
            scale: (N,) how much each output counts (its square multiplies the squared error).
            ridge: λ relative to the mean variance of the inputs.
        """
        weights = by_channel(kernel, "depthwise-first") * scale
        noise = ridge * max(float(np.trace(stats.cov)) / len(stats.cov), 1e-12)
        cross = stats.cross.reshape(weights.shape) * scale + noise * weights
        constant = float((stats.var_y * scale**2).sum() + noise * (weights**2).sum())
        return cls(noise, cross, weights, constant)


@dataclass(frozen=True)
class Problem(Terms):
    """The regularised quadratic, by channel.

    Attributes:
        cov: C + λI, (C, k², C, k²).
    """

    cov: Float

    @classmethod
    def of(cls, stats: Statistics, kernel: Array, scale: Float, ridge: float) -> Problem:
        """Regularise and scale: see `Terms.of`."""
        terms = Terms.of(stats, kernel, scale, ridge)
        C, k2, _ = terms.kernel.shape
        cov = stats.cov.copy()
        cov[np.diag_indices(C * k2)] += terms.noise
        return cls(**vars(terms), cov=cov.reshape(C, k2, C, k2))

    def best_kernel(self, shape: tuple[int, ...]) -> Float:
        """Return the unrestricted minimum C⁻¹G as a (scaled) kernel of ``shape`` (kh, kw, C, N)."""
        kh, kw, C, N = shape
        D = C * kh * kw
        flat = solve_positive(self.cov.reshape(D, D), self.cross.reshape(D, N))
        return np.ascontiguousarray(flat.reshape(C, kh, kw, N).transpose(1, 2, 0, 3))

    def value(self, estimate: Float) -> float:
        """J of an estimate (C, k², N), scaled like the kernel."""
        D = estimate.shape[0] * estimate.shape[1]
        flat, cross = estimate.reshape(D, -1), self.cross.reshape(D, -1)
        curved = self.cov.reshape(D, D) @ flat
        return self.constant + float(np.vdot(flat, curved - 2 * cross))


@single_threaded
def fit(
    stats: Statistics,
    kernel: Array,
    order: Order,
    pairs: int,
    *,
    keeps_bias: bool = True,
    output_weight: Float | None = None,
    options: FitOptions | None = None,
    trace: Trace = None,
) -> Pairs:
    """Fit ``pairs`` pairs to the moments.

    Args:
        stats: Moments of patches (D = C·k²) and of the outputs to aim at (N).
        kernel: The trained W, (kh, kw, C, N): the start and the prior.
        order: Which operation comes first.
        pairs: T, at least 1; no more than the full rank are made.
        keeps_bias: Whether to return the bias b̂ = E y − ŴᵀE x; otherwise None.
        output_weight: (N,) how much the squared error of each output counts, e.g. the squared
            scale of a BatchNorm that follows. Only ratios matter.
        options: See `FitOptions`.
        trace: Called with the objective after the start and after each half sweep.
    """
    options = options or FitOptions()
    N = kernel.shape[-1]
    weight = np.ones(N) if output_weight is None else np.asarray(output_weight, np.float64)
    # An output that counts for nothing would leave its pointwise weights undetermined.
    scale = np.sqrt(np.maximum(weight, 1e-6 * max(float(weight.max()), 1e-300)))
    within = max(options.sweep_features // len(stats.cov), options.fewest_sweeps)
    options = replace(options, sweeps=min(options.sweeps, within))
    problem = Problem.of(stats, kernel, scale, options.ridge)
    matrices = by_channel(kernel, order)
    missed: float | None = None
    if pairs >= min(matrices.shape[1:]):  # any kernel can be met, so take the best one
        factors = from_weights(problem.best_kernel(kernel.shape) / scale, None, order, pairs)
    else:
        solver = _depthwise_first if order == "depthwise-first" else _pointwise_first
        taps, mixers = solver(problem, pairs, options, trace)
        if order == "depthwise-first":
            mixers = mixers / scale
            missed = _missed(stats, taps, mixers)
        else:
            taps = taps / scale[:, None]
        factors = pack(order, *_unit_taps(taps, mixers), kernel, None)
    flat = by_channel(factors.kernel(), "depthwise-first").reshape(-1, N)
    bias = stats.mean_y - flat.T @ stats.mean_x if keeps_bias else None
    return replace(
        factors,
        bias=bias,
        weight_error=error_between(kernel, factors.kernel()),
        data_error=stats.relative_error(flat, missed),
    )


@single_threaded
def refit(stats: Statistics, kernel: Array, ridge: float) -> Weights:
    """Return the best weights of a layer that keeps its form, for the inputs it actually gets.

    Args:
        stats: Moments of its inputs and of the outputs to aim at.
        kernel: The trained W, (kh, kw, C, N), towards which the ridge pulls.
        ridge: λ relative to the mean variance of the inputs.
    """
    N = kernel.shape[-1]
    best = Problem.of(stats, kernel, np.ones(N), ridge).best_kernel(kernel.shape)
    flat = by_channel(best, "depthwise-first").reshape(-1, N)
    return Weights(best, stats.mean_y - flat.T @ stats.mean_x)


def _unit_taps(taps: Float, mixers: Float) -> tuple[Float, Float]:
    """Depthwise kernels of length one: the scale between the two is free, so fix it."""
    length = np.linalg.norm(taps, axis=2, keepdims=True)
    length[length == 0] = 1.0
    return taps / length, mixers * length


def _alternate(
    sweep: Callable[[], float],
    start: float,
    options: FitOptions,
    constant: float,
    trace: Trace,
) -> None:
    """Sweep until a sweep, which returns the objective after it, gains too little."""
    if trace is not None:
        trace(start)
    before = start
    for _ in range(options.sweeps):
        after = sweep()
        if trace is not None:
            trace(after)
        if before - after < options.tolerance * constant:
            return
        before = after


# Depthwise first: features z = uᵀx for each (t, channel), outputs y = Vᵀz.


def _depthwise_first(
    problem: Problem, T: int, options: FitOptions, trace: Trace
) -> tuple[Float, Float]:
    taps = _whitened_taps(problem, T)  # (T, C, k²)
    inverses = np.linalg.inv(np.einsum("iaib->iab", problem.cov))
    mixers, start = _solve_mixers(problem, taps)  # (T, C, N)

    def sweep() -> float:
        nonlocal taps, mixers
        taps = _sweep_taps(problem, inverses, taps, mixers)
        if trace is not None:  # nobody else asks for what is half done
            trace(problem.value(_estimate(taps, mixers)))
        mixers, value = _solve_mixers(problem, taps)
        return value

    _alternate(sweep, start, options, problem.constant, trace)
    return taps, mixers


def _estimate(taps: Float, mixers: Float) -> Float:
    return np.asarray(np.einsum("tca,tcn->can", taps, mixers, optimize=True))


def _whitened_taps(problem: Problem, T: int) -> Float:
    """Return each channel's best T taps if its inputs were independent of the other channels'.

    With S = LLᵀ the channel's own covariance (k², k²) and A its matrix (k², N), the weighted error
    ‖Lᵀ(A − uvᵀ)‖ is least for the leading left singular vectors of LᵀA, taken back through L⁻ᵀ.
    """
    own = np.einsum("iaib->iab", problem.cov)
    lower = np.linalg.cholesky(own)
    white = lower.transpose(0, 2, 1) @ problem.kernel
    basis, _ = leading_subspace(white @ white.transpose(0, 2, 1), T)
    taps = np.linalg.solve(lower.transpose(0, 2, 1), basis)  # (C, k², T)
    taps /= np.linalg.norm(taps, axis=1, keepdims=True)
    return np.ascontiguousarray(taps.transpose(2, 0, 1))


def _solve_mixers(problem: Problem, taps: Float) -> tuple[Float, float]:
    """Return all pointwise kernels by one least-squares solve, and the objective there.

    With A = UᵀCU and B = UᵀG the kernels solve AV = B, where J = J(0) + tr VᵀAV − 2 tr VᵀB is
    J(0) − tr VᵀB: nothing of the size of C has to be multiplied to know it.
    """
    T, C, _ = taps.shape
    N = problem.cross.shape[-1]
    normal = _gram(problem.cov, taps)
    right = np.einsum("tia,ian->tin", taps, problem.cross, optimize=True).reshape(T * C, N)
    mixers = solve_positive(normal, right)
    return mixers.reshape(T, C, N), problem.constant - float(np.vdot(mixers, right))


def _gram(cov: Float, taps: Float) -> Float:
    """Return UᵀCU of the features of depthwise kernels (T, C, k²), (T·C, T·C).

    Args:
        cov: (C, k², C, k²).
        taps: u.
    """
    T, C, _ = taps.shape
    half = np.einsum("tia,iajb->tijb", taps, cov, optimize=True)
    return as_float(np.einsum("tijb,sjb->tisj", half, taps, optimize=True)).reshape(T * C, T * C)


def _missed(stats: Statistics, taps: Float, mixers: Float) -> float:
    """Return Σ_n E(y_n − ŷ_n)² of depthwise-first pairs, by their T·C features instead of C·k²."""
    T, C, k2 = taps.shape
    flat = mixers.reshape(T * C, -1)
    gram = _gram(stats.cov.reshape(C, k2, C, k2), taps)
    right = np.einsum("tia,ian->tin", taps, stats.cross.reshape(C, k2, -1), optimize=True)
    gained = 2 * float(np.vdot(mixers, right)) - float(np.vdot(flat, gram @ flat))
    return float(stats.var_y.sum()) - gained


def _sweep_taps(problem: Problem, inverses: Float, taps: Float, mixers: Float) -> Float:
    """Return the depthwise kernels one channel after the other, each against the others' residual.

    As good as solving for all of them jointly on the layers measured, at a cost linear in C·k².
    The system of a channel's T·k² taps is a Kronecker product of a (T, T) matrix and the channel's
    own covariance, whose inverse, one of (C, k², k²), serves all sweeps.
    """
    T, C, k2 = taps.shape
    taps = np.ascontiguousarray(taps.transpose(1, 0, 2))  # (C, T, k²)
    gains = np.einsum("tin,sjn->ijts", mixers, mixers, optimize=True)  # (C, C, T, T)
    right = np.einsum("tin,ian->ita", mixers, problem.cross, optimize=True)
    own = damped(np.einsum("iits->its", gains).copy())
    for i in range(C):
        seen = problem.cov[i].reshape(k2, C * k2)
        all_of_them = (gains[i] @ taps).transpose(1, 0, 2).reshape(T, C * k2)
        gap = right[i] - all_of_them @ seen.T
        taps[i] += np.linalg.solve(own[i], gap @ inverses[i])
    return np.ascontiguousarray(taps.transpose(1, 0, 2))


# Pointwise first: each output n on its own, y_n = Σ_t d_tnᵀ X p_tn with X the patch as (k², C).


def _pointwise_first(
    problem: Problem, T: int, options: FitOptions, trace: Trace
) -> tuple[Float, Float]:
    C, k2, N = problem.kernel.shape
    matrices = problem.kernel.transpose(2, 1, 0)  # (N, k², C)
    # The taps' start is whitened by the covariance of a tap with its like, averaged over channels.
    own = np.einsum("iaib->ab", problem.cov) / C
    lower = np.linalg.cholesky(own)
    white = lower.T @ matrices
    basis, _ = leading_subspace(white @ white.transpose(0, 2, 1), T)
    taps = np.linalg.solve(lower.T[None], basis).transpose(2, 0, 1)  # (T, N, k²)
    taps = np.ascontiguousarray(taps / np.linalg.norm(taps, axis=2, keepdims=True))
    mixers = np.einsum("tna,nac->tnc", taps, matrices)
    by_taps = ByTaps.of(problem.cov)

    def estimate() -> Float:
        return np.asarray(np.einsum("tna,tnc->can", taps, mixers, optimize=True))

    def residual(t: int) -> tuple[Float, float]:
        """Return what pair t has to explain, G − C·(the other pairs), (C, k², N), and J there."""
        if T == 1:
            return problem.cross, problem.constant
        others = estimate() - np.einsum("na,nc->can", taps[t], mixers[t])
        pulled = problem.cov.reshape(C * k2, C * k2) @ others.reshape(C * k2, N)
        value = problem.constant + float(np.vdot(others, pulled.reshape(C, k2, N)))
        value -= 2 * float(np.vdot(others, problem.cross))
        return as_float(problem.cross - pulled.reshape(C, k2, N)), value

    def sweep() -> float:
        for t in range(T):
            gap, value = residual(t)
            mixers[t] = by_taps.pointwise(taps[t], gap)
            taps[t], gained = by_taps.depthwise(mixers[t], gap)
        return value - gained  # as in `_solve_mixers`: what the last solve gains is tr VᵀB

    _alternate(sweep, problem.value(estimate()), options, problem.constant, trace)
    return as_float(taps), as_float(mixers)


def pointwise_first_work(kernel_shape: tuple[int, ...], pairs: int) -> float:
    """Multiplications that one sweep of the pointwise-first fit takes, to plan with.

    For each output a system of C and one of k² unknowns is made and solved.
    """
    kh, kw, C, N = kernel_shape
    taps = float(kh * kw)
    return pairs * N * ((float(C) ** 3 + taps**3) / 3 + 2 * taps**2 * C**2)
