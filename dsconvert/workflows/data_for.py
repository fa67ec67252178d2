"""Load data in the form that an opened model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .model_files import ModelFile

if TYPE_CHECKING:
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.data.preprocess import Preprocessing


def data_for(
    opened: ModelFile, source: str, *, split: Any, warn: bool = True, **wishes: Any
) -> Data:
    """Load data in the form a model takes, and say what was moved and what looks wrong.

    For an ONNX model this imports no framework.
    """
    from dsconvert.base.messages import note
    from dsconvert.models.data.checks import check_against, layout_notes
    from dsconvert.models.data.datasets import load_data
    from dsconvert.models.evaluation.plausibility import suspicions

    data = load_data(
        source,
        split=split,
        input_names=opened.input_names,
        input_shapes=opened.input_shapes,
        **wishes,
    )
    check_against(opened.input_shapes, data)
    for text in layout_notes(data):
        note(text)
    for suspicion in suspicions(data, opened.model, opened.folder) if warn else ():
        note(suspicion)
    return data


def calibration_for(
    opened: ModelFile, source: str | None, samples: int, seed: int, prepared: Preprocessing
) -> Data | None:
    """Calibration images, if a source was given."""
    if source is None:
        return None
    return data_for(
        opened, source, split="train", samples=samples, seed=seed, preprocessing=prepared
    )
