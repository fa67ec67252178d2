"""The Keras backend: see `front_end.FrontEnd`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dsconvert.base.errors import require
from dsconvert.base.predictor import Array, Shape

from ...core.network.fit_state import FitRun
from .apply import rebuild
from .cost import model_kernels, model_macs
from .graph import FlatGraph, as_functional, flatten
from .read import KerasConvolution, read_convolutions
from .stages import KerasStages


@dataclass(frozen=True)
class KerasBackend:
    """A functional or Sequential model.

    Attributes:
        model: The model.
        graph: Its steps.
    """

    model: Any
    graph: FlatGraph

    @classmethod
    def of(cls, model: Any) -> KerasBackend:
        """Read a model; a subclassed one is redrawn as a functional one."""
        require("keras", "keras", "to rewrite Keras models")
        source = as_functional(model)
        return cls(source, flatten(source))

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.model.name)

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """One shape per input; None where a size is free."""
        return tuple(tuple(self.graph.symbolic[value].shape) for value in self.graph.inputs)

    @property
    def input_types(self) -> tuple[str, ...]:
        """Return what each input holds: "float32", "uint8"."""
        return tuple(str(self.graph.symbolic[value].dtype) for value in self.graph.inputs)

    @cached_property
    def convolutions(self) -> Sequence[KerasConvolution]:
        """All convolutions in the order of the network."""
        return read_convolutions(self.graph)

    @property
    def narrow(self) -> bool:
        """Tell whether some of it computes in 16 bits."""
        return any(layer.compute_dtype != "float32" for layer in self.model._flatten_layers())

    def macs(self) -> int | None:
        """MACs of one image; None where its size is free."""
        return model_macs(self.model)

    def dense_macs(self) -> int | None:
        """MACs of its dense layers alone."""
        return model_macs(self.model, dense_only=True)

    def kernels(self) -> int:
        """Weights of convolutions and dense layers, without biases and norms."""
        return model_kernels(self.model)

    def params(self) -> int:
        """Tell how many weights the model has."""
        return int(self.model.count_params())

    def stages(
        self, rewritten: Collection[str], inputs: Sequence[Array], *, refit: bool = True
    ) -> KerasStages:
        """Return the network, cut where the named convolutions and what may be refitted stand."""
        return KerasStages(self.graph, rewritten, refit=refit)

    def rebuild(self, fit_run: FitRun) -> tuple[KerasBackend, list[str]]:
        """A new model with the fit run's pairs and weights, and what could not be carried over."""
        norms = KerasStages(self.graph, fit_run.factors).norms() if fit_run.weights else {}
        model, notes = rebuild(self.model, fit_run.factors, fit_run.weights, norms)
        return KerasBackend(model, flatten(model)), notes
