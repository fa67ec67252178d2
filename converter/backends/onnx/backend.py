"""The ONNX backend: see `front_end.FrontEnd`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.predictor import Array, Shape
from dsconvert.formats.onnx.branches import without_constant_branches
from dsconvert.formats.onnx.functions import inlined
from dsconvert.formats.onnx.graph import OnnxGraph
from dsconvert.formats.onnx.half import HALF
from dsconvert.formats.onnx.shapes import shape_of
from dsconvert.formats.onnx.tensors import stored_tensors

from ...core.network.fit_state import FitRun
from .apply import rebuild
from .cost import model_kernels, model_macs, model_params
from .read import OnnxConvolution, is_convolution, read_convolutions
from .stages import OnnxStages

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class OnnxBackend:
    """A model and its graph."""

    graph: OnnxGraph

    @classmethod
    def of(cls, model: ModelProto, folder: Path | None = None) -> OnnxBackend:
        """Read a model that is valid and that ONNX Runtime runs.

        Functions that hold convolutions are inlined: each call has its own from then on. The same
        goes for a branch that a constant condition takes.
        """
        model = inlined(model, is_convolution)
        model = without_constant_branches(model, folder, is_convolution)
        return cls(OnnxGraph(model, folder))

    @property
    def model(self) -> ModelProto:
        """The model."""
        return self.graph.model

    @property
    def name(self) -> str:
        """The graph's name."""
        return str(self.model.graph.name)

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """One shape per input; None where a size is free."""
        return tuple(shape_of(value) or () for value in self.graph.inputs)

    @property
    def input_types(self) -> tuple[str, ...]:
        """Return what each input holds: "float32", "uint8"."""
        return tuple(str(self.graph.input_types[value.name]) for value in self.graph.inputs)

    @cached_property
    def convolutions(self) -> Sequence[OnnxConvolution]:
        """All convolutions in the order of the graph."""
        return read_convolutions(self.graph)

    @property
    def narrow(self) -> bool:
        """Tell whether some of it computes in 16 bits."""
        return any(t.data_type in HALF for t in stored_tensors(self.model).values())

    def macs(self) -> int | None:
        """MACs of one image; None where its size is free."""
        return model_macs(self.graph)

    def dense_macs(self) -> int | None:
        """MACs of its dense layers alone."""
        return model_macs(self.graph, dense_only=True)

    def kernels(self) -> int | None:
        """Weights of convolutions and dense layers, without biases and norms."""
        return model_kernels(self.graph)

    def params(self) -> int:
        """Tell how many weights the model has."""
        return model_params(self.graph)

    def stages(
        self, rewritten: Collection[str], inputs: Sequence[Array], *, refit: bool = True
    ) -> OnnxStages:
        """Return the network, cut where the named convolutions and what may be refitted stand."""
        return OnnxStages(self.graph, rewritten, inputs, refit=refit)

    def rebuild(self, fit_run: FitRun) -> tuple[OnnxBackend, list[str]]:
        """Return a new model with the fit run's pairs and weights."""
        model = rebuild(self.graph, fit_run.factors, fit_run.weights)
        return OnnxBackend(OnnxGraph(model, self.graph.folder)), []
