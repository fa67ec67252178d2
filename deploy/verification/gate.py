"""The gate between an exported file and its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.base.fidelity import OutputFidelity, compare_outputs
from dsconvert.base.predictor import Array
from dsconvert.formats.quantization import Quantization, VerifiedOn

from ..runtimes.registry import open_runtime

MAX_RELATIVE_ERROR: dict[Quantization, float] = {
    # The same arithmetic in another order: 1e-6 for one layer; a hundred layers stay far below.
    "none": 1e-3,
    # Each weight is rounded by up to 2⁻¹¹ = 5e-4. A hundred times that is room for outputs that
    # nearly cancel, such as the steering angle of a regression on random inputs (2e-2 was seen).
    "float16": 5e-2,
}
MIN_SQNR_DB: dict[Quantization, float] = {
    # Errors of a third of the signal. Good files reach 20 dB and more, broken ones (ranges from
    # wrong data, saturated layers) fall below 5.
    "dynamic": 10.0,
    "int8": 10.0,
    "int8-float-io": 10.0,
    # Only the weights are rounded coarsely: good files reach 30 dB and more.
    "int16x8": 20.0,
}
MIN_TOP1_AGREEMENT = 0.9
"""What excuses a class output below `MIN_SQNR_DB`: the same winners, of more than one class."""


@dataclass(frozen=True)
class Verdict:
    """What came of running a file.

    Attributes:
        fidelity: How close each output is; nothing if the file does not run as the model.
        failures: Why it does not pass, a phrase each; nothing if it passes.
        runs: Whether it runs as the model at all.
    """

    fidelity: tuple[OutputFidelity, ...]
    failures: tuple[str, ...]
    runs: bool = True


def judge(
    path: Path,
    names: Sequence[str],
    references: Sequence[Array],
    inputs: Sequence[Array],
    quantize: Quantization,
) -> Verdict:
    """Run the file in its real runtime and compare every output with the reference's.

    Args:
        path: The file.
        names: The outputs' names, in the order of the references.
        references: What the outputs should be, (n, ...) each.
        inputs: The inputs they belong to.
        quantize: What the file was made with; chooses the gate.
    """
    try:
        fidelity = compare_outputs(names, references, open_runtime(path).predict(inputs))
    except (InputError, ValueError) as error:
        return Verdict((), (str(error).replace(str(path), path.name),), runs=False)
    refusals = (refusal(one, quantize) for one in fidelity)
    return Verdict(fidelity, tuple(text for text in refusals if text))


def refused(
    verdict: Verdict, name: str, quantize: Quantization, verified_on: VerifiedOn
) -> GateFailed:
    """The error for a file that does not pass.

    Args:
        verdict: Why it does not.
        name: The file's name.
        quantize: What it was made with.
        verified_on: What it was compared on.
    """
    told = "; ".join(verdict.failures)
    if verdict.runs:
        return GateFailed(
            f"{name} was not kept, its outputs are not the model's: {told}.",
            _hint(quantize, verified_on),
        )
    static = quantize.startswith("int")
    return GateFailed(
        f"{name} was not kept, it was converted but does not run as the model: {told}",
        "Check that the calibration data is typical: a tensor that is constant on it cannot "
        "be quantized."
        if static
        else "",
    )


def verify(
    path: Path,
    names: Sequence[str],
    references: Sequence[Array],
    inputs: Sequence[Array],
    quantize: Quantization,
    verified_on: VerifiedOn,
) -> tuple[OutputFidelity, ...]:
    """Run the file in its real runtime and compare every output with the reference's.

    Args:
        path: The file.
        names: The outputs' names, in the order of the references.
        references: What the outputs should be, (n, ...) each.
        inputs: The inputs they belong to.
        quantize: What the file was made with; chooses the gate.
        verified_on: What the inputs are.

    Raises:
        GateFailed: If an output is too far from its reference.
    """
    verdict = judge(path, names, references, inputs, quantize)
    if verdict.failures:
        raise refused(verdict, path.name, quantize, verified_on)
    return verdict.fidelity


def _hint(quantize: Quantization, verified_on: VerifiedOn) -> str:
    """What to try when a file does not pass."""
    if verified_on == "random inputs":
        return (
            "It was compared on random inputs, which need not be what the model is made for: give "
            "real ones with --calibration."
        )
    if quantize == "none":
        return "Please report the model: its conversion changed it."
    return "Check the calibration data's preprocessing, or choose a milder quantization."


def refusal(fidelity: OutputFidelity, quantize: Quantization) -> str:
    """Why this output fails its gate, with the figures; empty if it passes."""
    if not fidelity.finite:
        return f"{fidelity.name} is not finite"
    error, sqnr = fidelity.relative_error, fidelity.sqnr_db
    if error == 0:
        return ""
    limit = MAX_RELATIVE_ERROR.get(quantize)
    if limit is not None:
        if error is not None and error <= limit:
            return ""
        return f"{fidelity.name} has a relative error of {_figure(error)}, allowed is {limit:g}"
    agreement = fidelity.top1_agreement or 0.0
    least = MIN_SQNR_DB[quantize]
    if (sqnr is not None and sqnr >= least) or (
        agreement >= MIN_TOP1_AGREEMENT and (fidelity.reference_classes or 0) > 1
    ):
        return ""
    text = f"{fidelity.name} has an SQNR of {_figure(sqnr)} dB, needed are {least:g}"
    if fidelity.top1_agreement is not None:
        text += (
            f" (or the same class for {MIN_TOP1_AGREEMENT:.0%}: it is {agreement:.1%} over "
            f"{fidelity.reference_classes} classes)"
        )
    return text


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"
