"""What a framework must offer so that its models can be rewritten."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array, Shape

from ..core.network.fit_state import FitRun
from ..core.planning.cost_model import Activation
from ..core.planning.policy import ConvolutionFacts
from ..core.stages import Stages


class Convolution(ConvolutionFacts, Protocol):
    """A convolution as a backend found it, with its weights."""

    @property
    def activation(self) -> Activation:
        """Return what follows it, if runtimes fuse that; else "none"."""

    @property
    def absorbed(self) -> int | None:
        """Parameters of what follows it and goes into its pairs; None if nothing does."""

    def weights(self) -> tuple[Array, Array | None]:
        """Return the kernel W, (kh, kw, C, N), and the bias, (N,), if it has one."""


class Backend(Protocol):
    """A model of one framework, readable and rewritable."""

    @property
    def model(self) -> Any:
        """The framework's own object."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """One shape per input; None where a size is free."""

    @property
    def input_types(self) -> tuple[str, ...]:
        """Return what each input holds: "float32", "uint8"."""

    @property
    def convolutions(self) -> Sequence[Convolution]:
        """All convolutions in the order of the network."""

    @property
    def narrow(self) -> bool:
        """Tell whether some of it computes in 16 bits."""

    def macs(self) -> int | None:
        """MACs of one image; None where its size is free."""

    def dense_macs(self) -> int | None:
        """MACs of its dense layers alone."""

    def kernels(self) -> int | None:
        """Weights of convolutions and dense layers, without biases and norms."""

    def params(self) -> int:
        """Tell how many weights the model has."""

    def stages(
        self, rewritten: Collection[str], inputs: Sequence[Array], *, refit: bool = True
    ) -> Stages:
        """Return the network, cut where the named convolutions and what may be refitted stand.

        Args:
            rewritten: Names of the convolutions to fit.
            inputs: The data that will go through it.
            refit: Whether 1×1 convolutions and last dense layers are sites as well.
        """

    def rebuild(self, fit_run: FitRun) -> tuple[Backend, list[str]]:
        """A new model with the fit run's pairs and weights, and what could not be carried over."""


def backend_for(model: Any, folder: Path | None = None) -> Backend:
    """Return the backend for a model.

    Args:
        model: A ``keras.Model`` or an ``onnx.ModelProto``.
        folder: Where the external data of an ONNX model are.

    Raises:
        InputError: If it is neither, or cannot be read.
    """
    kinds = [f"{kind.__module__}.{kind.__name__}" for kind in type(model).__mro__]
    if any(kind.startswith("onnx.") for kind in kinds):
        from .onnx.backend import OnnxBackend

        return OnnxBackend.of(model, folder)
    if any(kind.startswith(("keras.", "tensorflow.")) for kind in kinds):
        from .keras.backend import KerasBackend

        return KerasBackend.of(model)
    raise InputError(
        f"a {type(model).__name__} cannot be rewritten.",
        "Give a keras.Model or an onnx.ModelProto.",
        code="not-a-model",
    )
