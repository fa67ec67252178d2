"""The options that commands share, and the values they become. Imports no framework."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dsconvert.base.number_words import real_number, whole_number
from dsconvert.workflows.command_words import preprocessing_words as preprocessing_words
from dsconvert.workflows.model_files import ModelPath, kind_of

from . import recipe

if TYPE_CHECKING:
    from dsconvert.models.data.preprocess import Preprocessing


Command = TypeVar("Command", bound=Callable[..., Any])

MODEL = click.Path(path_type=Path)


class Count(click.ParamType[int]):
    """A whole number within bounds. All have some: native code counts in 32 or 64 bits.

    Args:
        low: The least.
        high: The most.
    """

    name = "n"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a whole number."""
        number = whole_number(str(value))
        if number is None or not self.low <= number <= self.high:
            told = f"{value!r} is no whole number from {self.low:,} to {self.high:,}."
            self.fail(told, param, ctx)
        return number


SAMPLES = Count(1, 10**9)
"""Of images."""
PAIRS = Count(1, 4096)
"""Of a convolution."""


class Memory(click.ParamType[int]):
    """Bytes as people write them: 512MiB, 2GiB, 1.5G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a size in binary units."""
        if isinstance(value, int):
            return value
        from dsconvert.base.size_bounds import parse_bytes

        size = parse_bytes(value)
        if size is None:
            self.fail(f"{value!r} is not a size; write it as 512MiB or 2GiB.", param, ctx)
        return size


class Finite(click.ParamType[float]):
    """A number within bounds; NaN and infinity are none.

    Args:
        low: The least.
        high: The most.
    """

    name = "number"

    def __init__(self, low: float = -1e9, high: float = 1e9) -> None:
        self.low, self.high = low, high

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse a number."""
        number = real_number(str(value))
        if number is None or not self.low <= number <= self.high:
            self.fail(f"{value!r} is no number from {self.low:g} to {self.high:g}.", param, ctx)
        return number


class Size(click.ParamType[str]):
    """A size as people write it: 256x256 or 32x32x3; ``named``: also that of one input, NAME=HxW.

    Args:
        named: Whether the name of an input may stand before it.
    """

    name = "size"

    def __init__(self, *, named: bool = False) -> None:
        self.named = named

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it; `as_sizes` and `parse_size` read it."""
        from dsconvert.base.errors import InputError
        from dsconvert.base.input_size import as_sizes, parse_size

        try:
            as_sizes(value) if self.named else parse_size(value)
        except InputError as error:
            self.fail(f"{error.words.message} {error.words.hint}", param, ctx)
        return str(value)


def stack(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several decorators as one, the first outermost."""

    def apply(function: Command) -> Command:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def renamed(old: str, new: str) -> Callable[[Command], Command]:
    """Keep an option's old name working, hidden and with a note; place it above the new one.

    The value becomes the default of the new option, so the new name wins where both are given.
    """

    def take(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is None:
            return
        from dsconvert.base.messages import note

        note(f"{old} is called {new} now; the old name still works")
        parameter = new.removeprefix("--").replace("-", "_")
        ctx.default_map = {**(ctx.default_map or {}), parameter: value}

    return click.option(old, callback=take, expose_value=False, is_eager=True, hidden=True)


common = stack(
    recipe.option,
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-v", "--verbose", count=True, help="Log more; twice for everything."),
    click.option("-q", "--quiet", is_flag=True, help="No progress, no warnings."),
    click.option(
        "--seed",
        type=Count(0, 2**32 - 1),
        default=0,
        show_default=True,
        help="Seeds every random draw.",
    ),
)

loading = stack(
    click.option(
        "--trust", is_flag=True, help="Allow a model file to run code it carries (Lambda layers)."
    ),
    click.option(
        "--custom-objects",
        metavar="MODULE:NAME",
        help="A dictionary, class or function of yours that the model needs.",
    ),
)

input_size = click.option(
    "--input-size",
    type=Size(named=True),
    multiple=True,
    metavar="[NAME=]HxW",
    help="Fix a size that the model leaves free, e.g. 256x256; of several inputs NAME=256x256, "
    "once for each.",
)


def dequantizing(which: str) -> Callable[[Command], Command]:
    """Return the option that reads quantized files as float.

    Args:
        which: The files that are read so, for its help.
    """
    return click.option(
        "--dequantize",
        is_flag=True,
        help=f"Read {which} as the float32 model that it stands for; the loss is shown.",
    )


dequantize = dequantizing("a quantized or half-precision .onnx file")

preprocessing = stack(
    click.option("--scale", metavar="NUMBER", help="Multiply stored values, e.g. 1/255."),
    click.option("--mean", metavar="N[,N…]", help="Then subtract: one number, or one per channel."),
    click.option("--std", metavar="N[,N…]", help="Then divide by: one number, or one per channel."),
    click.option(
        "--channels-first",
        is_flag=True,
        help="Feed images as (n, C, H, W); by default only if they do not fit as stored.",
    ),
)


threads = click.option(
    "--threads", type=Count(1, 1024), default=1, show_default=True, help="Of the runtime."
)

memory = click.option(
    "--memory",
    type=Memory(),
    default="2GiB",
    show_default=True,
    help="Activations held in memory at most; more go to temporary files.",
)

max_pairs = click.option(
    "--max-pairs",
    type=PAIRS,
    default=4,
    show_default=True,
    metavar="T",
    help="Try sums of up to T pairs for each convolution.",
)

layers = stack(
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Rewrite only these layers, e.g. 'block3_*'. May be repeated.",
    ),
    click.option(
        "--exclude", multiple=True, metavar="GLOB", help="Leave these alone. May be repeated."
    ),
)


def calibration_samples(default: int) -> Callable[[Command], Command]:
    """Return the option that says how many calibration images are drawn."""
    return click.option(
        "--samples",
        type=SAMPLES,
        default=default,
        show_default=True,
        help="Draw at most so many calibration images.",
    )


METRICS = (
    "top1, top5, miou, psnr, ssim, mae, map, map50, boxes (settings: map/cxcywh), or module:name"
)
"""What ``--metric`` takes, for its help."""

overwrite = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")


def as_preprocessing(
    scale: str | None, mean: str | None, std: str | None, channels_first: bool
) -> Preprocessing | None:
    """Return the four options as one value; None where none was given."""
    if (scale, mean, std, channels_first) == (None, None, None, False):
        return None
    from dsconvert.models.data.preprocess import Preprocessing, parse_number

    def numbers(text: str | None) -> tuple[float, ...] | None:
        return None if text is None else tuple(map(parse_number, text.split(",")))

    return Preprocessing(
        scale=1.0 if scale is None else parse_number(scale),
        mean=numbers(mean),
        std=numbers(std),
        channels_first=channels_first,
    )


def output(ending: str, kind: str) -> Callable[[Command], Command]:
    """Return the option -o with its default described."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help=f"The file to write, {kind}; by default MODEL with the ending {ending}.",
    )


def opened_with(
    model: Path,
    trust: bool,
    custom_objects: str | None,
    dequantize: bool = False,
    input_size: tuple[str, ...] = (),
) -> ModelPath:
    """Return the model and the options of `loading` as one value."""
    from dsconvert.base.input_size import as_sizes

    return ModelPath(
        model,
        trust=trust,
        custom_objects=custom_objects,
        dequantize=dequantize,
        input_size=as_sizes(input_size),
    )


def beside(model: Path, keras: str, onnx: str | None = None) -> Path:
    """Return the default of -o: the model's name with an ending that may depend on its kind."""
    if onnx is None:
        return model.with_name(model.stem + keras)
    return model.with_name(model.stem + (onnx if kind_of(model) == "onnx" else keras))
