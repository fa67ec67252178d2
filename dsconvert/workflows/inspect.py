"""Show what a model's convolutions are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dsconvert.base.progress import as_progress

from .data_for import calibration_for, check_sources
from .model_files import open_model
from .stored_preprocessing import settled

if TYPE_CHECKING:
    from dsconvert.base.progress import Progress
    from dsconvert.models.data.preprocess import Preprocessing

    from .data_for import DataSource
    from .model_files import ModelSource
    from .results.inspected import InspectedModel


def inspect(
    model: ModelSource,
    *,
    calibration: DataSource | None = None,
    samples: int = 500,
    preprocessing: Preprocessing | None = None,
    memory: int = 2 << 30,
    seed: int = 0,
    progress: Progress | bool = False,
) -> InspectedModel:
    """List each convolution, what pairs would save and lose, or why it is left alone.

    Args:
        model: A path, a `keras.Model`, an `onnx.ModelProto`, or what `load` returns.
        calibration: Unlabelled images (n, ...): the errors are then those of pairs fitted to them.
        samples: How many are drawn of a file.
        preprocessing: What is done to images that are loaded from a file.
        memory: Bytes of activations held in memory at most.
        seed: Seeds every draw.
        progress: True for a bar on stderr.

    Returns:
        MACs and parameters, and a row for each convolution.

    Raises:
        InputError: If the model has no graph, or the data do not fit it.

    Example:
        >>> import dsconvert as ds
        >>> found = ds.inspect("model.keras")
        >>> [row.name for row in found.convolutions]
        ['stem', 'conv']
        >>> found.convolutions[0].reason.code
        'stem'
    """
    from dsconvert.converter.inspect import inspect as run

    from .results.inspected import InspectedModel
    from .results.shown import shown

    check_sources(calibration)
    opened = open_model(model)
    preprocessing = settled(preprocessing, [opened], calibration)
    data = calibration_for(opened, calibration, samples, seed, preprocessing)
    found = run(
        opened.model,
        folder=opened.folder,
        calibration=None if data is None else data.inputs,
        memory=memory,
        seed=seed,
        progress=as_progress(progress),
    )
    return shown(InspectedModel, msgspec.structs.replace(found, model=opened.told))
