"""What fine-tuning came to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from dsconvert.base.tables import Block, Shown, Table

from .. import formatting

if TYPE_CHECKING:
    import keras

    from dsconvert.models.data.preprocess import Preprocessing
    from dsconvert.models.training.settings import Epoch, FinetuneSettings


class FinetuneResult(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """A fine-tuned model, and its file if one was written.

    Attributes:
        student: What it was made from.
        teacher: What it learnt from.
        output: The file that was written; empty if none was.
        sha256: Its hash.
        size_bytes: Its size.
        settings: How it was trained.
        preprocessing: What was done to the images.
        history: Epoch 0, the student as it came, and those after it.
        best_epoch: The epoch whose weights were kept.
        notes: What a reader should know.
        interrupted: Whether it was stopped from outside, and can be resumed.
    """

    schema: Literal["dsconvert.finetuned/1"] = "dsconvert.finetuned/1"
    student: str
    teacher: str
    output: str = ""
    sha256: str = ""
    size_bytes: int | None = None
    settings: FinetuneSettings
    preprocessing: Preprocessing
    history: tuple[Epoch, ...]
    best_epoch: int
    notes: tuple[str, ...]
    interrupted: bool = False

    def blocks(self) -> Iterator[Block]:
        """Yield one line per epoch and output, then the file."""
        titles = ("epoch", "loss", "output error", "output", "agreement", "SQNR", "time")
        table = Table(titles)
        for epoch in self.history:
            cells = [
                _numbered(epoch, self.best_epoch),
                formatting.short(epoch.loss),
                formatting.short(epoch.output_error),
            ]
            time = f"{epoch.seconds:.1f} s"
            for output in epoch.fidelity:
                agreement = formatting.percent(output.top1_agreement)
                table.add(*cells, output.name, agreement, formatting.sqnr(output), time)
                cells, time = [""] * 3, ""
        yield table
        yield (
            "output error: KL in nats, or squared relative error, to the teacher on held-out images"
        )
        yield from (f"note: {note}" for note in self.notes)
        if self.output:
            yield formatting.file(self.output, self.size_bytes, self.sha256)


def _numbered(epoch: Epoch, best: int) -> str:
    words = ["part"] * (not epoch.complete) + ["kept"] * (epoch.epoch == best)
    return f"{epoch.epoch} ({', '.join(words)})" if words else f"{epoch.epoch}"


@dataclass(frozen=True, repr=False)
class TunedModel(Shown):
    """A fine-tuned model with the report on its training.

    Attributes:
        model: The `keras.Model` with the weights of the best epoch.
        record: The report.
    """

    model: keras.Model
    record: FinetuneResult

    @property
    def history(self) -> tuple[Epoch, ...]:
        """Epoch 0, the student as it came, and those after it."""
        return self.record.history

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights were kept; 0 where training did not help."""
        return self.record.best_epoch

    @property
    def interrupted(self) -> bool:
        """Tell whether the training was stopped from outside, and can be resumed."""
        return self.record.interrupted

    def blocks(self) -> Iterator[Block]:
        """Give the report's lines and tables."""
        return self.record.blocks()
