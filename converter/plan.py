"""A model, data and a target in; all that a plan can be chosen from out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent

from .backends.backend import Convolution, backend_for
from .calibration import as_inputs, split
from .core.fitting.cost import conv_macs, conv_params
from .core.fitting.styles import all_styles, block_style
from .core.network.fit_state import FitSettings
from .core.network.sensitivity import Effects, input_sizes, measure_effects
from .core.planning.arena_rule import MemoryModel
from .core.planning.candidates import Candidate, LayerCandidates
from .core.planning.cost_model import Activation, Block, BlockCosts, CostModel, block_of
from .core.planning.effect_cache import EffectCache
from .core.planning.policy import Policy, make_plan
from .core.planning.search_space import SearchSpace
from .core.types import Choice, ConvSpec, Effect, Figure, Reason, Size, Totals

MOST_PAIRS = 4
_METHOD = "effects/4"
"""Changes whenever effects measured before would come out differently."""
_UNUSABLE = Reason(
    code="unusable",
    text="each choice needs more memory to be fitted, or makes outputs NaN or infinite",
)


def search_space(
    model: Any,
    *,
    calibration: Array | Sequence[Array],
    folder: Path | None = None,
    costs: CostModel | None = None,
    network_cost: float | None = None,
    bytes_per_weight: int = 4,
    memory_model: MemoryModel | None = None,
    most_pairs: int = MOST_PAIRS,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    memory: int = 2 << 30,
    seed: int = 0,
    source_sha256: str = "",
    cache: Path | None = None,
    progress: Progress = silent,
) -> SearchSpace:
    """Find out what each convolution may become, what that costs and what it harms.

    Each convolution and its candidates are timed on the target, if one is given; what is not
    faster by more than the noise is refused. What is left is fitted to the calibration images, one
    layer at a time, and the held-out fifth of them shows what that does to the outputs.

    Args:
        model: A ``keras.Model`` or an ``onnx.ModelProto``.
        calibration: Unlabelled images as the model takes them, (n, ...), or one array per input.
        folder: Where the external data of an ONNX model are.
        costs: The target; None plans by MACs and parameters alone.
        network_cost: What the whole network costs there, in the target's unit.
        bytes_per_weight: 4 for float32, 1 for int8.
        memory_model: Tells what plans need on a microcontroller; None where that is no matter.
        most_pairs: The largest T to try.
        include: Glob patterns of the layers that may be rewritten; empty means all.
        exclude: Glob patterns of the layers to leave alone.
        memory: Bytes of activations held in memory at most.
        seed: Seeds the choice of images and patches.
        source_sha256: Of the model's file; without it nothing is kept in the cache.
        cache: Folder for effects measured before; None for the default one.
        progress: See `core.progress`.

    Raises:
        InputError: If the model or the data cannot be used.
    """
    source = backend_for(model, folder)
    images = as_inputs(calibration, source.input_shapes, source.input_types)
    if images is None:
        raise InputError(
            "a plan needs calibration images to measure what each choice harms.",
            "Add --calibration FILE.npz; labels are not needed.",
            code="needs-calibration",
        )
    data = split(images, seed)
    settings = FitSettings(memory=memory, seed=seed)
    convolutions = source.convolutions
    # With costs the measurement says whether the stem gains; without, it is left alone.
    policy = Policy(include=tuple(include), exclude=tuple(exclude))
    reasons = {
        layer.name: layer.reason
        for layer in make_plan(convolutions, policy).layers
        if layer.reason and not (layer.reason.code == "stem" and costs is not None)
    }
    names = [c.name for c in convolutions if c.name not in reasons]
    stages = source.stages(names, data.inputs, refit=False)
    sizes = input_sizes(stages, data.inputs, settings)
    normed = {site.name for site in stages.sites if site is not None and site.norm is not None}
    rows = [
        _Row(c, reasons.get(c.name), sizes.get(c.name, ()), c.name in normed, most_pairs)
        for c in convolutions
    ]
    if costs is not None:
        _add_costs(rows, costs)
    store = EffectCache(
        _METHOD, source_sha256, _hash(data.inputs), data.held_out, seed, folder=cache
    )
    effects = measure_effects(
        stages,
        data.inputs,
        data.held_out,
        {row.name: [*map(_plain, row.choices)] for row in rows if row.choices},
        settings,
        known=store.known() if source_sha256 else None,
        record=store.record if source_sha256 else _forget,
        progress=progress,
    )
    params = source.params()
    return SearchSpace(
        layers=tuple(row.layer_candidates(effects) for row in rows),
        before=Totals(
            macs=source.macs(),
            params=params,
            bytes=params * bytes_per_weight,
            cost=network_cost,
        ),
        bytes_per_weight=bytes_per_weight,
        memory=memory_model,
        target=costs.target if costs else "",
        unit=costs.unit if costs else "",
        source_sha256=source_sha256,
    )


class _Row:
    """One convolution while its candidates are weighed."""

    def __init__(
        self,
        convolution: Convolution,
        reason: Reason | None,
        sizes: Sequence[Size],
        normed: bool,
        most: int,
    ) -> None:
        self.name, self.spec, self.reason = convolution.name, convolution.spec, reason
        self.activation: Activation = convolution.activation
        self.absorbed = convolution.absorbed or 0
        # A fit finds a bias. It goes into the BatchNorm that follows only if that stays.
        self.new_bias = convolution.absorbed is not None or not normed
        self.cost: Figure | None = None
        self.choices: dict[Choice, Figure | None] = {}
        """What is still a candidate, with its cost."""
        if reason is None and self.spec is not None:
            self.spec = msgspec.structs.replace(self.spec, input_sizes=tuple(sizes))
            self.choices = dict.fromkeys(_choices(self.spec, most))
            if not self.choices:
                self.reason = Reason(code="no-saving", text="no block has fewer MACs or parameters")

    @property
    def blocks(self) -> list[Block]:
        """One for each call."""
        assert self.spec is not None, "only what has a geometry is weighed"
        return [
            block_of(self.spec, size or (0, 0), self.activation) for size in self.spec.input_sizes
        ]

    def weigh(self, measured: Sequence[BlockCosts], tried: Sequence[Choice], unit: str) -> None:
        """Keep what is cheaper on the target, lowered as is cheapest; say why if nothing is."""
        self.cost = _together([one.original for one in measured])
        figures = {
            choice: _together([one.choices[place] for one in measured])
            for place, choice in enumerate(tried)
        }
        self.choices = {
            choice: figure
            for plain in self.choices
            for choice, figure in [_cheapest(figures, _lowerings([plain]))]
            if figure is not None and figure.faster
        }
        if not self.choices and self.cost is not None:
            best, figure = _cheapest(figures, tuple(figures))
            self.reason = _no_gain(self.cost, best, figure, unit)

    def layer_candidates(self, effects: Effects) -> LayerCandidates:
        """Return the record, with the effects of what is left."""
        spec, reason = self.spec, self.reason
        if not any(self._usable(effects, choice) for choice in self.choices):
            reason = reason or _UNUSABLE
        if spec is None or reason is not None:
            return LayerCandidates(name=self.name, spec=spec, reason=reason, cost=self.cost)
        return LayerCandidates(
            name=self.name,
            spec=spec,
            macs=conv_macs(spec),
            params=conv_params(spec) + self.absorbed,
            cost=self.cost,
            candidates=tuple(
                self._candidate(spec, choice, figure, effects)
                for choice, figure in self.choices.items()
                if self._usable(effects, choice)
            ),
        )

    def _candidate(
        self, spec: ConvSpec, choice: Choice, figure: Figure | None, effects: Effects
    ) -> Candidate:
        style = block_style(choice.block)
        return Candidate(
            choice=choice,
            effect=effects[self.name, _plain(choice)],
            macs=style.macs(spec, choice),
            params=style.params(spec, choice, bias=spec.use_bias or self.new_bias),
            cost=figure,
        )

    def _usable(self, effects: Effects, choice: Choice) -> bool:
        effect = effects.get((self.name, _plain(choice)))
        return effect is not None and math.isfinite(effect.output_error)


def _choices(spec: ConvSpec, most: int) -> list[Choice]:
    """List what each block style offers that saves anything and can be fitted in good time."""
    return [choice for style in all_styles() for choice in style.candidates(spec, most)]


def _add_costs(rows: Sequence[_Row], costs: CostModel) -> None:
    """Ask for the costs of all blocks together: equal ones are measured once."""
    open_rows = [row for row in rows if row.choices]
    tried = [_lowerings(row.choices) for row in open_rows]
    asked = [
        (block, ways) for row, ways in zip(open_rows, tried, strict=True) for block in row.blocks
    ]
    answers = iter(costs.costs(asked))
    for row, ways in zip(open_rows, tried, strict=True):
        row.weigh([next(answers) for _ in row.blocks], ways, costs.unit)


def _lowerings(choices: Iterable[Choice]) -> tuple[Choice, ...]:
    """Return every way to write each choice down."""
    return tuple(way for c in choices for way in block_style(c.block).lowerings(c))


def _plain(choice: Choice) -> Choice:
    return msgspec.structs.replace(choice, lowering="sum")


def _cheapest(
    figures: Mapping[Choice, Figure | None], ways: Sequence[Choice]
) -> tuple[Choice, Figure | None]:
    known = [(way, figure) for way in ways if (figure := figures.get(way)) is not None]
    # What is faster for sure comes before what only seems to be.
    return min(known, key=lambda p: (not p[1].faster, p[1].value)) if known else (ways[0], None)


def _together(figures: Sequence[Figure | None]) -> Figure | None:
    """Return the cost of all calls of a layer; faster only if every call is."""
    known = [figure for figure in figures if figure is not None]
    if not known or len(known) < len(figures):
        return None
    return Figure(
        value=sum(figure.value for figure in known),
        ratio_low=min(figure.ratio_low for figure in known),
        ratio_high=max(figure.ratio_high for figure in known),
        faster=all(figure.faster for figure in known),
    )


def _no_gain(original: Figure, best: Choice, figure: Figure | None, unit: str) -> Reason:
    if figure is None:
        return Reason(code="no-gain", text="the target runs none of its choices")
    return Reason(
        code="no-gain",
        text=f"nothing is faster: {block_style(best.block).text(best)} takes "
        f"{figure.value:.3g} {unit} against {original.value:.3g} "
        f"({figure.ratio_low:.2f} to {figure.ratio_high:.2f} of it)",
    )


def _hash(arrays: Sequence[Array]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _forget(layer: str, choice: Choice, effect: Effect) -> None:
    """Without a hash of the model there is no telling what an effect belongs to."""
