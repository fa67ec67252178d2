"""One class of numerical tests for every backend, and the convolution they are held against.

A backend subclasses `PairNumerics` and supplies three hooks. Each test builds one network with
all cases side by side, so that a backend is started a handful of times.
"""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from dsconvert.converter.backends.backend import backend_for
from dsconvert.converter.core.fitting.factorize import from_weights
from dsconvert.converter.core.fitting.patches import output_size
from dsconvert.converter.core.fitting.three_factor import ThreeFactors, from_pairs
from dsconvert.converter.core.network.fit_state import FitRun, FitStrategy
from dsconvert.converter.core.types import ORDERS, Choice, ConvSpec, LayerPlan, NormActivation, Plan

ACTIVATIONS = {"linear": lambda x: x, "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}


def convolve(x, kernel, spec, bias=None):
    """The convolution by its definition: for each tap, a shifted image times a matrix.

    Args:
        x: (n, H, W, C).
        kernel: (kh, kw, C, N).
        spec: Its strides, dilation and padding.
        bias: (N,) or None.

    Returns:
        (n, H', W', N), float64.
    """
    kh, kw = spec.kernel_size
    (sy, sx), (dy, dx) = spec.strides, spec.dilation
    pads = spec.padding
    if pads == "valid":
        pads = ((0, 0), (0, 0))
    elif pads in ("same", "same-lower"):
        # As many outputs as fit the stride; the odd pixel at the end, as TensorFlow does, or first.
        short = [
            max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            for size, s, k, d in zip(x.shape[1:3], (sy, sx), (kh, kw), (dy, dx), strict=True)
        ]
        pads = tuple((total // 2, total - total // 2) for total in short)
        if spec.padding == "same-lower":
            pads = tuple(pair[::-1] for pair in pads)
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *pads, (0, 0)))
    height = (x.shape[1] - (kh - 1) * dy - 1) // sy + 1
    width = (x.shape[2] - (kw - 1) * dx - 1) // sx + 1
    y = np.zeros((len(x), height, width, kernel.shape[3]))
    for a, b in product(range(kh), range(kw)):
        rows = slice(a * dy, a * dy + (height - 1) * sy + 1, sy)
        columns = slice(b * dx, b * dx + (width - 1) * sx + 1, sx)
        y += x[:, rows, columns] @ kernel[a, b]
    return y if bias is None else y + bias


@dataclass(frozen=True)
class Case:
    """One convolution with its weights and what follows inside the layer."""

    spec: ConvSpec
    kernel: Any
    bias: Any
    activation: str

    def output(self, x, kernel):
        """What the layer would give with another kernel."""
        return ACTIVATIONS[self.activation](convolve(x, kernel, self.spec, self.bias))

    def __str__(self):
        s = self.spec
        size = "x".join(map(str, s.kernel_size))
        return f"{size} stride {s.strides} dilation {s.dilation} {s.padding} {self.activation}" + (
            " biased" if s.use_bias else ""
        )


def make_cases(
    strides, dilations, paddings, kernel_sizes, channels=3, filters=4, *, combined=False, first=0
):
    """Every geometry with and without a bias; the activations take turns.

    Strides together with dilation only when ``combined``: neither Keras nor TFLite has both.
    Names count from ``first``.
    """
    rng = np.random.default_rng(0)
    cases = []
    for stride, dilation, padding, size, biased in product(
        strides, dilations, paddings, kernel_sizes, (True, False)
    ):
        if max(stride) > 1 and max(dilation) > 1 and not combined:
            continue
        spec = ConvSpec(
            name=f"conv{first + len(cases)}",
            kernel_size=size,
            strides=stride,
            dilation=dilation,
            padding=padding,
            in_channels=channels,
            out_channels=filters,
            use_bias=biased,
            input_sizes=((11, 10),),
        )
        kernel = rng.normal(size=(*size, channels, filters)).astype(np.float32)
        bias = rng.normal(size=filters).astype(np.float32) if biased else None
        cases.append(Case(spec, kernel, bias, list(ACTIVATIONS)[len(cases) % 3]))
    return cases


def plan_of(names, choice):
    """The same choice for all."""
    return Plan(layers=tuple(LayerPlan(name=name, spec=None, choice=choice) for name in names))


IMAGES = np.random.default_rng(1).normal(size=(2, 11, 10, 3)).astype(np.float32)


class PairNumerics:
    """What pairs compute, whatever framework computes it. Subclass it and supply the hooks.

    Attributes:
        CASES: The convolutions; a backend may replace them to cover what only it has.
    """

    CASES = make_cases(
        strides=[(1, 1), (2, 2)],
        dilations=[(1, 1), (2, 2)],
        paddings=["same", "valid"],
        kernel_sizes=[(1, 3), (3, 3), (5, 5), (2, 2), (3, 5)],
    )

    # The hooks. A model may be whatever the three agree on.

    def build(self, cases):
        """A model of one input (n, 11, 10, C) and one output per case, in their order."""
        raise NotImplementedError

    def rewrite(self, model, choice):
        """The model with every convolution, stems included, made into pairs without data."""
        raise NotImplementedError

    def run(self, model, x):
        """The outputs for images x (n, H, W, C), each (n, H', W', N), in the order of the cases."""
        raise NotImplementedError

    # The tests.

    def check(self, model, kernels):
        """Each output is the reference convolution with the kernel given for it."""
        outputs = self.run(model, IMAGES)
        assert len(outputs) == len(self.CASES)
        wrong = {}
        for case, output, kernel in zip(self.CASES, outputs, kernels, strict=True):
            expected = case.output(IMAGES, kernel)
            assert output.shape == expected.shape, str(case)
            assert output.shape[1:3] == output_size(case.spec, IMAGES.shape[1:3]), str(case)
            error = np.linalg.norm(output - expected) / np.linalg.norm(expected)
            # Some 75 products and a sum of pairs: a handful of float32 roundings of 6e-8.
            if not error < 2e-6:
                wrong[str(case)] = error
        assert wrong == {}

    def test_original_is_the_convolution(self):
        self.check(self.build(self.CASES), [case.kernel for case in self.CASES])

    @pytest.mark.parametrize(
        "choice",
        [
            *(Choice(pairs=pairs, order=order) for order in ORDERS for pairs in (1, 2)),
            *(Choice(pairs=pairs, order=ORDERS[0], lowering="multiplier") for pairs in (1, 3)),
        ],
        ids=lambda choice: f"{choice.pairs}-{choice.order}-{choice.lowering}",
    )
    def test_pairs_are_their_kernel(self, choice):
        kernels = [
            from_weights(case.kernel, None, choice.order, choice.pairs).kernel()
            for case in self.CASES
        ]

        self.check(self.rewrite(self.build(self.CASES), choice), kernels)

    @pytest.mark.parametrize("order", ORDERS)
    def test_full_rank_is_the_original(self, order):
        rewritten = self.rewrite(self.build(self.CASES), Choice(pairs=25, order=order))

        self.check(rewritten, [case.kernel for case in self.CASES])

    @pytest.mark.parametrize("order", [None, *ORDERS])
    def test_three_factor_blocks_are_their_kernel(self, order):
        """Of any factors, or a sum of two pairs written as a block."""
        model = self.build(self.CASES)
        fit_run, kernels = FitRun(FitStrategy()), []
        for seed, case in enumerate(self.CASES):
            block = (
                random_three_factors(case, 5, seed)
                if order is None
                else from_pairs(from_weights(case.kernel, case.bias, order, 2))
            )
            fit_run.factors[case.spec.name] = block
            kernels.append(block.kernel())
        self.check(backend_for(model).rebuild(fit_run)[0].model, kernels)

    @pytest.mark.parametrize(("pairs", "lowering"), [(1, "sum"), (2, "sum"), (2, "multiplier")])
    def test_mobilenet_blocks_are_their_definition(self, pairs, lowering):
        model = self.build(self.CASES)
        fit_run = FitRun(FitStrategy())
        for seed, case in enumerate(self.CASES):
            fit_run.factors[case.spec.name] = random_block(case, pairs, lowering, seed)
        rebuilt, _ = backend_for(model).rebuild(fit_run)
        got = self.run(rebuilt.model, IMAGES)

        for case, output in zip(self.CASES, got, strict=True):
            expected = block_output(case, fit_run.factors[case.spec.name])
            assert output.shape == expected.shape, str(case)
            error = np.linalg.norm(output - expected) / np.linalg.norm(expected)
            assert error < 4e-6, str(case)  # twice the roundings of a pair


def random_three_factors(case, channels, seed):
    """Not fitted: what a backend writes does not depend on where the factors come from."""
    rng = np.random.default_rng(seed)
    kh, kw, C, N = case.kernel.shape
    return ThreeFactors(
        pointwise_in=rng.normal(size=(C, channels)),
        depthwise=rng.normal(size=(kh, kw, channels)),
        pointwise_out=rng.normal(size=(channels, N)),
        bias=case.bias,
        weight_error=0.0,
    )


def random_block(case, pairs, lowering, seed):
    """A MobileNet block whose norm has seen other data and of which the ReLU cuts off a part."""
    rng = np.random.default_rng(seed)
    factors = from_weights(case.kernel, case.bias, "depthwise-first", pairs)
    shape = factors.pointwise.shape[:2]
    between = NormActivation(
        mean=rng.normal(size=shape),
        variance=rng.uniform(0.5, 2, shape),
        gamma=rng.uniform(-2, 2, shape),
        beta=rng.normal(size=shape),
    )
    return replace(factors, between=between, lowering=lowering)


def block_output(case, factors):
    """Σ_t relu(BN_t(depthwise_t ∗ x)) · pointwise_t + bias, then the layer's activation."""
    between, total = factors.between, 0.0
    for t in range(factors.pairs):
        taps = factors.depthwise[t]
        diagonal = taps[..., None] * np.eye(taps.shape[2])
        z = convolve(IMAGES, diagonal, case.spec)
        z = (z - between.mean[t]) / np.sqrt(between.variance[t] + between.epsilon)
        z = np.maximum(z * between.gamma[t] + between.beta[t], 0)
        total = total + z @ factors.pointwise[t]
    return ACTIVATIONS[case.activation](total if case.bias is None else total + case.bias)
