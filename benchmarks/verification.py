"""What verification refuses and what it lets pass.

"planted": known defects, one at a time, in the int8 files of six small networks. "real": the files
of real models in every quantization. "repair": int8 files whose outputs mix scales, beside the
plain int8 file. "heads": int8 files of real face detectors on pictures with a face, which are cut
out of a photograph that scikit-image brings (pip install scikit-image).
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import RESNET8, VGG6, arguments, images, machine, table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

QUANTIZATIONS = ("none", "float16", "dynamic", "int8")
SAMPLES = 40
FRESH = (1, 2, 3, 4, 5)
"""Networks that nothing was tuned on: keep it so."""
REAL = {
    "resnet8": (RESNET8, (32, 32, 3), 1.0),
    "vgg6": (VGG6, (32, 32, 3), 1.0),
    "nncf_lenet": ("keras/nncf_lenet.h5", (28, 28, 1), 1 / 255),
    "dncnn": ("keras/dncnn_sigma25.keras", (64, 64, 1), 1 / 255),
    "ultraface": ("onnx/ultraface_rfb_320.onnx", (3, 240, 320), 1 / 255),
    "yunet": ("onnx/yunet_n_dynamic.onnx", (3, 160, 160), 1.0),
}


def main() -> None:
    chosen = arguments(__doc__, "planted", "real", "repair", "heads")
    print(f"Machine: {machine()}")
    parts = chosen.only.split(",")
    if "planted" in parts:
        columns = ["network", "sound files", "passed", "planted defects", "refused", "not refused"]
        table("Planted defects, networks that the tolerances were set with", columns, planted([0]))
        table("Planted defects, other weights and pictures", columns, planted(FRESH))
    if "real" in parts:
        columns = ["model", "file", "quantization", "worst group", "verdict"]
        table("Files of real models", columns, real(chosen.models, chosen.data))
    if "repair" in parts:
        columns = ["network", "file", "outputs", "KiB", "to the plain int8 file's time"]
        table("Outputs that mix scales", [*columns, "worst group", "said"], repair())
    if "heads" in parts:
        columns = [
            "network",
            "file",
            "KiB",
            "to the plain file's time",
            "worst group",
            "of",
            "said",
        ]
        table("Detectors of faces in int8", columns, heads(chosen.models))


def planted(numbers: Sequence[int]) -> Iterator[list[Any]]:
    """Count over networks of these numbers: tolerances were set with those of 0."""
    import onnx
    import planted_defects
    import small_networks

    totals = np.zeros(4, int)
    kinds: set[str] = set()
    for name in small_networks.NAMES:
        counts, missed = np.zeros(4, int), Counter[str]()
        for network in (small_networks.network(name, number) for number in numbers):
            references = small_networks.run(network.model, network.inputs)
            with tempfile.TemporaryDirectory() as folder:
                for quantize in QUANTIZATIONS:
                    precision = "float32" if quantize == "none" else quantize
                    path = network.write(Path(folder), precision)
                    outputs = small_networks.run(path, network.inputs)
                    file = onnx.load(path)
                    refused = planted_defects.refusals(network, references, outputs, quantize, file)
                    counts += (1, not refused, 0, 0)
                for one in planted_defects.plant(network, path):
                    refused = planted_defects.refusals(
                        network, references, one.outputs, "int8", one.file
                    )
                    counts += (0, 0, 1, bool(refused))
                    kinds.add(one.defect)
                    missed[one.defect] += not refused
        totals += counts
        told = [f"{defect} ({count})" for defect, count in missed.items() if count]
        yield [name, *counts, ", ".join(told)]
    yield [f"all, {len(kinds)} kinds of defects", *totals, ""]


def real(models: Path, data: Path) -> Iterator[list[Any]]:
    from dsconvert.base.errors import GateFailed, InputError
    from dsconvert.base.output_fidelity import measure_all
    from dsconvert.deploy.exporting.export import export
    from dsconvert.deploy.runtimes.registry import open_runtime
    from dsconvert.models.evaluation.keras_predictor import KerasPredictor
    from dsconvert.models.loading import load

    for name, (file, shape, scale) in REAL.items():
        path = models / file
        inputs = pictures(data, shape) * np.float32(scale)
        if name == "dncnn":  # what it is made for
            inputs += np.random.default_rng(0).normal(0, 25 / 255, inputs.shape).astype(np.float32)
        calibration, samples = inputs[SAMPLES:], inputs[:SAMPLES]
        stored = path.suffix == ".onnx"
        model: Any = path if stored else load(path).model
        reference = open_runtime(path) if stored else KerasPredictor(model)
        references = reference.predict([samples])
        for kind in ("onnx",) if stored else ("tflite", "onnx"):
            for quantize in QUANTIZATIONS:
                if stored and quantize == "none":
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    made = Path(folder) / f"{name}.{kind}"
                    given = [calibration] if quantize == "int8" else None
                    try:
                        export(
                            model,
                            made,
                            quantize=quantize,
                            calibration=given,
                            verification=[samples],
                            gate=False,
                        )
                        outputs = open_runtime(made).predict([samples])
                    except (GateFailed, InputError) as error:
                        yield [name, kind, quantize, "", str(error)]
                        continue
                measures = measure_all(reference.output_names, references, outputs)
                worst = [one.worst for one in measures if one.worst is not None]
                least = min((group.sqnr_db or 0.0 for group in worst), default=np.inf)
                refused = refusals(reference.output_names, references, outputs, quantize, samples)
                yield [name, kind, quantize, f"{least:.1f} dB", "; ".join(refused) or "passed"]


def repair() -> Iterator[list[Any]]:
    """Yield detectors whose output joins boxes in pixels and scores, each way of writing them."""
    import onnx
    import small_networks

    from dsconvert.deploy.exporting.export import export
    from dsconvert.models.onnx_import import import_onnx

    networks = {
        "boxes and scores": small_networks.network("detector"),
        "as FastestDet": small_networks.fastest_detector(),
    }
    for called, network in networks.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            source = folder / "detector.onnx"
            onnx.save(network.model, source)
            images = (network.calibration, network.inputs)
            last = tuple(np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for array in images)
            for row in (
                *_ways(export, source, "onnx", images, folder),
                *_ways(export, import_onnx(source).model, "tflite", last, folder),
            ):
                yield [called, *row]


def _ways(export: Any, model: Any, kind: str, images: Any, folder: Path) -> Iterator[list[Any]]:
    """Yield each way of writing the outputs, beside the plain int8 file, which no gate keeps."""
    from dsconvert.deploy.exporting.improve import OFF, Improvement
    from dsconvert.deploy.exporting.speed import time_ratio

    plain = folder / f"plain.{kind}"
    for outputs in ("plain int8", "float-tail", "split", "auto"):
        path = plain if outputs == "plain int8" else folder / f"{outputs}.{kind}"
        wish = OFF if path == plain else Improvement(outputs=outputs)  # type: ignore[arg-type]
        made = export(
            model,
            path,
            quantize="int8",
            calibration=[images[0]],
            verification=[images[1]],
            improvement=wish,
            gate=path != plain,
        )
        worst = _worst_group(model, path, images[1]) if path == plain else _least(made)
        ratio = 1.0 if path == plain else time_ratio(path, plain, [images[1]])
        size, time = f"{made.size_bytes / 1024:.1f}", "" if ratio is None else f"{ratio:.2f}"
        said = "; ".join(note for note in made.notes if note.startswith("outputs"))
        yield [kind, outputs, size, time, f"{worst:.1f} dB", said]


def _least(made: Any) -> float:
    """Return the SQNR of the worst group of a file that was compared when it was written."""
    groups = [group.sqnr_db for one in made.fidelity for group in one.measure.groups]
    return float(min(sqnr for sqnr in groups if sqnr is not None))


def _worst_group(model: Any, path: Path, images: Any) -> float:
    """Return the same of a file that was not."""
    from dsconvert.base.output_fidelity import measure_all
    from dsconvert.deploy.runtimes.registry import open_runtime
    from dsconvert.models.evaluation.evaluate import as_predictor

    reference = open_runtime(model) if isinstance(model, Path) else as_predictor(model)
    wanted, got = (one.predict([images]) for one in (reference, open_runtime(path)))
    measures = measure_all(reference.output_names, wanted, got)
    return float(min(one.worst.sqnr_db for one in measures if one.worst is not None))


HEADS = {
    "ultraface": ("onnx/ultraface_rfb_320.onnx", (240, 320), False),
    "yunet": ("onnx/yunet_n_dynamic.onnx", (160, 160), True),
}
"""File, size of its pictures, and whether they are BGR of 0 … 255 instead of (RGB − 127)/128."""


def heads(models: Path) -> Iterator[list[Any]]:
    """Yield the plain int8 file of each detector, and the one that `export` makes."""
    from dsconvert.base.output_fidelity import measure_all
    from dsconvert.deploy.exporting.export import export
    from dsconvert.deploy.exporting.improve import OFF, Improvement
    from dsconvert.deploy.exporting.speed import time_ratio
    from dsconvert.deploy.runtimes.registry import open_runtime

    for name, (file, size, as_stored) in HEADS.items():
        stored = faces(*size, 80)
        inputs = stored[:, ::-1].copy() if as_stored else (stored - 127) / np.float32(128)
        calibration, samples = inputs[20:], inputs[:20]
        reference = open_runtime(models / file)
        references = reference.predict([samples])
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "plain.onnx"
            for kind, wish in (("plain int8", OFF), ("--outputs auto", Improvement())):
                path = plain if wish is OFF else Path(folder) / "auto.onnx"
                made = export(
                    models / file,
                    path,
                    quantize="int8",
                    calibration=[calibration],
                    improvement=wish,
                    verification=[samples],
                    gate=False,
                )
                outputs = open_runtime(path).predict([samples])
                measures = measure_all(reference.output_names, references, outputs)
                worst = min(
                    (one.worst.sqnr_db, one.name) for one in measures if one.worst is not None
                )
                ratio = time_ratio(path, plain, [samples])
                time = "" if ratio is None else f"{ratio:.2f}"
                said = "; ".join(note for note in made.notes if "kept" in note)
                size_kib = f"{made.size_bytes / 1024:.1f}"
                yield [name, kind, size_kib, time, f"{worst[0]:.1f} dB", worst[1], said]


def faces(height: int, width: int, count: int) -> Any:
    """Cut pictures with a face, (count, 3, height, width) of 0 … 255, out of one photograph."""
    from PIL import Image

    try:
        from skimage.data import astronaut
    except ImportError:
        sys.exit("heads needs a picture with a face: pip install scikit-image")
    photograph, rng = Image.fromarray(astronaut()), np.random.default_rng(0)
    most = photograph.width * height // width
    made = []
    for _ in range(count):
        tall = int(rng.uniform(130, min(420, most)))
        wide = tall * width // height
        # The face is at (222, 115) and some 100 pixels wide.
        left = 222 + rng.uniform(-0.35, 0.35) * wide - wide / 2
        top = 115 + rng.uniform(-0.2, 0.45) * tall - tall / 2
        left = int(np.clip(left, 0, photograph.width - wide))
        top = int(np.clip(top, 0, photograph.height - tall))
        part = photograph.crop((left, top, left + wide, top + tall))
        pixels = np.asarray(part.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        pixels = np.clip(pixels * rng.uniform(0.6, 1.3), 0, 255)
        made.append((pixels[:, ::-1] if rng.random() < 0.5 else pixels).transpose(2, 0, 1))
    return np.ascontiguousarray(made, dtype=np.float32)


def refusals(
    names: Any, references: Any, outputs: Any, quantize: Any, inputs: Any
) -> tuple[str, ...]:
    from dsconvert.base.output_fidelity import failures, find_all, measure_all
    from dsconvert.deploy.schemes import SCHEMES

    measures = measure_all(names, references, outputs, [inputs])
    return failures(find_all(measures, SCHEMES[quantize].tolerance))


def pictures(data: Path, shape: tuple[int, ...]) -> Any:
    """Photographs of a model's size, (160, ...), 0 … 255, or as many as 40 for large ones."""
    from PIL import Image

    first = shape[0] in (1, 3)
    height, width = shape[1:] if first else shape[:2]
    channels = shape[0] if first else shape[2]
    made = []
    for picture in images(data, 80 if height >= 160 else 200).astype(np.uint8):
        image = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
        array = np.asarray(image if channels == 3 else image.convert("L"), np.float32)
        array = array.reshape(height, width, channels)
        made.append(array.transpose(2, 0, 1) if first else array)
    return np.ascontiguousarray(made)


if __name__ == "__main__":
    main()
