"""Texts that name a setting by its option, for people who call functions.

A message is written once, with the words of the command line: "Add --calibration DATA". Errors and
notes show Python users the argument instead: "Add calibration='DATA'".
"""

from __future__ import annotations

import re

_FLAGS = {
    *("allow-flex", "allow-random", "channels-first", "dequantize", "labels", "logits"),
    *("overwrite", "per-op", "report", "resume", "trust"),
}
_READ_AS_FLOAT = "dequantize=True"
_OFF = {"no-verify": "verify", "no-keep-io": "keep_io", "no-bias-correction": "correct_biases"}
_RENAMED = {
    "target-latency": "latency",
    "target-macs": "macs",
    "target-params": "params",
    "target-size": "size",
    "min-sqnr": "min_sqnr_db",
    "max-kl": "max_kl_nats",
    "input": "input_shape",
}
_NAMES = "inspect|plan|sweep|rewrite|finetune|evaluate|export|verify|profile|compare"
_VALUE = (
    r"(?:auto|svd|data|random|linear|mobilenet|three-factor|pairs|block|none|int8|int16x8|float16|dynamic|host|onnx|tflite"
    r"|device|cpu|threads|cpus|runtime|version"  # of --allow
    r"|[A-Z][\w…]*(?:\.\w+)?|(?:adb|ssh):[\w@:.-]*\w|[a-z][\w.]*:\w+|\d[\w%./:-]*[\w%]|\d"
    r"|[\w./-]*[\w-]\.(?:npz|keras|h5|onnx|tflite|json))"
)
_OPTION = rf"(?:--(?P<name>[a-z][a-z-]*[a-z])|-o)(?:[ =](?P<value>{_VALUE})(?![\w-]))?"
_FILE = r"[\w./{}-]*[\w}-]\.(?:npz|keras|h5|onnx|tflite|json)|[A-Z][A-Z.]*[A-Z]?"
_BARE = _OPTION.replace("?P<name>", "").replace("?P<value>", "")
_COMMAND = re.compile(
    rf"dsconvert (?P<command>{_NAMES})\b(?P<words>(?: (?:{_BARE}|(?:{_FILE})(?![\w-])))*)"
)
_SAVED = re.compile(r"dsconvert profile ([A-Z]+) --json > (\S+)")
_FOREIGN = re.compile(r"(?:python -m|pip|curl|adb) .*", re.DOTALL)
"""A command of another program, to the end of the text."""
_WORD = re.compile(rf"{_OPTION}|(?P<file>{_FILE})")
_FREE_OPTION = re.compile(rf"(?<![\w-]){_OPTION}")


def as_arguments(text: str) -> str:
    """Write the options and commands of a text as arguments and calls.

    Args:
        text: A sentence for the command line, e.g. ``"Use --method svd."``.

    Returns:
        The sentence for Python: ``"Use method='svd'."``.

    Example:
        >>> as_arguments("Try: dsconvert export MODEL -o m.tflite --quantize int8")
        "Try: ds.export('MODEL', output='m.tflite', quantize='int8')"
    """
    foreign = _FOREIGN.search(text)
    ours, rest = (text[: foreign.start()], foreign[0]) if foreign else (text, "")
    ours = _SAVED.sub(r"ds.profile(\1).save('\2')", ours)
    ours = _FREE_OPTION.sub(_argument, _COMMAND.sub(_call, ours))
    return re.sub(r"(=[^\s,]+) (?=\w+=)", r"\1, ", ours) + rest


def _call(command: re.Match[str]) -> str:
    words = [
        repr(word["file"]) if word["file"] else _argument(word)
        for word in _WORD.finditer(command["words"])
    ]
    if _READ_AS_FLOAT in words[1:]:  # functions take what load returns
        words.remove(_READ_AS_FLOAT)
        words[0] = f"ds.load({words[0]}, {_READ_AS_FLOAT})"
    return f"ds.{command['command']}" + (f"({', '.join(words)})" if words else "")


def _argument(option: re.Match[str]) -> str:
    name, value = option["name"], option["value"]
    if name is None:
        name = "output"
    if name in _OFF:
        argument = f"{_OFF[name]}=False"
    elif name in _FLAGS and value is None:
        argument = f"{name.replace('-', '_')}=True"
    else:
        known = _RENAMED.get(name, name.replace("-", "_"))
        return known if value is None else f"{known}={_literal(value)}"
    return argument if value is None else f"{argument} {value}"


def _literal(value: str) -> str:
    return value if re.fullmatch(r"\d+(\.\d+)?", value) else repr(value)
