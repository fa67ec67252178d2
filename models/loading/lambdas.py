"""Lambda layers: Python bytecode inside a model file.

A function that is affine is replaced by a Rescaling layer without being run. Any other one would
have to be run, which only the user can allow.
"""

from __future__ import annotations

import base64
import binascii
import opcode
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError

from .affine import Affine, read_affine
from .graph import without_idle_keywords
from .marshal_data import NotReadable, read_code
from .tree import Config, edit, name_of, objects, with_config

# What Keras before version 3 wrote beside the function.
_FUNCTIONS = ("function", "output_shape", "mask")
_OLD_KEYS = frozenset({"module", "function_type", "output_shape_type", "output_shape_module"})


def affine_lambdas(model: Config) -> tuple[Config, str | None]:
    """Replace each Lambda that computes scale·x + offset by a Rescaling layer."""
    found: list[str] = []

    def change(item: Config) -> Config | None:
        if item["class_name"] != "Lambda" or item["config"].get("arguments"):
            return None
        affine = _affine(item["config"].get("function"))
        if affine is None:
            return None
        config = {
            k: item["config"][k] for k in ("name", "trainable", "dtype") if k in item["config"]
        }
        config |= {"scale": affine.scale, "offset": affine.offset}
        # A first layer of a Sequential carries the shape of the input.
        config |= {k: v for k, v in item["config"].items() if k == "batch_input_shape"}
        found.append(
            f"read Lambda '{name_of(item)}' as {affine.text}: "
            f"Rescaling(scale={affine.scale:.9g}, offset={affine.offset:.9g}), without running it"
        )
        calls = without_idle_keywords(item.get("inbound_nodes") or [])
        kept = {k: v for k, v in item.items() if k not in ("module", "registered_name")}
        kept |= {"inbound_nodes": calls} if "inbound_nodes" in item else {}
        return {**kept, "class_name": "Rescaling", "config": config}

    model, _ = edit(model, change)
    return model, "; ".join(found) or None


def allow_lambdas(path: Path, model: Config, *, trust: bool) -> Config:
    """Refuse bytecode that is left in the file, or bring it into the form that Keras can run.

    Raises:
        InputError: Without ``trust``; and where another Python wrote the bytecode.
    """
    layers = [item for item in objects(model) if any(_codes(item))]
    names = ", ".join(name_of(item) for item in layers)
    rebuild = "rebuild these layers in Python and save without Lambda: model.save('model.keras')."
    if any(not _is_of_this_python(code) for item in layers for code in _codes(item).values()):
        raise InputError(
            f"{path} has Lambda layers ({names}) that hold bytecode of another Python version, "
            "which cannot be read here.",
            f"In the environment where the model was made, {rebuild}",
            code="lambda-of-other-python",
        )
    if layers and not trust:
        raise InputError(
            f"{path} has Lambda layers ({names}): loading them would run code from the file.",
            f"If you know who wrote the file, add --trust; otherwise {rebuild}",
            code="needs-trust",
        )
    runnable: Config = edit(model, _runnable)[0]
    return runnable


def _affine(function: Any) -> Affine | None:
    code, _, _ = _parts(function)
    return None if code is None else read_affine(code)


def _parts(function: Any) -> tuple[bytes | None, Any, Any]:
    """Give the bytecode, defaults and closure of a stored function; None where it holds no code."""
    if isinstance(function, dict) and function.get("class_name") == "__lambda__":
        inner = function.get("config", {})
        if "value" in inner:  # Keras 3.0
            inner = dict(zip(("code", "defaults", "closure"), inner["value"], strict=False))
        function = [inner.get("code"), inner.get("defaults"), inner.get("closure")]
    if not isinstance(function, list) or len(function) != 3 or not isinstance(function[0], str):
        return None, None, None
    text, defaults, closure = function
    try:
        code = base64.b64decode(text.encode("ascii"), validate=False)
        read_code(code)
    except (UnicodeEncodeError, binascii.Error, NotReadable):
        # Keras 1 wrote the bytes as they are, one character each.
        code = text.encode("raw_unicode_escape")
    return code, defaults, closure


def _codes(item: Config) -> dict[str, bytes]:
    """Return the bytecode in one layer's configuration: its function, output shape or mask."""
    return {
        key: code
        for key, value in item["config"].items()
        if isinstance(value, dict) or (item["class_name"] == "Lambda" and key in _FUNCTIONS)
        if (code := _parts(value)[0]) is not None
    }


def _is_of_this_python(data: bytes) -> bool:
    """Tell whether bytecode can be of the running Python: its layout and its RESUME instruction."""
    try:
        code = read_code(data)
    except NotReadable:
        return False
    return code.age == "3.11" and opcode.opmap["RESUME"] in code.fields["code"][::2]


def _runnable(item: Config) -> Config | None:
    """Return the form in which Keras 3 expects a Lambda layer's functions, with code or named."""
    functions: Config = {}
    for key, code in _codes(item).items():
        _, defaults, closure = _parts(item["config"][key])
        text = base64.b64encode(code).decode("ascii")
        inner = {"code": text, "defaults": defaults, "closure": closure}
        functions[key] = {"class_name": "__lambda__", "config": inner}
    if item["class_name"] != "Lambda":
        return with_config(item, **functions) if functions else None
    name = item["config"].get("function")
    if isinstance(name, str):
        functions["function"] = {
            "class_name": "function", "config": name, "module": "builtins", "registered_name": name,
        }  # fmt: skip
    return with_config(item, *_OLD_KEYS, **functions)
