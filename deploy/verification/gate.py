"""The gate between an exported file and its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.base.fidelity import OutputFidelity, compare_outputs
from dsconvert.base.finite import CAUSES, check_answers
from dsconvert.base.output_fidelity import Finding, failures
from dsconvert.base.predictor import Array
from dsconvert.formats.quantization import Quantization, VerifiedOn

from ..runtimes.registry import open_runtime
from ..schemes import SCHEMES
from . import integer_pairs
from .tolerances import judge_outputs

_TOLD = 3
"""Failures in a message; the report of a rejected file has all."""
_RANDOM = "They need not be what the model is made for: give real ones with --calibration."


@dataclass(frozen=True)
class Verdict:
    """What came of running a file.

    Attributes:
        fidelity: How close each output is; nothing if the file does not run as the model.
        failures: Why it does not pass, a phrase each; nothing if it passes.
        findings: What is wrong or doubtful with the outputs.
        runs: Whether it runs as the model at all.
    """

    fidelity: tuple[OutputFidelity, ...]
    failures: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    runs: bool = True


def judge(
    path: Path,
    names: Sequence[str],
    references: Sequence[Array],
    inputs: Sequence[Array],
    quantize: Quantization,
    *,
    real: bool = False,
) -> Verdict:
    """Run the file in its real runtime and compare every output with the reference's.

    Args:
        path: The file.
        names: The outputs' names, in the order of the references.
        references: What the outputs should be, (n, ...) each.
        inputs: The inputs they belong to.
        quantize: What the file was made with; chooses the gate.
        real: Whether the inputs are real ones, and not random.
    """

    def compared(file: Path) -> tuple[OutputFidelity, ...]:
        session = open_runtime(file)
        outputs = session.predict(inputs)
        return compare_outputs(names, references, outputs, session.output_kinds, inputs)

    try:
        fidelity = compared(path)
        findings = judge_outputs(fidelity, SCHEMES[quantize].tolerance, real=real)
        findings += integer_pairs.find(path, fidelity, compared)
    except (InputError, ValueError) as error:
        return Verdict((), (str(error).replace(str(path), path.name),), runs=False)
    return Verdict(fidelity, failures(findings), findings)


def check_references(names: Sequence[str], references: Sequence[Array], on: VerifiedOn) -> None:
    """Refuse a model that gives NaN itself: nothing is like NaN, so that no file would pass.

    Args:
        names: The outputs' names.
        references: What the model gives, (n, ...) each.
        on: What it was given.

    Raises:
        InputError: With the first such output.
    """
    check_answers(
        names,
        references,
        who="the model",
        on=f"the {on}",
        hint=_RANDOM
        if on == "random inputs"
        else f"{CAUSES}; --no-verify writes a file that is not compared.",
        infinite=False,
    )


def refused(
    verdict: Verdict,
    name: str,
    quantize: Quantization,
    verified_on: VerifiedOn,
    *,
    in_float: bool = False,
) -> GateFailed:
    """Return the error for a file that does not pass.

    Args:
        verdict: Why it does not.
        name: The file's name.
        quantize: What it was made with.
        verified_on: What it was compared on.
        in_float: Whether layers were left in float.
    """
    told = "; ".join(verdict.failures[:_TOLD])
    if len(verdict.failures) > _TOLD:
        told += f"; and {len(verdict.failures) - _TOLD} more"
    if verdict.runs:
        return GateFailed(
            f"{name} was not kept, its outputs are not the model's: {told}.",
            _hint(quantize, verified_on, in_float),
            code="outputs-differ",
        )
    hint = ""
    if SCHEMES[quantize].static and "(DIV)" in told:
        hint = (
            f"The model divides by what {quantize} rounds to 0. Keep the divisor away from 0 by "
            "more than a 256th of its range, or choose --quantize dynamic or float16."
        )
    elif SCHEMES[quantize].static:
        hint = (
            "Check that the calibration data is typical: a tensor that is constant on it cannot "
            "be quantized."
        )
    return GateFailed(
        f"{name} was not kept, it was converted but does not run as the model: {told}",
        hint,
        code="does-not-run",
    )


def _hint(quantize: Quantization, verified_on: VerifiedOn, in_float: bool) -> str:
    """Return what to try when a file does not pass."""
    if verified_on == "random inputs":
        return f"It was compared on random inputs. {_RANDOM}"
    if quantize == "none":
        return "Please report the model: its conversion changed it."
    milder = "or choose a milder quantization"
    if in_float:
        return (
            "Leaving layers in float did not help enough: check the calibration data's "
            f"preprocessing, {milder}: --quantize dynamic or float16."
        )
    if SCHEMES[quantize].static:
        kept = "leave the worst layers in float with --keep-float auto --min-sqnr 20"
        milder = f"{kept}, {milder}"
    return f"Check the calibration data's preprocessing, {milder}."
