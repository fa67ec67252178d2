"""Records of an exported file: its metadata and the report on its verification."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dsconvert.base.fidelity import OutputFidelity
from dsconvert.base.output_fidelity import Finding
from dsconvert.formats.quantization import CalibrationMethod, Format, Quantization, VerifiedOn

from ..runtimes.tensor_info import TensorInfo
from .layer_types import QuantizationReport


class CalibrationRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the ranges of a file's activations come from.

    Attributes:
        source: The name of the data, without their folder.
        samples: How many samples that was.
        random: Whether they are random numbers: such a file is for trying out, not for use.
        method: How a range is taken from the values seen.
    """

    source: str
    samples: int
    random: bool = False
    method: CalibrationMethod = "minmax"


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an exported file says of itself: where it comes from and what was done.

    Attributes:
        tools: Versions of everything that took part, by package name.
        source_sha256: The hash of the model file it was made from; empty if not told.
        quantization: How its weights and activations are stored.
        verified_on: What its outputs were compared on; "nothing" if they were not.
        rejected: Whether it failed that comparison.
        preprocessing: What was done to the stored images; None if not told.
        calibration: What its activations' ranges come from; None where there are none.
        labels: The names of the classes, in their order.
    """

    schema: Literal["dsconvert.metadata/1"] = "dsconvert.metadata/1"
    tools: dict[str, str]
    source_sha256: str
    quantization: Quantization
    verified_on: VerifiedOn
    rejected: bool = False
    preprocessing: dict[str, Any] | None = None
    calibration: CalibrationRecord | None = None
    labels: tuple[str, ...] = ()


class Artifact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An exported file that passed its verification, or the report on one that did not.

    Attributes:
        path: Where the file lies.
        format: Its format.
        quantization: How its weights and activations are stored.
        size_bytes: Its size.
        sha256: Its hash.
        source_sha256: The hash of the model file it was made from; empty if not told.
        tools: Versions of everything that took part, by package name.
        inputs: Its inputs, in the order of the source model.
        outputs: Its outputs, in the order of the source model.
        fidelity: How close each output is to the source model's.
        findings: What is wrong or doubtful with each output, with its figures.
        verified_on: What data the outputs were compared on; "nothing" if that was not wanted.
        samples: How many samples that was.
        preprocessing: What was done to the stored images; None if not told.
        calibration: What the ranges of its activations come from; None where there are none.
        labels: How many class names it holds.
        failures: Why it was rejected; empty for a file that took its place.
        layers: What each layer of an int8 file loses; None if that was not asked for.
        notes: What its user should know.
        compiled: The file that Vela compiled of it; empty if that was not asked for.
        c_array: The C header that holds it, or what Vela compiled; empty likewise.
    """

    schema: Literal["dsconvert.artifact/1"] = "dsconvert.artifact/1"
    path: str
    format: Format
    quantization: Quantization
    size_bytes: int
    sha256: str
    source_sha256: str
    tools: dict[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    fidelity: tuple[OutputFidelity, ...]
    findings: tuple[Finding, ...] = ()
    verified_on: VerifiedOn
    samples: int
    preprocessing: dict[str, Any] | None = None
    calibration: CalibrationRecord | None = None
    labels: int = 0
    failures: tuple[str, ...] = ()
    layers: QuantizationReport | None = None
    notes: tuple[str, ...] = ()
    compiled: str = ""
    c_array: str = ""
