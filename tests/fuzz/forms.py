"""The formats that are read: how one of each is made, damaged, and what reads it."""

from __future__ import annotations

import io
import json
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import odd

Mutate = Callable[[Random, Path, Path], None]
"""Takes a source of randomness, the folder of sound files, and the path to write to."""
Words = Callable[[str, Path], list[list[str]]]
"""Takes the path of a damaged file and the folder of sound files; gives command lines."""


@dataclass(frozen=True)
class Form:
    """A format.

    Attributes:
        name: What the command line calls it.
        file: The name of the damaged file.
        mutate: Writes one.
        words: The commands that read it, of which one is taken.
        needs: Libraries that these import: they are loaded once.
        like: A sound file of the format.
    """

    name: str
    file: str
    mutate: Mutate
    words: Words
    needs: tuple[str, ...]
    like: str


def _texts(sound: str, dump: Callable[[Any], str], load: Callable[[str], Any]) -> Mutate:
    def mutate(random: Random, folder: Path, path: Path) -> None:
        text = (folder / sound).read_text()
        if random.random() < 0.25:
            path.write_bytes(odd.change_bytes(random, text.encode()))
            return
        tree = odd.change_tree(random, load(text))
        try:
            path.write_bytes(dump(tree).encode("utf-8", "surrogatepass"))
        except (RecursionError, TypeError, ValueError, AttributeError):  # no TOML: then bytes
            path.write_bytes(odd.change_bytes(random, text.encode()))

    return mutate


def _toml(tree: Any) -> str:
    import tomli_w

    return tomli_w.dumps(tree)


def npz(random: Random, folder: Path, path: Path) -> None:
    """An archive of odd arrays, one with an odd header, or a damaged one."""
    kind = random.randrange(4)
    content = (folder / "images.npz").read_bytes()
    if kind == 0:
        path.write_bytes(odd.change_bytes(random, content))
        return
    arrays: dict[str, bytes] = {}
    for name in random.choice((("x",), ("x", "y"), ("x", "x"), ("images",), ("x_test", "y_test"))):
        stream = io.BytesIO()
        array = _labels(random) if name.startswith("y") else _array(random)
        np.lib.format.write_array(stream, array, allow_pickle=True)
        arrays[name] = stream.getvalue()
        if kind == 1:
            arrays[name] = odd.change_bytes(random, arrays[name][:128]) + arrays[name][128:]
    stored = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(path, "w", stored) as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data)
        if random.random() < 0.2:
            archive.writestr(random.choice(("../outside.npy", "/x.npy", "", "x\x1b.npy")), b"x")


def _array(random: Random) -> np.ndarray:
    """Values of an odd shape or kind; more often of one that the model takes."""
    seeded = np.random.default_rng(random.getrandbits(32))
    shape = (12, 8, 8, 3) if random.random() < 0.5 else random.choice(
        ((12, 3, 8, 8), (12,), (), (0, 8, 8, 3), (1, 8, 8, 3), (12, 8, 8), (3, 192),
         (12, 8, 8, 1), (12, 8, 8, 4), (12, 7, 9, 3), (2, 2, 2, 2, 2), (12, 0, 8, 3))
    )  # fmt: skip
    kind = "f4" if random.random() < 0.4 else random.choice(
        ("f8", "f2", ">f4", "u1", "i1", "i8", "u8", "?", "c8", "S3", "U3", "M8[s]", "O",
         "V4", [("a", "f4"), ("b", "i2")])
    )  # fmt: skip
    values = seeded.normal(size=shape) * random.choice((1, 100, 1e30, 1e300, 0))
    if random.random() < 0.3 and values.size:
        values.flat[random.randrange(values.size)] = random.choice((np.nan, np.inf, -np.inf))
    with np.errstate(all="ignore"):
        try:
            return values.astype(kind) if isinstance(kind, str) else np.zeros(shape, kind)
        except (TypeError, ValueError):
            return np.zeros(shape, kind)


def _labels(random: Random) -> np.ndarray:
    """Class numbers; some are odd."""
    if random.random() < 0.5:
        return _array(random)
    return np.array([random.choice((0, 1, 4, 4, 5, -1)) for _ in range(12)], "i8")


def images(random: Random, folder: Path, path: Path) -> None:
    """A folder of images, some of them damaged, with odd names."""
    path.mkdir()
    names = ("a.png", "b.jpg", "c.gif", "d.bmp", "e.tif", "f.webp")
    for name in random.sample(names, random.randrange(1, 5)):
        content = (folder / "pictures" / name).read_bytes()
        other = (folder / "pictures" / random.choice(names)).read_bytes()
        if random.random() < 0.7:
            content = odd.change_bytes(random, content, other)
        (path / name).write_bytes(content)
    kind = random.randrange(8)
    if kind == 0:
        (path / "boxes.json").write_text(json.dumps(odd.change_tree(random, _BOXES)))
    elif kind == 1:
        name = random.choice(("[red]\x1b.png", "x" * 250 + ".png", "ü\n.png", " .png", "-.png"))
        shutil.copy(folder / "pictures" / "a.png", path / name)
    elif kind == 2:
        (path / "loop").symlink_to(path)
    elif kind == 3:
        (path / "pipe.png").symlink_to("/dev/zero")
    elif kind == 4:
        for name in ("one", "two"):
            (path / name).mkdir()
            shutil.copy(folder / "pictures" / "a.png", path / name)


_BOXES = {
    "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3], "area": 9,
                     "iscrowd": 0}],
    "categories": [{"id": 1, "name": "x"}],
}  # fmt: skip


def _of_plan(path: str, folder: Path) -> list[list[str]]:
    return [["rewrite", str(folder / "net.onnx"), "-o", "out.onnx", "--plan", path]]


def _of_measurement(path: str, folder: Path) -> list[list[str]]:
    sound = str(folder / "run.json")
    return [["compare", path, sound], ["compare", sound, path], ["compare", path, path]]


def _of_report(path: str, folder: Path) -> list[list[str]]:
    return [["report", path, "-o", "page.html"]]


def _of_devices(path: str, folder: Path) -> list[list[str]]:
    model = str(folder / "net.onnx")
    few = ["--runs", "1", "--min-seconds", "0"]
    names = (*("nobody", "mcu") * 6, "host")  # which alone starts a process that measures
    return [["profile", model, "--device", name, *few] for name in names]


def _of_onnx(path: str, folder: Path) -> list[list[str]]:
    return [
        ["inspect", path],
        ["rewrite", path, "-o", "out.onnx"],
        ["verify", path, path, "--samples", "2"],
        ["export", path, "-o", "out.onnx", "--quantize", "dynamic"],
    ]


def _of_tflite(path: str, folder: Path) -> list[list[str]]:
    return [
        ["verify", path, path, "--samples", "2"],
        ["evaluate", path, "--data", str(folder / "images.npz")],
        ["profile", path, "--device", "mcu"],
    ]


def _of_keras(path: str, folder: Path) -> list[list[str]]:
    return [["inspect", path], ["inspect", path], ["rewrite", path, "-o", "out.keras"]]


def _of_data(path: str, folder: Path) -> list[list[str]]:
    model = str(folder / "net.onnx")
    return [
        ["verify", model, model, "--data", path, "--samples", "8"],
        ["rewrite", model, "-o", "out.onnx", "--calibration", path, "--samples", "8"],
        ["evaluate", model, "--data", path],
    ]


def _of_recipe(path: str, folder: Path) -> list[list[str]]:
    return [
        ["inspect", str(folder / "net.onnx"), "--recipe", path],
        ["rewrite", "--recipe", path],
        ["verify", "--recipe", path],
    ]


def forms() -> dict[str, Form]:
    """All formats, by name; those that need TensorFlow come last."""
    import forms_models as models

    onnx = ("onnx", "onnxruntime")
    keras = ("h5py", "keras")
    litert = ("ai_edge_litert.interpreter", "ai_edge_litert.schema_py_generated")
    text = (json.dumps, json.loads)
    plan, devices = _texts("plan.json", *text), _texts("devices.toml", _toml, tomllib.loads)
    report = _texts("report.json", *text)
    run, recipe = _texts("run.json", *text), _texts("recipe.toml", _toml, tomllib.loads)
    found = (
        Form("plan", "plan.json", plan, _of_plan, onnx, "plan.json"),
        Form("measurement", "run.json", run, _of_measurement, (), "run.json"),
        Form("report", "report.json", report, _of_report, ("vl_convert",), "report.json"),
        Form("devices", "devices.toml", devices, _of_devices, onnx, "devices.toml"),
        Form("recipe", "recipe.toml", recipe, _of_recipe, onnx, "recipe.toml"),
        Form("npz", "data.npz", npz, _of_data, onnx, "images.npz"),
        Form("images", "data", images, _of_data, onnx, "pictures"),
        Form("onnx", "net.onnx", models.onnx, _of_onnx, onnx, "net.onnx"),
        Form("tflite", "net.tflite", models.tflite, _of_tflite, litert, "net.tflite"),
        Form("h5", "net.h5", models.h5, _of_keras, keras, "net.h5"),
        Form("keras", "net.keras", models.keras, _of_keras, keras, "net.keras"),
    )
    return {form.name: form for form in found}
