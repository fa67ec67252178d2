"""A model, data and a policy in; a new model and a report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .core.choose import best_of_weights
from .core.errors import InputError
from .core.factorize import random_pairs
from .core.lanes import Lane, Recipe, Settings
from .core.planning import Policy, make_plan, replay_plan
from .core.predictor import Array
from .core.progress import Progress, silent
from .core.report import RewriteReport, Trial, layer_reports
from .core.sequential import fit_network
from .core.types import ORDERS, Choice, Factorization, Method, OrderChoice, Plan

HELD_OUT = 0.2
"""The share of the calibration images that choose between the ways of fitting."""
FEWEST_IMAGES = 10


@dataclass(frozen=True)
class Rewritten:
    """The result of `rewrite`.

    Attributes:
        model: A functional keras.Model of stock layers.
        plan: What was decided about each convolution.
        report: What came of it.
    """

    model: Any
    plan: Plan
    report: RewriteReport


def rewrite(
    model: Any,
    *,
    calibration: Array | Sequence[Array] | None = None,
    method: Method | None = None,
    pairs: int = 1,
    order: OrderChoice = "auto",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    plan: Plan | None = None,
    memory: int = 2 << 30,
    seed: int = 0,
    source_sha256: str = "",
    progress: Progress = silent,
) -> Rewritten:
    """Replace the standard convolutions of a trained Keras model by depthwise + pointwise pairs.

    The given model is not changed.

    Args:
        model: A functional, Sequential or subclassed ``keras.Model``; the last kind is redrawn as
            a functional one where its ``call`` is made of Keras layers and operations.
        calibration: Unlabelled images as the model takes them, (n, ...), or one such array per
            input. A fifth of them is kept out of the fit and decides how far it may go.
        method: "data" fits the pairs to the calibration images (the default when there are any),
            "svd" to the weights alone (the default otherwise), "random" starts afresh as the
            tutorials do, for comparison.
        pairs: T, the number of pairs that are summed for each convolution.
        order: "depthwise-first", "pointwise-first", or "auto": the lower error at equal cost.
        include: Glob patterns of the layers to rewrite; empty means all.
        exclude: Glob patterns of the layers to leave alone.
        plan: What to do with each layer, instead of ``pairs`` … ``exclude``.
        memory: Bytes of activations held in memory at most; more go to temporary files.
        seed: Seeds the choice of images and patches.
        source_sha256: Of the model's file, for the record.
        progress: See `core.progress`.

    Raises:
        InputError: If the model cannot be rewritten, or the data do not fit it.
    """
    from .keras_graph.cost import model_macs
    from .keras_graph.graph import as_functional, flatten
    from .keras_graph.read import read_convolutions

    inputs = as_inputs(calibration)
    method = method or ("svd" if inputs is None else "data")
    if method == "data" and inputs is None:
        raise InputError(
            "fitting to data needs calibration images.",
            "Add --calibration FILE.npz, or use --method svd.",
        )
    source = as_functional(model)
    graph = flatten(source)
    convolutions = read_convolutions(graph)
    if plan is None:
        policy = Policy(pairs=pairs, order=order, include=tuple(include), exclude=tuple(exclude))
        plan = make_plan(convolutions, policy, source_sha256)
    else:
        plan = replay_plan(plan, convolutions)
    chosen = plan.chosen
    trials: list[Lane] = []
    if method == "data" and inputs is not None:
        check_calibration(graph, inputs)
        settings = Settings(memory=memory, seed=seed)
        trials = _fit(graph, chosen, inputs, settings, progress)
    else:
        rng = np.random.default_rng(seed)
        for convolution in convolutions:
            if convolution.name in chosen:
                factors = _factorize(convolution, chosen[convolution.name], method, rng)
                trials = trials or [Lane(Recipe())]
                trials[0].factors[convolution.name] = factors
    best = trials[0] if trials else Lane(Recipe())
    rewritten, notes = _apply(source, graph, chosen, best)
    fitted = len(inputs[0]) if inputs is not None and method == "data" else 0
    held_out = _held_out(fitted) if fitted else 0
    report = RewriteReport(
        method=method,
        source_sha256=source_sha256,
        layers=layer_reports(plan, best.factors),
        macs_before=model_macs(source),
        macs_after=model_macs(rewritten),
        params_before=source.count_params(),
        params_after=rewritten.count_params(),
        calibration_images=fitted - held_out,
        held_out_images=held_out,
        trials=tuple(Trial(recipe=str(lane.recipe), harm=lane.harm) for lane in trials)
        if method == "data"
        else (),
        refitted=tuple(best.refitted),
        notes=tuple(notes),
    )
    return Rewritten(rewritten, plan, report)


def _fit(
    graph: Any,
    chosen: Mapping[str, Choice],
    inputs: Sequence[Array],
    settings: Settings,
    progress: Progress,
) -> list[Lane]:
    from .keras_graph.stages import KerasStages

    if not chosen:
        return []
    stages = KerasStages(graph, chosen)
    mixed = np.random.default_rng(settings.seed).permutation(len(inputs[0]))
    shuffled = [array[mixed] for array in inputs]
    held_out = _held_out(len(mixed))
    return fit_network(stages, shuffled, held_out, chosen, _recipes(stages), settings, progress)


def _recipes(stages: Any) -> list[Recipe]:
    """The ways worth trying on this network: no two that would do the same."""
    sites = [site for site in stages.sites if site is not None]
    recipes = [Recipe(), Recipe(sequential=True)]
    if any(site.role == "shortcut" or site.beside is not None for site in sites):
        recipes.append(Recipe(sequential=True, shortcuts=True))
    if any(site.role == "conv" and site.norm is not None for site in sites):
        recipes.append(Recipe(sequential=True, match_variance=True))
    return recipes


def _factorize(
    convolution: Any, choice: Choice, method: Method, rng: np.random.Generator
) -> Factorization:
    layer = convolution.layer
    kernel = np.asarray(layer.kernel)
    bias = np.asarray(layer.bias) if layer.use_bias else None
    if method == "random":
        order = ORDERS[0] if choice.order == "auto" else choice.order
        return random_pairs(kernel, bias, order, choice.pairs, rng)
    return best_of_weights(kernel, bias, convolution.spec, choice)


def _apply(
    source: Any, graph: Any, chosen: Mapping[str, Choice], lane: Lane
) -> tuple[Any, list[str]]:
    from .keras_graph.apply import rebuild
    from .keras_graph.stages import KerasStages

    # Only a fit changes norms, and only a fit needs the network in stages.
    norms = KerasStages(graph, chosen).norms() if lane.weights else {}
    return rebuild(source, lane.factors, lane.weights, norms)


def as_inputs(calibration: Array | Sequence[Array] | None) -> list[Array] | None:
    """The calibration data as a list with one array per input."""
    if calibration is None:
        return None
    arrays = [calibration] if isinstance(calibration, np.ndarray) else list(calibration)
    return [np.asarray(array) for array in arrays]


def check_calibration(graph: Any, inputs: Sequence[Array]) -> None:
    """Refuse calibration arrays that do not fit the model's inputs.

    Raises:
        InputError: With the shapes, or the number of images.
    """
    expected = [tuple(graph.symbolic[value].shape) for value in graph.inputs]
    got = [array.shape for array in inputs]
    fits = len(expected) == len(got) and all(
        len(want) == len(have)
        and all(w is None or w == h for w, h in zip(want[1:], have[1:], strict=True))
        for want, have in zip(expected, got, strict=True)
    )
    if not fits:
        raise InputError(
            f"the calibration data have the shape {got}, the model takes {expected}.",
            "Give images of the model's size, one array per input.",
        )
    counts = [len(array) for array in inputs]
    if len(set(counts)) > 1:
        raise InputError(
            f"the calibration arrays hold different numbers of images: {counts}.",
            "Give one image per input and example, in the same order.",
        )
    if len(inputs[0]) < FEWEST_IMAGES:
        raise InputError(
            f"{len(inputs[0])} calibration images are too few: at least {FEWEST_IMAGES} are "
            "needed, 500 to 1000 are good.",
            "Give more images, or use --method svd.",
        )
    for array in inputs:
        if not np.isfinite(array).all():
            raise InputError("the calibration data hold NaN or infinite values.", "Clean them.")


def _held_out(images: int) -> int:
    return max(1, round(images * HELD_OUT))
