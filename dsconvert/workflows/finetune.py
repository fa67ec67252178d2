"""Train a rewritten model to answer as its original does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.arguments import of_kind
from dsconvert.base.errors import DsconvertError
from dsconvert.base.progress import as_progress

from .data_for import check_sources, data_for, data_memory
from .finite_weights import check_weights
from .kept_training import keep_training
from .model_files import kind_of_source, path_of
from .onnx_round_trip import ConvertedModel, layout_notes, open_as_keras, write_onnx
from .outputs import place
from .refine import composed_like
from .results.tuned import FinetuneResult, TunedModel
from .saved_models import check_savable, save_keras
from .stored_preprocessing import known, settled

if TYPE_CHECKING:
    import keras

    from dsconvert.base.progress import Progress
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.data.preprocess import Preprocessing
    from dsconvert.models.training.network import NetworkOf
    from dsconvert.models.training.settings import Epoch, FinetuneSettings

    from .data_for import DataSource
    from .model_files import ModelSource

_LOOKED_AT = 256
"""Samples on a disk whose values are looked at before the training."""


def finetune(
    student: ModelSource,
    teacher: ModelSource,
    data: DataSource,
    settings: FinetuneSettings | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Progress | bool = False,
) -> TunedModel:
    """Train the student to give the teacher's outputs, and keep the best epoch.

    A `keras.Model` that is given as the student gets the new weights itself. Of an ONNX student the
    tuned weights go back into its own graph, if the output is an .onnx file.

    Ctrl-C or SIGTERM ends the training with the best up to then.

    Args:
        student: The rewritten model: a path, a `keras.Model`, an `onnx.ModelProto`, or what
            `load` returns.
        teacher: The model that it was made from.
        data: Training images (n, ...); labels are needed only for ``settings.label_weight``.
        settings: Epochs, learning rate and so on.
        preprocessing: What is done to images that are loaded from a file.
        samples: How many are drawn of a file; None takes all.
        output: The .keras, .h5 or, for an ONNX student, .onnx file to write. While training runs,
            its state is kept beside it.
        overwrite: Whether it may exist.
        callbacks: Keras callbacks, as those of ``fit``. Each epoch tells them ``loss``,
            ``output_error``, the same as ``val_loss``, ``learning_rate`` and ``images_per_second``;
            their model is the copy that is trained.
        progress: True for a bar on stderr.

    Returns:
        The `keras.Model` with the weights of the best epoch, and what each epoch came to.

    Raises:
        InputError: If the models or the data do not fit together.
        GateFailed: If the written file does not give the model back.

    Example:
        >>> import dsconvert as ds
        >>> small = ds.rewrite("model.keras", calibration="digits.npz", refine=0)
        >>> settings = ds.FinetuneSettings(epochs=1)
        >>> tuned = ds.finetune(small.model, "model.keras", "digits.npz", settings)
        >>> tuned.history[0].epoch
        0
        >>> tuned.model is small.model
        True
    """
    from dsconvert.base.finite import check_finite
    from dsconvert.base.whole_numbers import check_held
    from dsconvert.models.training.event_log import event_log
    from dsconvert.models.training.finetune import finetune as run
    from dsconvert.models.training.replicas import place_of, replicas_of
    from dsconvert.models.training.settings import FinetuneSettings

    settings = of_kind(settings, FinetuneSettings, "settings") or FinetuneSettings()
    told = as_progress(progress)
    worker = place_of(settings.strategy)
    path = None
    if output is not None and worker.index == 0:
        path = _place(student, Path(output), overwrite)
    begin = worker.workers > 1
    state = None if path is None else _state(path, settings.resume, overwrite, begin=begin)
    check_sources(data)
    replicas = replicas_of(settings.strategy)  # before TensorFlow is used for anything else
    learner = open_as_keras(student, settings.seed, told, wanted="student")
    original = open_as_keras(teacher, settings.seed, told, wanted="teacher")
    check_savable(learner, path)
    for one in (learner, original):
        check_weights(one)
    preprocessing = settled(preprocessing, [teacher, student], data)
    images = data_for(
        original,
        data,
        split="train",
        samples=samples,
        seed=settings.seed,
        labels=settings.label_weight > 0,
        preprocessing=preprocessing,
        memory=data_memory(),
    )
    looked_at = images.take(slice(_LOOKED_AT)).loaded() if images.on_disk else images
    for array in looked_at.inputs:
        check_finite(array, images.source)
    for array, tensor in zip(looked_at.inputs, learner.model.inputs, strict=True):
        check_held(array, tensor.dtype, images.source)
    if settings.log_dir is not None:
        callbacks = (*callbacks, event_log(Path(settings.log_dir)))
    network = watched = None
    if settings.quantize == "int8":
        network = _int8_network(path, original, data, preprocessing)
    elif not _has_new_norms(learner.model, original.model):
        half = settings.mixed_precision
        both = (original.model, learner.model)
        watched = composed_like(*both, half=half)
        network = composed_like(*both, half=half, batch_norms=True)
    tuned = run(
        learner.model,
        original.model,
        images,
        settings,
        state=state,
        callbacks=callbacks,
        network=network,
        watched=watched,
        replicas=replicas,
        progress=told,
    )
    replicas.any(False)  # the first worker would take the others with it
    size, digest, notes = None, "", tuned.notes
    if not replicas.chief:
        notes += ("the first worker writes the model",)
    if path is not None:
        try:
            size, digest = _save(learner, tuned.model, path, images, settings.seed, overwrite)
        except DsconvertError as error:
            keep_training(error, state, tuned.model, learner.loading)
            raise
        if path.suffix != ".onnx" and learner.imported is not None:
            notes += layout_notes(learner.imported)
    if state is not None and tuned.interrupted:
        notes += (f"{state} holds the state: --resume --overwrite goes on from there",)
    elif state is not None:
        state.unlink(missing_ok=True)
    record = FinetuneResult(
        student=learner.told,
        teacher=original.told,
        output=str(path or ""),
        sha256=digest,
        size_bytes=size,
        settings=settings,
        preprocessing=images.preprocessing,
        history=_named(tuned.history, original),
        best_epoch=tuned.best_epoch,
        notes=notes,
        interrupted=tuned.interrupted,
    )
    return TunedModel(model=tuned.model, record=record)


def _has_new_norms(student: keras.Model, teacher: keras.Model) -> bool:
    """Tell whether a student has norms that its teacher lacks, whose statistics must be learnt."""
    import keras

    from dsconvert.models.evaluation.keras_predictor import leaf_layers

    kind = keras.layers.BatchNormalization
    names = [
        {layer.name for layer in leaf_layers(model) if isinstance(layer, kind)}
        for model in (student, teacher)
    ]
    return bool(names[0] - names[1])


def _int8_network(
    output: Path | None,
    teacher: ConvertedModel,
    source: DataSource,
    preprocessing: Preprocessing | None,
) -> NetworkOf:
    """Return what rounds a model as `export` will, with the images that it calibrates with.

    Raises:
        InputError: If the output is an ONNX file, which rounds in other places.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.converter.backends.keras.fake_quantized import FakeQuantized

    from .export_options import ExportOptions

    if output is not None and output.suffix == ".onnx":
        raise InputError(
            "training for int8 is for .tflite files, which are exported from Keras models.",
            f"Try: -o {output.with_suffix('.keras')}",
            code="option-not-applicable",
        )
    drawn = ExportOptions()
    calibration = data_for(
        teacher,
        source,
        warn=False,
        split="train",
        samples=drawn.samples,
        seed=drawn.seed,
        preprocessing=preprocessing,
    )
    inputs = calibration.take(slice(drawn.samples)).loaded().inputs
    return lambda model: FakeQuantized(model, inputs)


def _save(
    learner: ConvertedModel,
    model: keras.Model,
    path: Path,
    images: Data,
    seed: int,
    overwrite: bool,
) -> tuple[int, str]:
    """Write the tuned model; its size and hash."""
    if path.suffix != ".onnx":
        done = known(images)
        loading = learner.loading
        return save_keras(model, path, overwrite=overwrite, loading=loading, preprocessing=done)
    written = write_onnx(
        learner,
        model,
        path,
        data=images.inputs,
        seed=seed,
        overwrite=overwrite,
        source_sha256=learner.sha256,
    )
    return written.size_bytes, written.sha256


def _named(history: tuple[Epoch, ...], teacher: ConvertedModel) -> tuple[Epoch, ...]:
    """Return the history with the outputs called as in the teacher's file; scores by own names."""
    import msgspec

    from dsconvert.models.evaluation.keras_predictor import KerasPredictor

    if teacher.imported is None:
        return history
    replace, own = msgspec.structs.replace, KerasPredictor(teacher.model).output_names
    names = dict(zip(own, teacher.imported.output_names, strict=True))
    return tuple(
        replace(
            epoch,
            fidelity=tuple(
                replace(output, name=names.get(output.name, output.name))
                for output in epoch.fidelity
            ),
        )
        for epoch in history
    )


def _place(student: ModelSource, output: Path, overwrite: bool) -> Path:
    """Tell where the tuned model goes, by what the student is."""
    from dsconvert.base.errors import InputError

    if kind_of_source(student) == "onnx":
        allowed: tuple[str, ...] = (".onnx", ".keras", ".h5")
    elif output.suffix == ".onnx":
        raise InputError(
            f"{path_of(student) or 'the student'} is a Keras model: its tuned weights go into a "
            ".keras or .h5 file.",
            f"Try: -o {output.with_suffix('.keras')}, then dsconvert export it to {output}.",
            code="wrong-suffix",
        )
    else:
        allowed = (".keras", ".h5")
    return place(student, output, overwrite=overwrite, allowed=allowed)


def _state(output: Path, resume: bool, overwrite: bool, *, begin: bool) -> Path:
    """Return the file beside the output that an interrupted run leaves.

    Args:
        output: The tuned model.
        resume: Go on from it.
        overwrite: It may be replaced.
        begin: Begin anew where there is none to go on from: workers are started by one command,
            however often.

    Raises:
        InputError: If there is one and nobody said what to do, or none to go on from.
    """
    from dsconvert.base.errors import InputError

    state = output.with_name(output.name + ".state")
    if state.exists() and not resume:
        if not overwrite:
            raise InputError(
                f"{state} is left from an interrupted run.",
                "Go on with --resume, or start again with --overwrite.",
                code="interrupted-run",
            )
        state.unlink()
    if resume and not state.exists() and not begin:
        raise InputError(
            f"there is nothing to resume: {state} does not exist.",
            "Drop --resume.",
            code="nothing-to-resume",
        )
    return state
