"""Results of commands that join the records of several rooms; importing this is cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.base.predictor import Shape
    from dsconvert.converter.core.report import RewriteReport
    from dsconvert.converter.core.types import Plan, Totals
    from dsconvert.deploy.runtimes.precision import Precision
    from dsconvert.deploy.verification.tolerances import Thresholds
    from dsconvert.formats.quantization import VerifiedOn
    from dsconvert.models.data.preprocess import Preprocessing
    from dsconvert.models.training.settings import Epoch, FinetuneSettings


class RewriteResult(msgspec.Struct, frozen=True, kw_only=True):
    """A rewritten model file.

    Attributes:
        model: The file it was made from.
        output: The file that was written.
        sha256: Its hash.
        size_bytes: Its size.
        repairs: What had to be repaired to load the model.
        preprocessing: What was done to the calibration images.
        report: What was done to the layers.
    """

    schema: Literal["dsconvert.rewritten/1"] = "dsconvert.rewritten/1"
    model: str
    output: str
    sha256: str
    size_bytes: int
    repairs: tuple[str, ...]
    preprocessing: Preprocessing
    report: RewriteReport


class FinetuneResult(msgspec.Struct, frozen=True, kw_only=True):
    """A fine-tuned model file.

    Attributes:
        student: The file it was made from.
        teacher: The file it learnt from.
        output: The file that was written.
        sha256: Its hash.
        size_bytes: Its size.
        settings: How it was trained.
        preprocessing: What was done to the images.
        history: Epoch 0, the student as it came, and those after it.
        best_epoch: The epoch whose weights were kept.
        notes: What a reader should know.
    """

    schema: Literal["dsconvert.finetuned/1"] = "dsconvert.finetuned/1"
    student: str
    teacher: str
    output: str
    sha256: str
    size_bytes: int
    settings: FinetuneSettings
    preprocessing: Preprocessing
    history: tuple[Epoch, ...]
    best_epoch: int
    notes: tuple[str, ...]


class ImportedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output of an imported model.

    Attributes:
        name: Its name in the ONNX file.
        shape: In Keras; None where a size is free.
        onnx_shape: In the ONNX file.
        axes: The ONNX axis that each Keras axis holds: (0, 2, 3, 1) for an image that was NCHW.
    """

    name: str
    shape: Shape
    onnx_shape: Shape
    axes: tuple[int, ...]


class ImportResult(msgspec.Struct, frozen=True, kw_only=True):
    """A Keras file made from an ONNX file.

    Attributes:
        model: The ONNX file.
        source_sha256: Its hash.
        output: The file that was written.
        sha256: Its hash.
        size_bytes: Its size.
        inputs: Its inputs, in the order of the ONNX file.
        outputs: Its outputs, in the order of the ONNX file.
        fidelity: How close each output is to ONNX Runtime's; empty where that could not be told.
        verified_on: What inputs the outputs were compared on.
        samples: How many samples that was.
        preprocessing: What was done to the data, if some were given.
        notes: What a reader should know.
    """

    schema: Literal["dsconvert.imported/1"] = "dsconvert.imported/1"
    model: str
    source_sha256: str
    output: str
    sha256: str
    size_bytes: int
    inputs: tuple[ImportedTensor, ...]
    outputs: tuple[ImportedTensor, ...]
    fidelity: tuple[OutputFidelity, ...]
    verified_on: VerifiedOn
    samples: int
    preprocessing: Preprocessing
    notes: tuple[str, ...]


class NetworkTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The original and the rewritten network on the plan's target.

    Attributes:
        unit: "ms" (p50) or "cycles".
        before: The original.
        after: The rewritten network.
        predicted: What the plan said of it.
        error: (after − predicted) / after.
        ratio_low: Lower end of the 95 % interval of after / before.
        ratio_high: The upper end.
    """

    unit: str
    before: float
    after: float
    predicted: float
    error: float
    ratio_low: float
    ratio_high: float


class AccuracySearch(msgspec.Struct, frozen=True, kw_only=True):
    """What a search by accuracy came to.

    Attributes:
        allowed: The most accuracy that might be lost, 0.01 for a point.
        lost: What the plan loses.
        original: The original's top-1.
        tried: Accuracy lost by each plan tried, with its goal.
    """

    allowed: float
    lost: float
    original: float
    tried: tuple[tuple[str, float], ...]


class PlanResult(msgspec.Struct, frozen=True, kw_only=True):
    """A plan file.

    Attributes:
        model: The model that it is for.
        calibration: Where the calibration images came from.
        output: The file that was written.
        plan: Its content.
        timed: What the networks were measured to cost; None where only MACs were planned.
        dropped: The search by accuracy, if one was asked for.
        preprocessing: What was done to the calibration images.
    """

    schema: Literal["dsconvert.planned/1"] = "dsconvert.planned/1"
    model: str
    calibration: str
    output: str
    plan: Plan
    timed: NetworkTimes | None = None
    dropped: AccuracySearch | None = None
    preprocessing: Preprocessing


class SweepPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One plan of a sweep.

    Attributes:
        totals: The network as planned.
        pairs: T of each convolution that becomes pairs, by name.
        top1: Accuracy of the network rewritten so, where labelled data were given.
    """

    totals: Totals
    pairs: dict[str, int]
    top1: float | None = None


class SweepResult(msgspec.Struct, frozen=True, kw_only=True):
    """The trade of output error for cost.

    Attributes:
        model: The model.
        output: The file that was written, if one was asked for.
        target: What the costs were measured on; empty for MACs.
        unit: Of the costs.
        points: Plans of least output error, the untouched network first.
    """

    schema: Literal["dsconvert.sweep/1"] = "dsconvert.sweep/1"
    model: str
    output: str
    target: str
    unit: str
    points: tuple[SweepPoint, ...]


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The outputs of one model file compared with those of another.

    Attributes:
        reference: File A, which is believed.
        model: File B.
        precision: What B stores.
        source: The samples.
        samples: How many.
        preprocessing: What was done to them.
        thresholds: What every output must reach.
        shapes: The shape of each of A's outputs, batch axis first.
        fidelity: How close each of B's outputs is.
        remarks: What a reader should not be misled by.
        failures: What is wrong; empty if nothing is.
        passed: Whether nothing is.
    """

    schema: Literal["dsconvert.verification/1"] = "dsconvert.verification/1"
    reference: str
    model: str
    precision: Precision
    source: str
    samples: int
    preprocessing: Preprocessing
    thresholds: Thresholds
    shapes: tuple[Shape, ...]
    fidelity: tuple[OutputFidelity, ...]
    remarks: tuple[str, ...]
    failures: tuple[str, ...]
    passed: bool
