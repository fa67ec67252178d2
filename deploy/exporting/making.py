"""Writing a file, with other outputs or fixed sizes where that is what it takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.formats.quantization import Format

from ..schemes import SCHEMES
from . import writing
from .export_data import ExportData
from .export_options import Options
from .free_sizes import FreeSizesRefused
from .held_out import HeldOut
from .improve import Improved
from .source import Source
from .split_outputs import split_outputs


@dataclass(frozen=True)
class Made:
    """A written file.

    Attributes:
        source: The model that it holds: the given one, or that with split outputs or fixed sizes.
        written: How it was written.
        notes: What became of the outputs.
    """

    source: Source
    written: Improved
    notes: tuple[str, ...] = ()


def make(
    source: Source,
    path: Path,
    folder: Path,
    format: Format,
    options: Options,
    data: ExportData,
    *,
    reread: Callable[[], Source] | None,
) -> Made:
    """Write a model, as asked or as it can be written.

    Args:
        source: The model.
        path: Where to write.
        folder: Where files may be put meanwhile.
        format: The format.
        options: How; whether outputs may be split is in its improvement.
        data: The samples.
        reread: Gives the model with all sizes fixed, for what cannot be written with free ones;
            None where nothing tells the sizes.

    Raises:
        InputError: If the format cannot hold the model so.
        GateFailed: If the file is not valid.
    """

    def write(source: Source, path: Path, held_out: HeldOut | None) -> Improved:
        return writing.convert(source, path, format, options, data.ranges, data.compared, held_out)

    held_out = data.held_out
    notes: tuple[str, ...] = ()
    if held_out is not None and options.improvement.outputs == "split":
        source, told = split_outputs(source, held_out.inputs, folder)
        held_out, notes = held_out.of(source), (told,)
    try:
        written = write(source, path, held_out)
    except FreeSizesRefused:
        if reread is None:
            raise
        source = reread()
        written = write(source, path, held_out)
    made = Made(source, written, notes)
    if held_out is None or not _needs_split(options, written.worst_db):
        return made
    return _split(write, made, path, folder, held_out) or made


def _needs_split(options: Options, worst_db: float | None) -> bool:
    """Tell whether the file would be refused for outputs that mix scales."""
    least = SCHEMES[options.quantize].tolerance.min_sqnr_db
    return options.improvement.outputs == "auto" and worst_db is not None and worst_db < least


def _split(
    write: Callable[[Source, Path, HeldOut | None], Improved],
    made: Made,
    path: Path,
    folder: Path,
    held_out: HeldOut,
) -> Made | None:
    """Write the model with its mixed outputs split; None where that is no better.

    An output that joins nothing, such as a softmax, is not split: its file would give logits.
    """
    trial, worst_db = folder / path.name, made.written.worst_db
    with suppress(InputError, GateFailed):
        other, told = split_outputs(made.source, held_out.inputs, folder)
        if len(other.output_names) <= len(made.source.output_names):
            return None
        apart = held_out.of(other)
        written = write(other, trial, apart)
        if worst_db is None or apart.worst(trial) > worst_db:
            shutil.copyfile(trial, path)
            return Made(other, written, (*made.notes, told))
    return None
