"""Which outputs an int8 file gets where they mix scales, as far as it is not one file's affair.

`improve` chooses between files of the same outputs; here outputs are split where that
is not enough.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.base.predictor import Array

from ..schemes import SCHEMES
from .export_options import Options
from .held_out import HeldOut
from .improve import OFF, Improved, Improvement
from .output_tail import SAMPLES, is_mixed
from .split_outputs import Source, split_outputs


def needs_choice(wish: Improvement, source: Source, calibration: Sequence[Array]) -> bool:
    """Tell whether several files are to be compared on samples that give no ranges."""
    if replace(wish, outputs=OFF.outputs) != OFF or wish.outputs != "auto":
        return wish != OFF
    few = [array[:SAMPLES] for array in calibration]
    return any(map(is_mixed, source.predict(few)))


def needs_split(options: Options, worst_db: float | None) -> bool:
    """Tell whether the file would be refused for outputs that mix scales."""
    least = SCHEMES[options.quantize].tolerance.min_sqnr_db
    return options.improvement.outputs == "auto" and worst_db is not None and worst_db < least


def written_split(
    work: Callable[..., Improved],
    source: Source,
    path: Path,
    folder: Path,
    held_out: HeldOut,
    worst_db: float | None,
) -> tuple[Source, Improved, str] | None:
    """Write the file of a model whose mixed outputs are split; None where that is no better.

    An output that joins nothing, such as a softmax, is not split: its file would give logits.
    """
    trial = folder / path.name
    with suppress(InputError, GateFailed):
        other, told = split_outputs(source, held_out.inputs, folder)
        if len(other.output_names) <= len(source.output_names):
            return None
        apart = held_out.of(other)
        written = work(other, path=trial, held_out=apart)
        if worst_db is None or apart.worst(trial) > worst_db:
            shutil.copyfile(trial, path)
            return other, written, told
    return None
