"""Every option that takes a number has a range: what is none, or out of it, is refused at once."""

from __future__ import annotations

import click
import pytest

from dsconvert.base.errors import InputError
from dsconvert.cli import main, options
from dsconvert.cli.profile import Cpus
from dsconvert.cli.quantization_options import _Count
from dsconvert.converter.core.planning.limits import parse_limit
from dsconvert.models.data.preprocess import Preprocessing
from dsconvert.workflows.refine import refine_settings

NONE = ("nan", "inf", "-inf", "-1", "1e30", "9" * 30, "9" * 5000, "", "²", "0x10", "1/0")
"""No number of anything; 1e30 and -1 are out of almost every range."""
MISTYPED = ("１２", "٣", "1_2", "0_1", "1 2", "1\u00a0", "infinity")
"""What Python takes for numbers, or nearly, and nobody writes on purpose."""
TYPES = (options.Count, options.Finite, options.Memory, options.Size, Cpus, _Count)
ARGUMENTS = {
    "compare": ["a.json", "b.json"],
    "devices": [],
    "doctor": [],
    "evaluate": ["a.onnx", "--data", "d.npz"],
    "finetune": ["a.keras", "--teacher", "b.keras", "--data", "d.npz"],
    "optimize": ["a.keras", "--data", "d.npz"],
    "profile": ["a.onnx"],
    "report": ["run"],
    "verify": ["a.onnx", "b.onnx"],
    "zoo": ["vgg16"],
}
FOUND = [
    (name, option)
    for name, command in sorted(main.commands.items())
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag and not option.count
]
NUMBERS = [(name, option) for name, option in FOUND if isinstance(option.type, TYPES)]


def parsed(name, *words):
    command = main.commands[name]
    return command.make_context(name, [*ARGUMENTS.get(name, ["a.onnx"]), *words])


@pytest.mark.parametrize(("name", "option"), NUMBERS, ids=lambda one: getattr(one, "name", one))
def test_what_is_no_number_or_out_of_range(name, option):
    parsed(name)  # the other words are right
    for value in NONE + MISTYPED:
        low = getattr(option.type, "low", 0)
        if value == "-1" and low <= -1:
            continue
        with pytest.raises(click.UsageError) as refused:
            parsed(name, f"{option.opts[0]}={value}")
        assert refused.value.exit_code == 2
        assert getattr(refused.value, "param", option) is option


def test_no_number_is_without_a_range():
    """A new option of another type is judged here, before somebody else finds out."""
    others = {type(option.type) for _, option in FOUND if not isinstance(option.type, TYPES)}
    assert {one.__name__ for one in others} <= {
        "StringParamType", "Choice", "Path", "Formats", "FuncParamType", "Metric"
    }  # fmt: skip


def test_spaces_around_a_number_are_no_fault():
    assert parsed("rewrite", "--pairs", " 3 ").params["pairs"] == 3
    assert parsed("finetune", "--learning-rate", "1e-3 ").params["learning_rate"] == 1e-3


@pytest.mark.parametrize(
    "text",
    ["nan", "inf", "-1", "-1x", "nanx", "1e400", "1e308G", "0", "", "x", "1.2.3", "１2M", "1_0M"],
)
@pytest.mark.parametrize("resource", ["macs", "latency", "size"])
def test_targets(text, resource):
    with pytest.raises(InputError):
        parse_limit(text, resource)


@pytest.mark.parametrize(
    "wish",
    ["nan", "inf", "-1", "9" * 400, "1e30", "steps", "9" * 30 + "steps", "1.5steps", "s", "６０"],
)
def test_times_to_refine_for(wish):
    with pytest.raises(InputError):
        refine_settings(wish, 0)


@pytest.mark.parametrize(
    "text", ["nan", "inf", "1e400", "1/0", "", "1e39", "0", "1e-46", "1,2", "1_0", "１/255", "1/"]
)
@pytest.mark.parametrize("name", ["scale", "std"])
def test_factors_of_images(name, text):
    given = {"scale": None, "mean": None, "std": None, name: text}
    if (name, text) == ("std", "1,2"):  # one per channel
        assert isinstance(options.as_preprocessing(**given, channels_first=False), Preprocessing)
        return
    with pytest.raises(InputError):
        options.as_preprocessing(**given, channels_first=False)
