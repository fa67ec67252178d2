"""Measure accuracy, and fidelity to a reference."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, overload

from dsconvert.base.messages import note
from dsconvert.base.progress import as_progress

from .data_for import as_data
from .model_files import ModelFile, path_of
from .predictors import runnable

if TYPE_CHECKING:
    from dsconvert.base.predictor import Predictor
    from dsconvert.base.progress import Progress
    from dsconvert.models.data.preprocess import Preprocessing

    from .data_for import DataSource
    from .model_files import ModelSource
    from .results.evaluated import EvaluatedModel
    from .results.shown import Results


@overload
def evaluate(
    model: list[ModelSource] | tuple[ModelSource, ...],
    data: DataSource,
    *,
    reference: ModelSource | None = None,
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    threads: int = 1,
    seed: int = 0,
    progress: Progress | bool = False,
) -> Results[EvaluatedModel]: ...


@overload
def evaluate(
    model: ModelSource,
    data: DataSource,
    *,
    reference: ModelSource | None = None,
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    threads: int = 1,
    seed: int = 0,
    progress: Progress | bool = False,
) -> EvaluatedModel: ...


def evaluate(
    model: ModelSource | list[ModelSource] | tuple[ModelSource, ...],
    data: DataSource,
    *,
    reference: ModelSource | None = None,
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    threads: int = 1,
    seed: int = 0,
    progress: Progress | bool = False,
) -> EvaluatedModel | Results[EvaluatedModel]:
    """Measure accuracy, and fidelity to a reference, of Keras, TFLite and ONNX models alike.

    Each model is fed in its own layout; TFLite and ONNX files run in their own runtimes.

    Args:
        model: A path, a `keras.Model`, an `onnx.ModelProto`, or what `load` returns; or a list of
            them.
        data: Test images (n, ...), with labels or without: a file, a folder, arrays or `Data`.
        reference: The model whose outputs they are compared with.
        samples: How many are drawn of a file; None takes all.
        preprocessing: What is done to images that are loaded from a file.
        threads: Of a runtime.
        seed: Seeds the draw.
        progress: True for a bar on stderr.

    Returns:
        Top-1 and top-5, errors, and how close each output is to the reference's; of a list of
        models a list.

    Raises:
        InputError: If a model cannot be run, or the data do not fit it.

    Example:
        >>> import dsconvert as ds
        >>> found = ds.evaluate("model.keras", "digits.npz", reference="model.onnx")
        >>> found.samples, found.fidelity[0].top1_agreement
        (100, 1.0)
        >>> [one.name for one in ds.evaluate(["model.keras", "model.onnx"], "digits.npz")]
        ['model.keras', 'model.onnx']
    """
    from dsconvert.models.data.checks import check_same_inputs, layout_notes
    from dsconvert.models.evaluation.evaluate import evaluate as run
    from dsconvert.models.evaluation.plausibility import suspicions

    from .results.evaluated import EvaluatedModel, evaluation_blocks
    from .results.shown import Results, shown

    single = not isinstance(model, list | tuple)
    models: list[ModelSource] = list(model) if isinstance(model, list | tuple) else [model]
    names = _names(models)
    with ExitStack() as stack:
        opened: dict[int | Path, Predictor] = {}
        for source in models if reference is None else (reference, *models):
            if _key(source) not in opened:
                opened[_key(source)] = stack.enter_context(runnable(source, threads=threads))
        paths = {_key(source): name for source, name in zip(models, _told(models), strict=True)}
        if reference is not None:
            paths.setdefault(_key(reference), *_told([reference]))
        check_same_inputs({paths[key]: one.input_shapes for key, one in opened.items()})
        # The one that leaves the fewest sizes open says how large images are to be.
        first = min(opened.values(), key=lambda one: str(one.input_shapes).count("None"))
        images = as_data(
            data,
            split="test",
            samples=samples,
            seed=seed,
            preprocessing=preprocessing,
            input_names=first.input_names,
            input_shapes=first.input_shapes,
        )
        given = (images.laid_out(one.input_shapes) for one in opened.values())
        for text in dict.fromkeys(text for one in given for text in layout_notes(one)):
            note(text)
        for suspicion in suspicions(images):
            note(suspicion)
        found = [
            shown(
                EvaluatedModel,
                run(
                    opened[_key(source)],
                    images,
                    reference=None if reference is None else opened[_key(reference)],
                    name=name,
                    progress=as_progress(progress),
                ),
            )
            for source, name in zip(models, names, strict=True)
        ]
    return found[0] if single else Results(found, evaluation_blocks)


def _key(source: ModelSource) -> int | Path:
    """What tells whether two are the same model."""
    path = None if isinstance(source, ModelFile) else path_of(source)
    return id(source) if path is None else path


def _told(models: Sequence[ModelSource]) -> list[str]:
    """What messages call them: paths, or names with a number where two are the same."""
    told: list[str] = []
    for source in models:
        path = path_of(source)
        name = str(path) if path else str(getattr(source, "name", "") or "the model")
        told.append(f"{name} ({len(told) + 1})" if name in told and path is None else name)
    return told


def _names(models: Sequence[ModelSource]) -> list[str]:
    """The files' names, or their paths where two files have the same name."""
    paths = [Path(text) for text in _told(models)]
    names = [path.name for path in paths]
    return [path.name if names.count(path.name) == 1 else str(path) for path in paths]
