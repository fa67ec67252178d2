"""Compare the outputs of two models, and fail if they differ too much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dsconvert.base.messages import note
from dsconvert.base.progress import as_progress

from .data_for import as_data, check_sources
from .dequantized import FLOAT_FORM
from .model_files import ModelFile, kind_of_source, open_model, path_of
from .predictors import check_runtime, is_changed, runtime_notes, runtime_of
from .results.verified import Verification
from .stored_preprocessing import settled

if TYPE_CHECKING:
    from pathlib import Path

    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.base.output_fidelity import Finding
    from dsconvert.base.predictor import Array, Predictor, Shape
    from dsconvert.base.progress import Progress
    from dsconvert.deploy.runtimes.precision import Precision
    from dsconvert.deploy.runtimes.tensor_info import TensorInfo
    from dsconvert.deploy.verification.tolerances import Thresholds
    from dsconvert.formats.quantization import Quantization
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.data.preprocess import Preprocessing

    from .data_for import DataSource
    from .model_files import ModelSource

_SAMPLES = 500
"""Images, where nothing is said."""
_FLOATS: dict[str, Quantization] = {"float32": "none", "float16": "float16"}
"""What a file of floats was made with."""


@dataclass(frozen=True)
class _Opened:
    told: str
    predictor: Predictor
    inputs: tuple[TensorInfo, ...]
    output_shapes: tuple[Shape, ...]
    precision: Precision
    remarks: tuple[str, ...] = ()


def verify(
    reference: ModelSource,
    model: ModelSource,
    *,
    data: DataSource | None = None,
    samples: int | None = None,
    thresholds: Thresholds | None = None,
    preprocessing: Preprocessing | None = None,
    threads: int = 1,
    runtime: str | None = None,
    seed: int = 0,
    progress: Progress | bool = False,
) -> Verification:
    """Compare a model's outputs with a reference's on the same samples.

    Both may be Keras, TFLite or ONNX; each is fed in its own layout. Channels of like scale are
    judged together, boxes apart from scores. What fails is a group of channels that misses its
    SQNR, and an output that is not finite, dead, constant, inverted, exchanged, moved or names a
    class no more.

    Args:
        reference: The model that is believed.
        model: The model that is looked at.
        data: Images (n, ...): a file, a folder, arrays or `Data`; seeded random inputs by default.
        samples: How many: by default 500 of a file.
        thresholds: What every output must reach; by default what ``model`` stores decides.
        preprocessing: What is done to images that are loaded from a file.
        threads: Of a runtime.
        runtime: The runtime that ``model`` runs in; by default that of its format, as the reference
            does. The reference may be the same file.
        seed: Of random inputs, and of the draw.
        progress: True for a bar on stderr.

    Returns:
        Whether it ``passed``, and how close each output is.

    Raises:
        InputError: If a model cannot be run, the data do not fit, or a threshold says nothing
            about any output.

    Example:
        >>> import dsconvert as ds
        >>> ds.verify("model.keras", "model.onnx", data="digits.npz").passed
        True
        >>> strict = ds.Thresholds(min_agreement=1.0)
        >>> ds.verify("model.keras", "model.onnx", data="digits.npz", thresholds=strict).failures
        ()
    """
    from dsconvert.base.output_fidelity import failures, warnings
    from dsconvert.deploy.exporting.random_ranges import leaves_rounding_alone, may_be_rounding
    from dsconvert.deploy.verification.tolerances import (
        Thresholds,
        judge_outputs,
        remarks,
        tolerance_of,
    )
    from dsconvert.models.data.checks import check_same_inputs, layout_notes
    from dsconvert.models.evaluation.compare import compare

    check_runtime(runtime, [model])
    check_sources(data)
    with _open(reference, threads) as a, _open(model, threads, runtime) as b:
        check_same_inputs({a.told: a.predictor.input_shapes, b.told: b.predictor.input_shapes})
        around_0 = False
        if data is None:
            images, around_0 = _random([b, a], a.predictor, samples, seed)
        else:
            preprocessing = settled(preprocessing, [model, reference], data)
            images = _load(data, [b, a], samples or _SAMPLES, seed, preprocessing)
            laid_out = [images.laid_out(one.predictor.input_shapes) for one in (a, b)]
            for text in dict.fromkeys(text for data in laid_out for text in layout_notes(data)):
                note(text)
        path = path_of(model)
        name, told = path.name if path else b.told, as_progress(progress)
        path = None if is_changed(model) else path  # what runs is another model than the file's
        precision = _compared_as(a.precision, b.precision)
        tolerance = tolerance_of(precision)

        def judged(images: Data) -> tuple[tuple[OutputFidelity, ...], tuple[Finding, ...]]:
            fidelity = compare(b.predictor, a.predictor, images, name=name, progress=told)
            if thresholds is not None:
                _check_applicable(fidelity, thresholds)
            unlike = _read_otherwise(path, a.predictor, images, fidelity)
            found = judge_outputs(fidelity, tolerance, thresholds, real=data is not None)
            return fidelity, (*unlike, *found)

        fidelity, findings = judged(images)
        made = _FLOATS.get(precision)
        if around_0 and thresholds is None and may_be_rounding(findings, made):
            for other in _other_ranges(images):
                outputs, rest = judged(other)
                fed = other.laid_out(a.predictor.input_shapes).inputs
                if rest:  # saturated outputs say nothing
                    continue
                if leaves_rounding_alone(outputs, made, a.predictor.predict, fed):
                    note(f"judged on {other.source}; on numbers around 0: {findings[0].text}")
                    images, fidelity, findings = other, outputs, rest
                    break
    found = failures(findings)
    return Verification(
        reference=a.told,
        model=b.told,
        precision=b.precision,
        source=images.source,
        samples=len(images),
        preprocessing=images.preprocessing,
        thresholds=thresholds or Thresholds.of(tolerance),
        shapes=a.output_shapes,
        fidelity=fidelity,
        findings=findings,
        remarks=(
            *a.remarks,
            *b.remarks,
            *remarks(fidelity),
            *runtime_notes(runtime, [model]),
            *warnings(findings),
        ),
        failures=found,
        passed=not found,
    )


def _compared_as(reference: Precision, model: Precision) -> Precision:
    """Tell which precision decides: float32 is no nearer to a reference in half precision."""
    return "float16" if (reference, model) == ("float16", "float32") else model


def _read_otherwise(
    path: Path | None, reference: Predictor, images: Data, outputs: Sequence[OutputFidelity]
) -> tuple[Finding, ...]:
    """Find integers that a file reads with other scales than it writes them with."""
    from dsconvert.deploy.runtimes.registry import open_runtime
    from dsconvert.deploy.verification import integer_pairs
    from dsconvert.models.evaluation.compare import compare

    if path is None or path.suffix.lower() not in (".onnx", ".tflite"):
        return ()
    return integer_pairs.find(
        path, outputs, lambda file: compare(open_runtime(file), reference, images)
    )


@contextmanager
def _open(source: ModelSource, threads: int, runtime: str | None = None) -> Iterator[_Opened]:
    from dsconvert.deploy.runtimes.tensor_info import TensorInfo

    if kind_of_source(source) != "keras":
        from dsconvert.deploy.runtimes.precision import precision_of

        source = open_model(source) if is_changed(source) else source
        with runtime_of(source, threads=threads, runtime=runtime) as session:
            shapes = tuple(info.shape for info in session.outputs)
            opened = source if isinstance(source, ModelFile) else None
            told = opened.told if opened else str(path_of(source) or "the model")
            float_form = opened is not None and opened.dequantized
            said = (f"{told} was read as {FLOAT_FORM}",) if float_form else ()
            precision = precision_of(session.path)
            yield _Opened(told, session, session.inputs, shapes, precision, said)
        return
    from dsconvert.models.evaluation.keras_predictor import KerasPredictor

    opened = open_model(source)
    model, predictor = opened.model, KerasPredictor(opened.model)
    infos = tuple(
        TensorInfo(name=name, shape=shape, dtype=str(tensor.dtype))
        for name, shape, tensor in zip(
            predictor.input_names, predictor.input_shapes, model.inputs, strict=True
        )
    )
    half = any(str(layer.compute_dtype) in ("float16", "bfloat16") for layer in model.layers)
    shapes = tuple(tuple(tensor.shape) for tensor in model.outputs)
    yield _Opened(opened.told, predictor, infos, shapes, "float16" if half else "float32")


def _random(
    opened: list[_Opened], reference: Predictor, samples: int | None, seed: int
) -> tuple[Data, bool]:
    """Seeded random inputs in the layout, and the range, of the model that leaves least open.

    Returns:
        The inputs, and whether they are numbers around 0.
    """
    from dsconvert.deploy.runtimes.samples import random_samples
    from dsconvert.deploy.verification.telling_inputs import telling_inputs
    from dsconvert.models.data.datasets import Data

    # What stores its inputs in integers has a range; the fewer free sizes, the better.
    first = min(
        opened,
        key=lambda one: (
            all(info.scale is None for info in one.inputs),
            str(one.predictor.input_shapes).count("None"),
        ),
    )

    def drawn(arrays: Sequence[Array]) -> Data:
        names, source = first.predictor.input_names, f"random inputs (seed {seed})"
        return Data(tuple(arrays), names=names, source=source)

    def predict(arrays: Sequence[Array]) -> Sequence[Array]:
        return reference.predict(drawn(arrays).laid_out(reference.input_shapes).inputs)

    arrays = random_samples(first.inputs, seed, samples)
    note("compared on random inputs, which need not be what the model is made for: --data")
    if any(info.scale is not None for info in first.inputs):
        return drawn(arrays), False
    arrays, told = telling_inputs(predict, arrays)
    if told:
        note(told)
    return drawn(arrays), not told


def _other_ranges(images: Data) -> Iterator[Data]:
    """Yield random images of 0 … 255 and of 0 … 1, made of numbers around 0."""
    from dsconvert.deploy.verification.telling_inputs import RANGES, in_range

    for told, scale, shift in RANGES:
        arrays = in_range(images.inputs, scale, shift)
        yield replace(images, inputs=arrays, source=f"random images of {told}")


def _load(
    source: DataSource,
    opened: list[_Opened],
    samples: int,
    seed: int,
    preprocessing: Preprocessing | None,
) -> Data:
    """Return the images in the layout of the model that leaves the fewest sizes open."""
    from dsconvert.models.evaluation.plausibility import suspicions

    first = min(opened, key=lambda one: str(one.predictor.input_shapes).count("None")).predictor
    images = as_data(
        source,
        split="test",
        samples=samples,
        seed=seed,
        preprocessing=preprocessing,
        input_names=first.input_names,
        input_shapes=first.input_shapes,
    )
    for suspicion in suspicions(images):
        note(suspicion)
    return images


def _check_applicable(outputs: Sequence[OutputFidelity], limits: Thresholds) -> None:
    """Refuse a threshold that says nothing about any output, rather than pass it.

    Raises:
        InputError: With what it would need.
    """
    from dsconvert.base.errors import InputError

    if not all(output.finite for output in outputs):
        return
    names = ", ".join(output.name for output in outputs)
    for asked, figures_, option, needs in (
        (limits.min_agreement, [o.top1_agreement for o in outputs], "--min-agreement", "classes"),
        (limits.max_kl_nats, [o.kl_nats for o in outputs], "--max-kl", "class distributions"),
    ):
        if asked is not None and all(figure is None for figure in figures_):
            raise InputError(
                f"{option} cannot be checked: none of the outputs ({names}) holds {needs}.",
                "Use --min-sqnr.",
                code="threshold-not-applicable",
            )
