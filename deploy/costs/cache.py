"""Costs that are known already: one small file per block and target."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from dsconvert.base.cache_folder import cache_folder
from dsconvert.base.errors import InputError
from dsconvert.base.files import read_whole, replacing
from dsconvert.converter.core.planning.cost_model import Block, BlockCosts
from dsconvert.converter.core.types import Choice

logger = logging.getLogger(__name__)

_SCHEMA: Literal["dsconvert.block-costs/2"] = "dsconvert.block-costs/2"
"""To be raised when blocks are written or measured differently, or relative to another one."""


class KnownCosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one file holds.

    Attributes:
        conditions: What the costs depend on besides the block, by name.
        block: The convolution.
        choices: What its costs are given for.
        costs: One figure per choice, and the convolution's own: each value is a multiple of what
            the reference block took in the same rounds, or, without a reference, in the target's
            unit.
        reference: What that was, in the target's unit; None where there was none.
    """

    schema: Literal["dsconvert.block-costs/2"] = _SCHEMA
    conditions: dict[str, str]
    block: Block
    choices: tuple[Choice, ...]
    costs: BlockCosts
    reference: float | None


class Cache:
    """The files of one target.

    Args:
        folder: Where their folder lies; it is made when the first one is written. None for
            `cache_folder`.
        conditions: What the costs depend on besides the block: the runtime's version and so on.
    """

    def __init__(self, folder: Path | None, conditions: Mapping[str, str]) -> None:
        self.folder = (folder or cache_folder()) / "blocks"
        self.conditions = dict(conditions)

    def load(self, block: Block) -> KnownCosts | None:
        """Return what is known of a block; None if nothing is, or its file cannot be read."""
        path = self._path(block)
        try:
            known = msgspec.json.decode(read_whole(path), type=KnownCosts)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            logger.info("%s is ignored: %s", path, error)
            return None
        sound = len(known.choices) == len(known.costs.choices)
        sound &= known.reference is None or known.reference > 0
        if not sound or known.block != block or known.conditions != self.conditions:
            logger.info("%s is ignored: it is about something else", path)
            return None
        return known

    def save(self, known: KnownCosts) -> None:
        """Keep the costs of a block; a folder that cannot be written to is no failure."""
        path = self._path(known.block)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, overwrite=True) as temporary:
                temporary.write_bytes(msgspec.json.format(msgspec.json.encode(known)))
        except (OSError, InputError) as error:
            logger.warning("the cost of a block cannot be kept: %s", error)

    def _path(self, block: Block) -> Path:
        """Return the file of a block: named by a hash of all that its costs depend on."""
        key = msgspec.json.encode([_SCHEMA, self.conditions, block], order="deterministic")
        return self.folder / f"{hashlib.sha256(key).hexdigest()[:32]}.json"
