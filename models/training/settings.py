"""The nouns of fine-tuning. What is a Struct is stored with the result as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import OutputFidelity

from .batches import Augmentation
from .replicas import Strategy
from .step_sizes import WARMUP

SAVE_MINUTES = 5.0
"""How often the state is kept unless asked otherwise."""


class FinetuneSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to fine-tune.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Samples per step.
        learning_rate: The highest rate, as a share of each tensor's root mean square; reached after
            ``warmup`` and lowered to 0 along a cosine. None takes 0.02 for each nat, or unit of
            relative squared error, between the student's outputs and the teacher's at the start, at
            most 0.02; at least 0.00025 for each root of the number of steps, within 0.002 … 0.01,
            where the student is not so near that 0.15 for each nat is less.
            With ``quantize`` half as much for each nat, within 0.001 … 0.005.
        warmup: Share of all steps in which the rate rises linearly from 0.
        frozen_epochs: Epochs at the start in which the layers that the teacher has too (same name
            and weight shapes) keep their weights: an untrained neighbour would spoil them.
        temperature: Of the soft targets of outputs that end in a softmax.
        label_weight: Share of the soft targets that is the true class; 0 needs no labels.
        logits: Whether the one output is scores of classes before a softmax, to be matched as the
            probabilities that they stand for. Taken for granted where there are labels.
        augment: "flip", "crop" and "light" for images, "mix" for all (`batches.epoch_batches`).
            None flips and crops where an input has three channels, as photographs do. Without
            augmentation the teacher runs only once, not every epoch.
        mixed_precision: Compute in bfloat16 with float32 weights. None does where this processor
            multiplies it and wide convolutions gain; True elsewhere, too.
        quantize: "int8" trains with the rounding of an int8 .tflite file in the forward pass.
        validation: How many samples are held out of training to choose the best epoch by: an
            integer, or a share below 1.
        seed: Seeds the split, the order and the augmentation.
        save_minutes: How often the state is kept within an epoch, where one is kept.
        resume: Go on where an interrupted run for the same output stopped.
        strategy: The devices that compute shares of each batch: "one"; "mirrored", all GPUs of this
            machine; "multiworker", the machines of $TF_CONFIG; "auto", the last that there is more
            than one of. Without BatchNorms the result does not depend on it, but
            for rounding.
        log_dir: Write each epoch's figures there, as TensorBoard reads them.

    Raises:
        InputError: If a value is out of range.

    Example:
        >>> import dsconvert as ds
        >>> ds.FinetuneSettings(epochs=5, augment=("flip", "crop")).temperature
        4.0
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float | None = None
    warmup: float = WARMUP
    frozen_epochs: int = 1
    temperature: float = 4.0
    label_weight: float = 0.0
    logits: bool = False
    augment: tuple[Augmentation, ...] | None = None
    mixed_precision: bool | None = None
    quantize: Literal["none", "int8"] = "none"
    validation: int | float = 0.05
    seed: int = 0
    save_minutes: float = SAVE_MINUTES
    resume: bool = False
    strategy: Strategy = "auto"
    log_dir: str | None = None

    def of_the_result(self) -> FinetuneSettings:
        """Return the settings without those that the result does not depend on."""
        return msgspec.structs.replace(
            self, save_minutes=SAVE_MINUTES, resume=False, strategy="auto", log_dir=None
        )

    def __post_init__(self) -> None:
        rules = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "learning_rate": (self.learning_rate is None or self.learning_rate > 0, "above 0"),
            "warmup": (0 <= self.warmup < 1, "0 or more and below 1"),
            "frozen_epochs": (self.frozen_epochs >= 0, "0 or more"),
            "temperature": (self.temperature > 0, "above 0"),
            "save_minutes": (self.save_minutes >= 0, "0 or more"),
            "label_weight": (0 <= self.label_weight <= 1, "0 to 1"),
        }
        rules["mixed_precision"] = (
            not self.mixed_precision or self.quantize == "none",
            "False where quantize is int8",
        )
        wrong = [
            f"{name} is {getattr(self, name)}, allowed: {allowed}"
            for name, (right, allowed) in rules.items()
            if not right
        ]
        if wrong:
            raise InputError(
                f"fine-tuning cannot be set up so: {'; '.join(wrong)}.", code="bad-setting"
            )


class Epoch(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"output_error": "harm"},
):
    """What one epoch came to; epoch 0 is the student as it came.

    Attributes:
        epoch: Its number.
        loss: Mean training loss; None for epoch 0 and where it is not finite.
        output_error: `dsconvert.base.fidelity.output_error` on the validation samples, mixed with
            the labels' cross-entropy as the targets are; None where an output is not finite.
        fidelity: The outputs compared with the teacher's on the validation samples.
        seconds: Wall time.
        images_per_second: How fast the steps were; None for epoch 0.
        complete: Whether all its steps were taken; False where training was interrupted or broke
            off.
    """

    epoch: int
    loss: float | None
    output_error: float | None
    fidelity: tuple[OutputFidelity, ...]
    seconds: float
    images_per_second: float | None = None
    complete: bool = True


@dataclass(frozen=True)
class Tuned:
    """The result of fine-tuning.

    Attributes:
        model: The student, with the weights of the best epoch.
        history: Epoch 0 and those after it.
        best_epoch: The one with the least output error; 0 where training did not help.
        notes: What a reader of the report should know.
        interrupted: Whether it was stopped from outside; its state tells where to go on.
    """

    model: Any
    history: tuple[Epoch, ...]
    best_epoch: int
    notes: tuple[str, ...] = ()
    interrupted: bool = False
