"""How much accuracy may be lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dsconvert.base.messages import note

from .data_for import data_for

if TYPE_CHECKING:
    from dsconvert.base.predictor import Predictor
    from dsconvert.models.data.preprocess import Preprocessing

    from .data_for import DataSource
    from .model_files import ModelFile


def share(drop: str | float) -> float:
    """Read "1%" as 0.01.

    Raises:
        InputError: If it is no share.
    """
    from dsconvert.base.errors import InputError

    text = str(drop)
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1:
        raise InputError(
            f"{drop!r} is no drop of accuracy.",
            "Write it as 1% (a point of top-1).",
            code="not-a-drop",
        )
    return found


def within(
    source: ModelFile,
    allowed: float,
    test_data: DataSource,
    seed: int,
    preprocessing: Preprocessing | None,
) -> Callable[[Predictor], bool]:
    """Make a check of whether a file loses at most so much top-1 against the model.

    Args:
        source: The model.
        allowed: The most that may be lost, 0.01 for a point.
        test_data: Images with labels.
        seed: Of their draw.
        preprocessing: What is done to stored images.

    Raises:
        InputError: If the data give no accuracy.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.models.evaluation.evaluate import evaluate

    from .predictors import runnable

    data = data_for(
        source, test_data, split="test", labels=True, seed=seed, preprocessing=preprocessing
    )

    def top1(model: Predictor) -> float:
        found = evaluate(model, data).top1
        if found is None:
            raise InputError(
                f"{data.source} gives no accuracy: --max-drop needs class labels and a model with "
                "class scores.",
                "Use --min-sqnr.",
                code="no-accuracy",
            )
        return found.value

    with runnable(source) as predictor:
        original = top1(predictor)

    def check(file: Predictor) -> bool:
        reached = top1(file)
        note(f"top-1 {reached:.2%}, the model's is {original:.2%}")
        return original - reached <= allowed + 1e-9

    return check
