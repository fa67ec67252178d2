"""A small program that loads the recommended file and runs it, for people to copy from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsconvert.models.data.preprocess import Preprocessing

    from ..results.optimized import FileFigures

_HEAD = '''"""Run {name}: {what}.

    python run.py IMAGE_OR_ARRAY…

An image (.png, .jpg, …) is resized to the model's size; an .npy file holds values as they are
stored, (n, height, width, channels). Needs numpy, {package}, and pillow for images.
"""

import sys
from pathlib import Path

import numpy as np

MODEL = Path(__file__).parent / "files" / "{name}"
SCALE = {scale!r}
MEAN = {mean!r}  # one number, or one per channel; None subtracts nothing
STD = {std!r}  # one number, or one per channel; None divides by nothing


def prepare(stored, shape):
    """Preprocess (n, height, width, channels) as it was done for this model."""
    values = np.asarray(stored, np.float32) * np.float32(SCALE)
    if MEAN is not None:
        values = values - np.asarray(MEAN, np.float32)
    if STD is not None:
        values = values / np.asarray(STD, np.float32)
    moved = np.moveaxis(values, -1, 1) if values.ndim == 4 else values
    if not fits(values.shape, shape) and fits(moved.shape, shape):
        values = moved
    return np.ascontiguousarray(values)


def fits(given, wanted):
    """Tell whether samples of one shape can be fed where another, maybe free, is wanted."""
    pairs = zip(given[1:], wanted[1:])
    free = (None, -1)
    return len(given) == len(wanted) and all(
        b in free or isinstance(b, str) or a == b for a, b in pairs
    )


def channels_first(shape):
    """Tell whether the model takes images as (n, channels, height, width)."""
    return len(shape) == 4 and shape[1] in (1, 3, 4) and shape[3] not in (1, 3, 4)


def load(path, shape):
    """Read an image, or values that are stored in an .npy file."""
    if str(path).endswith(".npy"):
        return np.load(path)
    from PIL import Image

    height, width, channels = shape[2:] + shape[1:2] if channels_first(shape) else shape[1:]
    image = Image.open(path)
    if image.mode.startswith("I;16"):  # grey: Pillow would make all above 255 white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert({{1: "L", 4: "RGBA"}}.get(channels, "RGB"))
    if isinstance(height, int) and height > 0 and isinstance(width, int) and width > 0:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return (pixels if pixels.ndim == 3 else pixels[..., None])[None]

'''
_TFLITE = '''
class Model:
    """The file in LiteRT: float32 in and out; integers inside are scaled here."""

    def __init__(self, threads=1):
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_path=str(MODEL), num_threads=threads)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.outputs = self.interpreter.get_output_details()
        self.shape = tuple(int(size) for size in self.input["shape"])

    def __call__(self, values):
        """Run samples (n, ...) one by one; gives a list of arrays, one per output."""
        found = [self.one(sample[None]) for sample in values]
        return [np.concatenate(parts) for parts in zip(*found)]

    def one(self, sample):
        scale, zero = self.input["quantization"]
        if scale:
            kind = np.iinfo(self.input["dtype"])
            sample = np.clip(np.round(sample / scale) + zero, kind.min, kind.max)
        self.interpreter.set_tensor(self.input["index"], sample.astype(self.input["dtype"]))
        self.interpreter.invoke()
        return [self.read(output) for output in self.outputs]

    def read(self, output):
        values = self.interpreter.get_tensor(output["index"])
        scale, zero = output["quantization"]
        return (values.astype(np.float32) - zero) * scale if scale else values

'''
_ONNX = '''
class Model:
    """The file in ONNX Runtime."""

    def __init__(self, threads=1):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(MODEL), options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0]
        self.shape = tuple(self.input.shape)

    def __call__(self, values):
        """Run samples (n, ...); gives a list of arrays, one per output."""
        kind = np.float16 if self.input.type == "tensor(float16)" else np.float32
        batches = [values[i : i + 1] for i in range(len(values))]
        if not isinstance(self.shape[0], int):
            batches = [values]
        found = [self.session.run(None, {self.input.name: one.astype(kind)}) for one in batches]
        return [np.concatenate(parts) for parts in zip(*found)]

'''
_TAIL = """
def main():
    paths = sys.argv[1:]
    if not paths or paths[0] in ("-h", "--help"):
        print(__doc__.strip())
        return
    model = Model()
    for path in paths:
        for number, output in enumerate(model(prepare(load(path, model.shape), model.shape))):
            print(f"{path}: output {number}: {np.array2string(output, threshold=20)}")
            if output.ndim == 2 and output.shape[1] > 1:
                print(f"{path}: highest: {output.argmax(axis=1)}")


if __name__ == "__main__":
    main()
"""


def program_text(file: FileFigures, preprocessing: Preprocessing) -> str:
    """Return a program that runs a file with its preprocessing and its scales.

    Args:
        file: The file, below files/.
        preprocessing: What is done to stored values.
    """
    tflite = file.name.endswith(".tflite")
    head = _HEAD.format(
        name=file.name,
        what=file.form,
        package="ai-edge-litert" if tflite else "onnxruntime",
        scale=preprocessing.scale,
        mean=_numbers(preprocessing.mean),
        std=_numbers(preprocessing.std),
    )
    return head + (_TFLITE if tflite else _ONNX) + _TAIL


def _numbers(values: tuple[float, ...] | None) -> float | list[float] | None:
    if values is None or len(values) > 1:
        return None if values is None else list(values)
    return values[0]
