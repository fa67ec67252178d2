"""About how long each stage of a run takes, before it is run.

Constants are of runs on two cores; what differs from machine to machine is measured: how fast it
multiplies matrices. An estimate is right to a factor of two or three, which is what it is for:
minutes or hours.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..refine import refine_settings
from .options import split

if TYPE_CHECKING:
    from ..results.inspected import InspectedModel
    from .options import OptimizeOptions

_SIDE, _TIMES = 192, 100
"""Of the matrices that are multiplied to see how fast the machine is: small ones, so that some
product is not disturbed by other work."""
_EFFICIENCY = 0.3
"""Of a network of small layers against one large product of matrices."""
_INT8_CALIBRATOR = 0.05
"""Of TensorFlow's int8 calibrator, which runs reference kernels."""
_TRIED = 4
"""Files that an int8 export makes to choose among."""
_BLOCKS = 8.0
"""Seconds to time and to fit the candidates of one convolution, besides running the network."""
_PASSES = {"plan": 40, "rewrite": 10}
"""Times that the calibration images go through the network."""
_TRAINING = 4
"""Of one pass of the student: forward, two backward, and one forward of its teacher."""
_STEP = 0.1
"""Seconds of one step of refinement."""
_CONVERSION = {"tflite": 5.0, "onnx": 3.0}
_FRAMEWORK, _PROFILED = 3.0, 4.0
"""Seconds to start one, and to time one file."""


def speed() -> float:
    """Measure how many multiply-accumulates numpy does in a second."""
    import numpy as np

    matrix, times = np.ones((_SIDE, _SIDE), np.float32), []
    for _ in range(_TIMES):
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return _SIDE**3 / min(times)


@dataclass(frozen=True)
class Estimates:
    """What the times of stages depend on.

    Attributes:
        macs: Of one image.
        candidates: Convolutions that may be replaced.
        images: For training, for calibration, for int8 ranges, and for tests.
        files: How many there will be.
        refined: Seconds of refinement.
        epochs: Of fine-tuning.
        speed: Multiply-accumulates in a second, as `speed` measures them.
    """

    macs: float
    candidates: int
    images: tuple[int, int, int, int]
    files: int
    refined: float
    epochs: int
    speed: float

    def seconds(self, stage: str, form: str = "") -> float:
        """Estimate a stage; ``form`` is that of the file it makes."""
        training, calibration, ranges, test = self.images
        name = stage.partition("-")[0]
        if name == "plan":
            return self.candidates * _BLOCKS + _PASSES["plan"] * self._forward(calibration)
        if name == "rewrite":
            return self.refined + self.candidates + _PASSES["rewrite"] * self._forward(calibration)
        if name == "finetune":
            return _FRAMEWORK + self.epochs * _TRAINING * self._forward(training)
        if name == "export":
            return self._export(form, ranges)
        if name == "evaluate":
            return (1 + self.files) * self._forward(test) + _FRAMEWORK
        if name == "profile":
            return self.files * _PROFILED
        return _FRAMEWORK

    def _export(self, form: str, ranges: int) -> float:
        kind, how = split(form)
        seconds = _CONVERSION[kind]
        if not how.startswith("int"):
            return seconds
        slow = _INT8_CALIBRATOR if kind == "tflite" else _EFFICIENCY
        return _TRIED * (seconds + ranges * self.macs / (slow * self.speed))

    def _forward(self, images: int) -> float:
        return images * self.macs / (_EFFICIENCY * self.speed)


def estimates_for(
    options: OptimizeOptions,
    inspected: InspectedModel,
    images: tuple[int, int, int, int],
    *,
    files: int,
    keras: bool,
) -> Estimates | None:
    """Bring together what the estimates depend on; None where the MACs are not known.

    Args:
        options: What was asked for.
        inspected: The model's convolutions.
        images: For training, for calibration, for int8 ranges, and for tests.
        files: How many there will be.
        keras: Whether the model is a Keras one, which is refined unless that was turned off.
    """
    if inspected.macs is None:
        return None
    return Estimates(
        macs=inspected.macs,
        candidates=sum(row.reason is None for row in inspected.convolutions),
        images=images,
        files=files,
        refined=_refined(options.refine) if keras or options.refine is not None else 0.0,
        epochs=options.epochs,
        speed=speed(),
    )


def _refined(asked: str | None) -> float:
    """Return the seconds of refinement."""
    settings = refine_settings(asked, 0)
    if settings is None:
        return 0.0
    return settings.steps * _STEP if settings.steps else settings.seconds
