"""Measure accuracy, and fidelity to a reference."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, overload

from dsconvert.base.messages import note
from dsconvert.base.progress import as_progress

from .data_for import as_data, check_sources
from .model_files import ModelFile, ModelPath, path_of
from .predictors import check_runtime, runnable, runtime_notes
from .stored_preprocessing import settled

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
    metric: str | Sequence[str] = (),
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    threads: int = 1,
    runtime: str | None = None,
    seed: int = 0,
    progress: Progress | bool = False,
) -> Results[EvaluatedModel]: ...


@overload
def evaluate(
    model: ModelSource,
    data: DataSource,
    *,
    reference: ModelSource | None = None,
    metric: str | Sequence[str] = (),
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    threads: int = 1,
    runtime: str | None = None,
    seed: int = 0,
    progress: Progress | bool = False,
) -> EvaluatedModel: ...


def evaluate(
    model: ModelSource | list[ModelSource] | tuple[ModelSource, ...],
    data: DataSource,
    *,
    reference: ModelSource | None = None,
    metric: str | Sequence[str] = (),
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    threads: int = 1,
    runtime: str | None = None,
    seed: int = 0,
    progress: Progress | bool = False,
) -> EvaluatedModel | Results[EvaluatedModel]:
    """Measure accuracy, and fidelity to a reference, of Keras, TFLite and ONNX models alike.

    Each model is fed in its own layout.

    Args:
        model: A path, a `keras.Model`, an `onnx.ModelProto`, or what `load` returns; or a list of
            them.
        data: Test images (n, ...), with labels or without: a file, a folder, arrays or `Data`.
        reference: The model whose outputs they are compared with.
        metric: What to measure, one or several: "top1", "top5", "miou", "psnr", "ssim", "mae",
            "map", "map50", "boxes", with settings behind a slash ("map/cxcywh"), or
            "module:function", a function (inputs, outputs, labels) that returns a number. Without
            any, what the labels allow.
        samples: How many are drawn of a file; None takes all.
        preprocessing: What is done to images that are loaded from a file.
        threads: Of a runtime.
        runtime: The runtime that TFLite and ONNX models run in; by default that of their format,
            which always runs the reference.
        seed: Seeds the draw.
        progress: True for a bar on stderr.

    Returns:
        Top-1 and top-5, errors, the metrics with their 95 % intervals, and how close each output is
        to the reference's; of a list of models a list.

    Raises:
        InputError: If a model cannot be run, the data do not fit it, or nothing can be measured:
            neither labels nor a reference.
        MissingExtra: If pycocotools, which "map" needs, is not installed.

    Example:
        >>> import dsconvert as ds
        >>> found = ds.evaluate("model.keras", "digits.npz", reference="model.onnx")
        >>> found.samples, found.fidelity[0].top1_agreement
        (100, 1.0)
        >>> [one.name for one in ds.evaluate(["model.keras", "model.onnx"], "digits.npz")]
        ['model.keras', 'model.onnx']
    """
    from dsconvert.base.errors import InputError
    from dsconvert.models.data.checks import check_same_inputs, layout_notes
    from dsconvert.models.evaluation.compare import predict_reference
    from dsconvert.models.evaluation.evaluate import evaluate as run
    from dsconvert.models.evaluation.metrics import find_metric
    from dsconvert.models.evaluation.plausibility import suspicions

    from .results.evaluated import EvaluatedModel, evaluation_blocks
    from .results.shown import Results, shown

    single = not isinstance(model, list | tuple)
    models: list[ModelSource] = list(model) if isinstance(model, list | tuple) else [model]
    names = _names(models)
    sources = models if reference is None else [*models, reference]
    wanted = [find_metric(text) for text in ((metric,) if isinstance(metric, str) else metric)]
    check_runtime(runtime, models)
    check_sources(data)
    with ExitStack() as stack:
        opened: dict[tuple[Hashable, str | None], Predictor] = {}

        def open_in(name: str | None, source: ModelSource) -> Predictor:
            key = (_key(source), name)
            if key not in opened:
                running = runnable(source, threads=threads, runtime=name)
                opened[key] = stack.enter_context(running)
            return opened[key]

        compared = None if reference is None else open_in(None, reference)
        predictors = [open_in(runtime, source) for source in models]
        paths = {_key(source): name for source, name in zip(models, _told(models), strict=True)}
        if reference is not None:
            paths.setdefault(_key(reference), *_told([reference]))
        check_same_inputs({paths[key]: one.input_shapes for (key, _), one in opened.items()})
        # The one that leaves the fewest sizes open says how large images are to be.
        first = min(opened.values(), key=lambda one: str(one.input_shapes).count("None"))
        images = as_data(
            data,
            split="test",
            samples=samples,
            seed=seed,
            preprocessing=settled(preprocessing, sources, data),
            input_names=first.input_names,
            input_shapes=first.input_shapes,
        )
        if compared is None and images.labels is None and not wanted:
            raise InputError(
                f"{images.source} has no labels: without a reference nothing can be measured.",
                "Add --reference MODEL, the model that this one was made from; for a detector: "
                "--metric boxes, too.",
                code="nothing-to-measure",
            )
        given = (images.laid_out(one.input_shapes) for one in opened.values())
        for text in dict.fromkeys(text for one in given for text in layout_notes(one)):
            note(text)
        for said in (*runtime_notes(runtime, models), *suspicions(images)):
            note(said)
        follow = as_progress(progress)
        answers = None if compared is None else predict_reference(compared, images, follow)
        found = [
            shown(
                EvaluatedModel,
                run(
                    predictor,
                    images,
                    reference=compared,
                    references=answers,
                    metrics=wanted,
                    name=name,
                    progress=follow,
                ),
            )
            for predictor, name in zip(predictors, names, strict=True)
        ]
    return found[0] if single else Results(found, evaluation_blocks)


def _key(source: ModelSource) -> Hashable:
    """Return what tells whether two are the same model: a file may be read as another one."""
    path = None if isinstance(source, ModelFile) else path_of(source)
    if path is None:
        return id(source)
    return (path, source.dequantize, source.input_size) if isinstance(source, ModelPath) else path


def _told(models: Sequence[ModelSource]) -> list[str]:
    """Return what messages call them: paths, or names with a number where two are the same."""
    told: list[str] = []
    for source in models:
        path = path_of(source)
        name = str(path) if path else str(getattr(source, "name", "") or "the model")
        told.append(f"{name} ({len(told) + 1})" if name in told and path is None else name)
    return told


def _names(models: Sequence[ModelSource]) -> list[str]:
    """Return the files' names, or their paths where two files have the same name."""
    paths = [Path(text) for text in _told(models)]
    names = [path.name for path in paths]
    return [path.name if names.count(path.name) == 1 else str(path) for path in paths]
