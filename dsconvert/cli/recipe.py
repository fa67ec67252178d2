"""Recipes: what the command line can say, written once for all commands.

What a recipe may hold is read from the commands themselves, so a new option is in it at once. Keys
are the long options with underscores, one table per command; what all commands share is at the top,
and what is done to images in [preprocessing]. The command line wins over the recipe.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from dsconvert.base.files import read_whole

from .terminal import one_line

SHARED = {
    "model": "The model file.",
    "data": "Images: an .npz file, a folder, or module:function.",
    "device": "Where files run: host, ssh:pi@board, adb, ethos-u55-128, …",
    "threads": "Of the runtime.",
    "seed": "Seeds every draw.",
    "trust": "Allow a model file to run code it carries (Lambda layers).",
    "custom_objects": "A dictionary, class or function of yours that the model needs: module:name.",
}
"""What every command takes from the top of a recipe, if it has such an option."""
PREPROCESSING = "preprocessing"
_PREPARE = ("scale", "mean", "std", "channels_first")
_NOT_IN_RECIPES = ("help", "json", "quiet", "recipe", "verbose", "version")
Recipe = Mapping[str, Any]


def settings_of(command: click.Command) -> dict[str, click.Parameter]:
    """Return what a recipe may say of a command: by the names of its arguments and long options."""
    found: dict[str, click.Parameter] = {}
    for param in command.params:
        if getattr(param, "hidden", False):
            continue
        name = key_of(param)
        if name not in _NOT_IN_RECIPES:
            found[name] = param
    return found


def key_of(param: click.Parameter) -> str:
    """Return what a recipe calls an argument or an option."""
    longest = max(param.opts, key=len)
    return longest.removeprefix("--").replace("-", "_")


def take(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Make a recipe's values the defaults of the command that is being read."""
    del param
    if path is None:
        return
    group = ctx.find_root().command
    assert isinstance(group, click.Group), "commands are below dsconvert"
    recipe = read(path)
    wrong = list(faults(recipe, group.commands, ctx))
    if wrong:
        lines = "\n".join(f"  {one_line(fault)}" for fault in wrong)
        count = f"{len(wrong)} fault{'s' if len(wrong) > 1 else ''}"
        raise click.UsageError(f"{path}: {count}:\n{lines}", ctx)
    ctx.default_map = {**(ctx.default_map or {}), **defaults_for(ctx.command, recipe)}


def read(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        UsageError: If it cannot be read, or is no TOML.
    """
    try:
        found: Recipe = tomllib.loads(read_whole(path).decode())
    except OSError as error:
        raise click.UsageError(
            f"{path}: {error.strerror}. Make one: dsconvert init MODEL -o {path}"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise click.UsageError(f"{path} is no TOML: {error}") from error
    return found


def faults(
    recipe: Recipe, commands: Mapping[str, click.Command], ctx: click.Context
) -> Iterator[str]:
    """Find all that is wrong with a recipe.

    Args:
        recipe: As it was read.
        commands: All commands, by name.
        ctx: To convert values in.
    """
    known = {name: settings_of(command) for name, command in commands.items()}
    tables = [*known, PREPROCESSING]
    for name, value in recipe.items():
        if isinstance(value, dict):
            if name == PREPROCESSING:
                yield from _prepare_faults(value)
            elif name in known:
                yield from _table_faults(name, value, known[name], ctx)
            else:
                yield f"[{name}]: no such command{_meant(name, tables)}"
        elif name not in SHARED:
            yield f"{name}: no such setting{_meant(name, [*SHARED, *tables])}"
        else:
            yield from _value_faults(name, value, _any_with(name, known), ctx)


def defaults_for(command: click.Command, recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's values for one command, by its parameters' names.

    Args:
        command: The command.
        recipe: One without faults.
    """
    known = settings_of(command)
    said = {name: value for name, value in recipe.items() if name in SHARED}
    data = said.pop("data", None)
    if data is not None:  # of commands that have both, --data has another purpose
        said["calibration" if "calibration" in known else "data"] = data
    said |= recipe.get(PREPROCESSING, {})
    said |= recipe.get(command.name or "", {})
    return {
        str(known[name].name): _as_words(value, known[name])
        for name, value in said.items()
        if name in known
    }


def _table_faults(
    table: str, said: Recipe, known: Mapping[str, click.Parameter], ctx: click.Context
) -> Iterator[str]:
    for name, value in said.items():
        if name not in known:
            yield f"{table}.{name}: no such setting{_meant(name, known)}"
        else:
            yield from _value_faults(f"{table}.{name}", value, known[name], ctx)


def _prepare_faults(said: Recipe) -> Iterator[str]:
    from dsconvert.base.errors import DsconvertError

    from .options import as_preprocessing

    for name in said:
        if name not in _PREPARE:
            yield f"{PREPROCESSING}.{name}: no such setting{_meant(name, _PREPARE)}"
    for name in _PREPARE:
        if name not in said:
            continue
        if name == "channels_first":
            if not isinstance(said[name], bool):
                yield f"{PREPROCESSING}.{name}: {said[name]!r} is neither true nor false"
            continue
        words: dict[str, Any] = dict.fromkeys(_PREPARE[:3])
        try:
            as_preprocessing(**{**words, name: _listed(said[name])}, channels_first=False)
        except DsconvertError as error:
            yield f"{PREPROCESSING}.{name}: {error.message}"


def _value_faults(
    told: str, value: Any, param: click.Parameter, ctx: click.Context
) -> Iterator[str]:
    """Find what is wrong with one value, as the command line would."""
    if _is_flag(param):
        if not isinstance(value, bool):
            yield f"{told}: {value!r} is neither true nor false"
        return
    if isinstance(value, bool | dict):
        yield f"{told}: {value!r} is no value for it"
        return
    words = _as_words(value, param)
    for word in words if isinstance(words, list) else [words]:
        try:
            if "\0" in str(word):
                raise click.BadParameter("no path and no name has a NUL character.")
            param.type.convert(word, param, ctx)
        except click.BadParameter as error:
            yield f"{told}: {error.message}"


def _as_words(value: Any, param: click.Parameter) -> Any:
    """Return a value as the command line would give it."""
    if _is_flag(param):
        return value
    if param.multiple or param.nargs != 1:
        return [str(one) for one in value] if isinstance(value, list) else [str(value)]
    return _listed(value)


def _listed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_flag(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and param.is_flag


def _any_with(name: str, known: Mapping[str, Mapping[str, click.Parameter]]) -> click.Parameter:
    """Return an argument or option of that name; all commands read it alike."""
    return next(settings[name] for settings in known.values() if name in settings)


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


option = click.option(
    "--recipe",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=take,
    expose_value=False,
    is_eager=True,
    help="Take what is not given here from a recipe: see dsconvert init.",
)
