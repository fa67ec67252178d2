"""What an import came to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from dsconvert.base.tables import Block, Shown

from .. import formatting
from .exported import told_fidelity

if TYPE_CHECKING:
    import keras
    import onnx

    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.base.predictor import Shape
    from dsconvert.formats.quantization import VerifiedOn
    from dsconvert.models.data.preprocess import Preprocessing
    from dsconvert.models.onnx_import import Imported


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


class ImportResult(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """A Keras model made from an ONNX model, and its file if one was written.

    Attributes:
        model: The ONNX model.
        source_sha256: Its hash.
        output: The file that was written; empty if none was.
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
    output: str = ""
    sha256: str = ""
    size_bytes: int | None = None
    inputs: tuple[ImportedTensor, ...]
    outputs: tuple[ImportedTensor, ...]
    fidelity: tuple[OutputFidelity, ...]
    verified_on: VerifiedOn
    samples: int
    preprocessing: Preprocessing
    notes: tuple[str, ...]

    def blocks(self) -> Iterator[Block]:
        """Inputs and outputs with their layouts, the check, the file."""
        for kind, tensors in (("input", self.inputs), ("output", self.outputs)):
            for tensor in tensors:
                there, here = _told(tensor.onnx_shape), _told(tensor.shape)
                same = list(tensor.axes) == sorted(tensor.axes)
                yield f"{kind} {tensor.name}: {here}" + ("" if same else f", in ONNX {there}")
        for output in self.fidelity:
            yield told_fidelity(output, self.samples, self.verified_on)
        yield from (f"note: {note}" for note in self.notes)
        if self.output:
            yield formatting.file(self.output, self.size_bytes, self.sha256)


def _told(shape: Shape) -> str:
    sizes = ["any" if size is None else str(size) for size in shape]
    if shape and shape[0] is None:
        sizes[0] = "n"
    return f"({', '.join(sizes)})"


@dataclass(frozen=True, repr=False)
class ImportedModel(Shown):
    """An ONNX model as a Keras model, with the report on the import.

    Attributes:
        model: The `keras.Model` of stock layers; images are (n, H, W, C) in it.
        source: The import, with the names and axes of the ONNX graph.
        record: The report.
    """

    model: keras.Model
    source: Imported
    record: ImportResult

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a user should know."""
        return self.record.notes

    def write_back(self, model: keras.Model | None = None) -> onnx.ModelProto:
        """Give the original ONNX graph with the values that the Keras model's weights have now.

        Args:
            model: The model to read: `model` itself if None, or one that was loaded from a file
                saved from it.

        Returns:
            The graph, with all weights in it.

        Raises:
            InputError: If the model lacks a layer of the import.
        """
        proto: onnx.ModelProto = self.source.write_back(model)
        return proto

    def blocks(self) -> Iterator[Block]:
        """Give the report's lines and tables."""
        return self.record.blocks()
