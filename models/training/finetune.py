"""Fine-tuning by distillation: the student learns to answer as its teacher does, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsconvert.base.errors import require
from dsconvert.base.files import check_writable
from dsconvert.base.finite import check_answers
from dsconvert.base.progress import Progress, silent

from ..data.datasets import Data, holdout
from ..evaluation.keras_predictor import KerasPredictor
from .checkpoint import Identity, Keeper, fingerprint
from .checks import check
from .distill import objectives, takes_logits
from .judge import Judge, best_epoch
from .label_outputs import with_scores
from .network import NetworkOf, answering
from .replicas import One, Replicas
from .run import Run
from .settings import FinetuneSettings, Tuned
from .training import Trainer


def finetune(
    student: Any,
    teacher: Any,
    data: Data,
    settings: FinetuneSettings | None = None,
    *,
    state: Path | None = None,
    callbacks: Sequence[Any] = (),
    network: NetworkOf | None = None,
    watched: NetworkOf | None = None,
    replicas: Replicas | None = None,
    progress: Progress = silent,
) -> Tuned:
    """Train the student to give the teacher's outputs; it receives the best weights found.

    The best epoch is the one whose outputs, in float32, are nearest to the teacher's on samples
    that are held out of training. The student as it came counts as epoch 0: nothing worse is ever
    handed back.

    Ctrl-C and SIGTERM end the training after the step that is running; the result is the best up to
    then. The state that is kept goes on from that step.

    Args:
        student: A functional or sequential Keras model. Only its weights change.
        teacher: The model it was made from: the same inputs and outputs.
        data: Training samples; labels are looked at only if ``label_weight`` is positive.
        settings: See `FinetuneSettings`.
        state: A file that holds the state, after each epoch and every ``save_minutes``. If it
            exists, training goes on from there and gives what an uninterrupted run would have
            given.
        callbacks: Keras callbacks. Their model is the copy that is trained; its optimizer only
            tells the learning rate.
        network: How the student is computed while it is trained and judged; by default as Keras
            does.
        watched: How the teacher is computed where the student learns its features, too.
        replicas: The devices that compute shares of each batch. Of several processes the chief
            alone keeps the state, and the others go on from it.
        progress: Told of each training step.

    Raises:
        InputError: If the models or the data do not fit together, the teacher gives NaN or
            infinity, or ``state`` belongs to another run.
        KeyboardInterrupt: If nothing was trained yet.
    """
    require("tensorflow", "keras", "to fine-tune")
    settings = settings or FinetuneSettings()
    if state is not None:
        check_writable(state, overwrite=True)
    whole, student, teacher = student, with_scores(student), with_scores(teacher)
    check(student, teacher, data, settings)
    training, validation = holdout(data, settings.validation, seed=settings.seed)
    identity = Identity(
        settings=settings.of_the_result(),
        student=fingerprint(student.get_weights()),
        teacher=fingerprint(teacher.get_weights()),
        data=fingerprint(data.inputs if data.labels is None else (*data.inputs, data.labels)),
    )
    replicas = replicas or One()
    keeper = Keeper(state if replicas.chief else None, identity, settings.save_minutes)
    saved = keeper.load_together(replicas)
    logits = takes_logits(teacher) and (settings.logits or settings.label_weight > 0)
    weight = settings.label_weight
    judged = answering(student, None if network is None else network(student))
    judge = Judge(judged, teacher, validation, weight, logits=logits)
    check_answers(
        judge.names, judge.answers, who="the teacher", on=f"the samples held out of {data.source}"
    )
    goals = objectives(teacher, judge.answers, settings.temperature, weight, logits=logits)
    trainer = Trainer(
        student, teacher, training, goals, settings, progress, network, watched, replicas
    )
    run = Run(student, trainer, judge, keeper, settings, callbacks, progress)
    try:
        run.go(saved)
    finally:  # whatever ended it, the student gets the best so far
        student.set_weights(run.best)
    notes = run.notes()
    if student is not whole:
        matched = ", ".join(KerasPredictor(student).output_names)
        notes = (f"labels have no gradient: the student matched {matched} in their place", *notes)
    return Tuned(whole, tuple(run.history), best_epoch(run.history), notes, run.interrupted)
