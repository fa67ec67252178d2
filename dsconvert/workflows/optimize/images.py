"""The images of a run: loaded once, divided into parts that no two stages share by mistake."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsconvert.base.messages import note

from ..class_folders import names_for
from ..data_for import data_for
from ..model_files import ModelFile

if TYPE_CHECKING:
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.data.preprocess import Preprocessing

    from .options import OptimizeOptions

_CALIBRATION = 1000
"""Images that plans, fits and ranges see at most."""
_RANGES, _LEAST = 500, 100
"""Images that ranges of int8 files come from, and how many of large ones at least."""
_RANGE_VALUES = 1 << 24
"""Values in them together: 111 images of 224×224×3."""
_BYTES = 1 << 30
"""Memory that the training images may take."""
_HELD_OUT = 0.2


@dataclass(frozen=True)
class Images:
    """The parts of the data, in the layout of the model.

    Attributes:
        opened: The model.
        source: Where the data are.
        preprocessing: What is done to stored values.
        options: How many, and the seed.
    """

    opened: ModelFile
    source: str
    preprocessing: Preprocessing | None
    options: OptimizeOptions

    @cached_property
    def train(self) -> Data:
        """Return what is trained on."""
        return self._parts[0]

    @cached_property
    def test(self) -> Data:
        """Return what is measured on."""
        return self._parts[1]

    @cached_property
    def calibration(self) -> Data:
        """Return what plans, fits and ranges are made from: some of what is trained on."""
        from dsconvert.models.data.datasets import holdout

        if len(self.train) <= _CALIBRATION:
            return self.train
        return holdout(self.train, _CALIBRATION, seed=self.options.seed)[1]

    @cached_property
    def for_ranges(self) -> Data:
        """Return what int8 files get their ranges from; fewer images where they are large.

        A converter runs each of them through kernels without any speed, once for each thing that it
        tries.
        """
        data = self.calibration
        size = sum(math.prod(array.shape[1:]) for array in data.inputs)
        return data.take(slice(max(_LEAST, min(_RANGES, _RANGE_VALUES // max(size, 1)))))

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes where the data are a folder with one folder for each."""
        return names_for(self.opened, self.source)

    @cached_property
    def _parts(self) -> tuple[Data, Data]:
        from dsconvert.models.data.datasets import holdout

        options = self.options
        train = self._load(self.source, "train", self._most(options.samples))
        if options.test_data is not None:
            return train, self._load(options.test_data, "test", options.test_samples)
        if has_test_part(self.source):
            return train, self._load(self.source, "test", options.test_samples)
        note(
            f"{self.source} has no test part: a fifth of its images is held out to measure on; "
            "if the model was trained on them, the accuracies are too high"
        )
        return holdout(train, _HELD_OUT, seed=options.seed)

    def _load(self, source: str, split: Literal["train", "test"], samples: int) -> Data:
        return data_for(
            self.opened,
            source,
            split=split,
            samples=samples,
            seed=self.options.seed,
            labels=self.options.labels,
            preprocessing=self.preprocessing,
            warn=split == "train",
        )

    def _most(self, wanted: int) -> int:
        """Return how many images fit into the memory that they may take."""
        size = 4
        for length in self.opened.input_shapes[0][1:]:
            size *= length or 256
        return max(min(wanted, _BYTES // max(size, 1)), 10)


def has_test_part(source: str) -> bool:
    """Tell whether a data source has a part for training and one for tests."""
    path = Path(source)
    if path.is_dir():
        return (path / "train").is_dir() and (path / "test").is_dir()
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = {Path(name).stem for name in archive.namelist()}
    except zipfile.BadZipFile:
        return False  # what reads it says why
    return any(name.endswith("_train") for name in names) and any(
        name.endswith("_test") for name in names
    )
