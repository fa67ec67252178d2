"""Replace convolutions by depthwise + pointwise pairs and three-factor blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from dsconvert.base.arguments import of_kind
from dsconvert.base.messages import note
from dsconvert.base.progress import as_progress

from .data_for import calibration_for, check_sources
from .finite_weights import check_weights
from .model_files import kind_of_source, open_model
from .outputs import place
from .refine import check_refinement, refined
from .results.rewritten import RewriteResult, RewrittenModel
from .saved_models import check_savable, save_model
from .stored_preprocessing import known, settled

if TYPE_CHECKING:
    import keras
    import onnx

    from dsconvert.base.progress import Progress
    from dsconvert.converter.core.types import Plan
    from dsconvert.models.data.preprocess import Preprocessing

    from .data_for import DataSource
    from .model_files import Model, ModelFile, ModelPath, ModelSource
    from .results.planned import PlanResult


@dataclass(frozen=True, kw_only=True)
class RewriteOptions:
    """How convolutions are rewritten.

    Attributes:
        method: "data" fits the pairs to images (the default with calibration), "svd" to the
            weights alone, "random" starts afresh, to compare with.
        structure: What stands for each convolution: "pairs", a three-factor "block" of 1×1,
            depthwise and 1×1, or, "auto", whichever of these two has the lower error at equal MACs.
        pairs: The budget: as many MACs as T pairs have, which are summed. By default 1.
        macs: The budget of the whole network instead: "0.13x" of its MACs, or "19.8M".
        order: Which of a pair comes first; "auto": the lower error at equal cost. A definite order
            asks for pairs.
        block: The block style instead of ``structure``: "linear" pairs with nothing between the
            two, "mobilenet" pairs with a BatchNorm and a ReLU, to be fine-tuned, "three-factor" or
            "auto".
        channels: R, between the three of a three-factor block; by default each is as wide as
            ``pairs`` pairs cost.
        include: Glob patterns of the layers to rewrite; empty means all.
        exclude: Glob patterns of the layers to leave alone.
        samples: How many calibration images are drawn of a file.
        memory: Bytes of activations held in memory at most.
        seed: Seeds every draw.

    Example:
        >>> import dsconvert as ds
        >>> ds.RewriteOptions(pairs=2, exclude=("stem",)).order
        'auto'
    """

    method: Literal["data", "svd", "random"] | None = None
    structure: Literal["auto", "pairs", "block"] | None = None
    pairs: int | None = None
    macs: str | None = None
    order: Literal["depthwise-first", "pointwise-first", "auto"] = "auto"
    block: str | None = None
    channels: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    samples: int = 1000
    memory: int = 2 << 30
    seed: int = 0


@overload
def rewrite(
    model: str | Path | ModelPath | ModelFile,
    *,
    calibration: DataSource | None = None,
    plan: Plan | PlanResult | str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    options: RewriteOptions | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    refine: float | str | None = None,
    progress: Progress | bool = False,
) -> RewrittenModel[Model]: ...


@overload
def rewrite(
    model: keras.Model,
    *,
    calibration: DataSource | None = None,
    plan: Plan | PlanResult | str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    options: RewriteOptions | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    refine: float | str | None = None,
    progress: Progress | bool = False,
) -> RewrittenModel[keras.Model]: ...


@overload
# keras and onnx bring no types: to mypy both overloads take anything.
def rewrite(  # type: ignore[overload-cannot-match]
    model: onnx.ModelProto,
    *,
    calibration: DataSource | None = None,
    plan: Plan | PlanResult | str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    options: RewriteOptions | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    refine: float | str | None = None,
    progress: Progress | bool = False,
) -> RewrittenModel[onnx.ModelProto]: ...


def rewrite(
    model: ModelSource,
    *,
    calibration: DataSource | None = None,
    plan: Plan | PlanResult | str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    options: RewriteOptions | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    refine: float | str | None = None,
    progress: Progress | bool = False,
) -> RewrittenModel[Model]:
    """Replace the convolutions of a model by depthwise + pointwise pairs, using its weights.

    With calibration images the pairs are fitted to what each layer does to them, which is worth far
    more than fitting them to the weights. The given model is not changed.

    Args:
        model: A path, a `keras.Model`, an `onnx.ModelProto`, or what `load` returns.
        calibration: Unlabelled images: a file, a folder, arrays (n, ...) or `Data`.
        plan: What to do with each layer: what `plan` returned, or its .json file; by default the
            options say the same of all layers.
        preprocessing: What is done to images that are loaded from a file.
        options: The method, the structure and its budget, and of which layers.
        output: The file to write, of the model's own kind: .keras or .h5, or .onnx.
        overwrite: Whether it may exist.
        refine: How long all layers are then trained together on the calibration images, by the
            original's answers: seconds, "400steps" for a result that can be repeated exactly, or 0.
            By default Keras models with calibration images are refined for 60 s. It is kept only
            where images that nothing was fitted to say so.
        progress: True for a bar on stderr.

    Returns:
        The model, a `keras.Model` of stock layers or an `onnx.ModelProto` as the given one is, and
        the report on each layer.

    Raises:
        InputError: If the model cannot be rewritten, or the data do not fit it.
        GateFailed: If the new model does not compute what was fitted, or its file does not give it
            back.

    Example:
        >>> import dsconvert as ds
        >>> images = ds.load_data("digits.npz", split="train").inputs[0]
        >>> small = ds.rewrite(
        ...     "model.keras", calibration=images, output="small.keras", refine="10steps"
        ... )
        >>> [row.name for row in small.report.layers if row.pairs]
        ['conv']
        >>> type(small.model).__name__
        'Functional'
    """
    from dsconvert.converter.core.planning.limits import parse_limit
    from dsconvert.converter.rewrite import rewrite as run

    options = of_kind(options, RewriteOptions, "options") or RewriteOptions()
    if output is not None:
        allowed = (".onnx",) if kind_of_source(model) == "onnx" else (".keras", ".h5")
        output = place(model, output, overwrite=overwrite, allowed=allowed)
    _check(options, plan, calibration is not None)
    check_refinement(refine, kind_of_source(model), calibration is not None)
    chosen = _plan(plan)
    check_sources(calibration)
    opened = open_model(model)
    check_savable(opened, output)
    check_weights(opened)
    if chosen is not None and chosen.source_sha256 not in ("", opened.sha256) and opened.sha256:
        named = plan if isinstance(plan, str | Path) else "the plan"
        note(f"{named} was made for another file than {opened.told}; its names are used")
    preprocessing = settled(preprocessing, [opened], calibration)
    data = calibration_for(opened, calibration, options.samples, options.seed, preprocessing)
    if data is not None and chosen is None and not options.include:
        from dsconvert.converter.inspect import potential_of

        gain = potential_of(opened.model, folder=opened.folder)
        if not gain.pays:  # fits take minutes: say that they are not worth it before
            note(gain.text)
    result = run(
        opened.model,
        folder=opened.folder,
        calibration=None if data is None else data.inputs,
        method=options.method,
        plan=chosen,
        pairs=options.pairs or 1,
        macs=None if options.macs is None else parse_limit(options.macs, "macs"),
        order=options.order,
        block=options.block if plan is not None else _style(options),
        channels=options.channels,
        include=options.include,
        exclude=options.exclude,
        memory=options.memory,
        seed=options.seed,
        source_sha256=opened.sha256,
        progress=as_progress(progress),
    )
    made, refinement = refined(
        result.model,
        opened,
        result.report,
        None if data is None else data.inputs,
        wish=refine,
        seed=options.seed,
        progress=as_progress(progress),
    )
    told, repairs = opened.told, opened.repairs
    # A large ONNX model should not be in memory twice while it is written.
    origin = replace(opened, model=None)
    del opened
    size, digest = None, ""
    if output is not None:
        size, digest = save_model(
            made, origin, output, overwrite=overwrite, preprocessing=known(data)
        )
    from dsconvert.models.data.preprocess import Preprocessing

    record = RewriteResult(
        model=told,
        output=str(output or ""),
        sha256=digest,
        size_bytes=size,
        repairs=repairs,
        preprocessing=data.preprocessing if data else preprocessing or Preprocessing(),
        report=result.report,
        refined=refinement,
    )
    return RewrittenModel(model=made, plan=result.plan, record=record)


def _check(options: RewriteOptions, plan: object, calibrated: bool) -> None:
    """Refuse what would be ignored."""
    from dsconvert.base.errors import InputError

    asked = {
        "--structure": options.structure,
        "--pairs": options.pairs,
        "--macs": options.macs,
        "--channels": options.channels,
        "--order": None if options.order == "auto" else options.order,
        "--include": options.include or None,
        "--exclude": options.exclude or None,
    }
    given = [option for option, value in asked.items() if value is not None]
    if plan is not None and given:
        named = plan if isinstance(plan, str | Path) else "the plan"
        raise InputError(
            f"--plan says what becomes of every layer, so {' and '.join(given)} would be ignored.",
            f"Edit {named}, or make another plan.",
            code="plan-and-options",
        )
    _exclusive(asked, "--macs", "--pairs", "each is a budget")
    _exclusive(asked, "--macs", "--channels", "each says how large the blocks are")
    _exclusive(asked | {"--block": options.block}, "--structure", "--block", "each names a style")
    if options.method in ("svd", "random") and calibrated:
        raise InputError(
            f"--method {options.method} looks at no images, so --calibration would be ignored.",
            "Leave one of the two out.",
            code="calibration-ignored",
        )


def _exclusive(asked: Mapping[str, object], one: str, other: str, why: str) -> None:
    from dsconvert.base.errors import InputError

    if asked[one] is not None and asked[other] is not None:
        raise InputError(
            f"{one} and {other} cannot be used together: {why}.",
            "Leave one of the two out.",
            code="options-exclude-each-other",
        )


def _style(options: RewriteOptions) -> str:
    """Name the block style that is asked for; a width asks for what has one."""
    from dsconvert.converter.core.fitting.styles import STRUCTURES

    if options.structure is not None and options.structure not in STRUCTURES:
        from dsconvert.base.errors import InputError

        raise InputError(
            f"unknown structure {options.structure!r}; allowed: {', '.join(STRUCTURES)}.",
            code="unknown-structure",
        )
    structure = options.structure or ("auto" if options.channels is None else "block")
    return options.block or STRUCTURES[structure]


def _plan(plan: Plan | PlanResult | str | Path | None) -> Plan | None:
    if isinstance(plan, str | Path):
        return read_plan(Path(plan))
    from dsconvert.converter.core.types import Plan

    from .results.planned import PlanResult

    return of_kind(plan.plan if isinstance(plan, PlanResult) else plan, Plan, "plan")


def read_plan(path: Path) -> Plan:
    """Read a plan, edited or not.

    Raises:
        InputError: If it is none; with the place.
    """
    import msgspec

    from dsconvert.base.errors import InputError
    from dsconvert.base.files import read_whole
    from dsconvert.converter.core.types import Plan

    try:
        return msgspec.json.decode(read_whole(path), type=Plan)
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}.",
            f"Try: dsconvert plan MODEL -o {path}",
            code="plan-not-found",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is no plan: {error}.",
            "Make it with dsconvert plan, and edit it by hand.",
            code="not-a-plan",
        ) from error
