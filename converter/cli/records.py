"""Results of commands that join the records of several rooms; importing this is cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from dsconvert.converter.core.fidelity import OutputFidelity
    from dsconvert.converter.core.predictor import Shape
    from dsconvert.converter.core.report import RewriteReport
    from dsconvert.deploy.types import VerifiedOn
    from dsconvert.models import Epoch, FinetuneSettings, Preprocessing


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
