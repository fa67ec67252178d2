from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from dsconvert.base.tables import Block, Shown

from . import options, recipe, terminal

_HEAD = """\
A recipe for dsconvert. Every command reads it, and takes from it what is not given on the
command line: dsconvert optimize --recipe {name}
Lines that begin with # say what a setting does, or are settings at their defaults.
Paths are relative to the folder in which a command is run, as on the command line.
"""
_FIRST = "optimize"


@dataclass
class WrittenRecipe(Shown):
    """A recipe that was written.

    Attributes:
        schema: Name and version of this record.
        path: The file.
        model: The model that it names.
    """

    schema: str = field(default="dsconvert.recipe/1", kw_only=True)
    path: str
    model: str

    def blocks(self) -> Iterator[Block]:
        """Yield the file."""
        yield f"{self.path}: a recipe for {self.model}, with every setting and what it does"


def next_command(result: WrittenRecipe) -> Iterator[str]:
    """Yield how to use the recipe."""
    yield f"next: name your images as data in {result.path}, then:"
    yield f"      dsconvert optimize --recipe {result.path}"


@click.command()
@click.argument("model", type=options.MODEL)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("recipe.toml"),
    show_default=True,
    help="The .toml file to write.",
)
@click.option("--data", metavar="DATA", default="DATA.npz", help="The images to name in it.")
@options.overwrite
@options.preprocessing
@options.common
@terminal.speaks(next_command)
def init(
    model: Path,
    output: Path,
    data: str,
    overwrite: bool,
    seed: int,
    scale: str | None,
    mean: str | None,
    std: str | None,
    channels_first: bool,
) -> WrittenRecipe:
    """Write a recipe for MODEL: every setting of every command.

    What each setting does stands beside it.

    \b
      dsconvert init model.h5 --data images.npz --scale 1/255
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.base.files import replacing
    from dsconvert.workflows.model_files import refuse_absent
    from dsconvert.workflows.outputs import place

    refuse_absent(model)
    place(model, output, overwrite=overwrite, allowed=(".toml",))
    prepare = {"scale": scale, "mean": mean, "std": std, "channels_first": channels_first or None}
    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group), "commands are below dsconvert"
    said: dict[str, Any] = {"model": str(model), "data": data, "seed": seed}
    text = "".join(_lines(group, output, said, prepare))
    with replacing(output, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return WrittenRecipe(str(output), str(model))


def _lines(
    group: click.Group, output: Path, said: dict[str, Any], prepare: dict[str, Any]
) -> Iterator[str]:
    yield _comment(_HEAD.format(name=output))
    for name, about in recipe.SHARED.items():
        yield _setting(name, about, said.get(name), _DEFAULTS.get(name, ""))
    yield f"\n[{recipe.PREPROCESSING}]\n"
    known = recipe.settings_of(group.commands[_FIRST])
    for name, value in prepare.items():
        option = known[name]
        yield _setting(name, getattr(option, "help", "") or "", value, _EXAMPLES[name])
    first = {_FIRST: group.commands[_FIRST]}
    for title, command in {**first, **group.commands}.items():
        settings = _own_settings(command)
        if not settings or title == "init":
            continue
        yield f"\n[{title}]\n{_comment(command.get_short_help_str(200))}"
        for name, param in settings.items():
            about = getattr(param, "help", None) or ""
            yield _setting(name, about, None, _default(param))


def _own_settings(command: click.Command) -> dict[str, click.Parameter]:
    """Return what is a command's own: neither shared nor about images."""
    known = recipe.settings_of(command)
    shared = {*recipe.SHARED, *_EXAMPLES}
    return {name: param for name, param in known.items() if name not in shared}


_EXAMPLES: dict[str, Any] = {
    "scale": "1/255",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "channels_first": False,
}
_DEFAULTS: dict[str, Any] = {"device": "host", "threads": 1, "trust": False}


def _default(param: click.Parameter) -> Any:
    """Return the default as a recipe would say it; an empty text where there is none."""
    given = param.to_info_dict().get("default")
    if param.multiple and not given:
        return []
    if isinstance(given, tuple | list):
        return [str(one) for one in given]
    if isinstance(given, bool | int | float | str):
        return given
    return False if getattr(param, "is_flag", False) else str(given or "")


def _setting(name: str, about: str, value: Any, default: Any) -> str:
    """Return a setting with what it does, commented out if it is not given."""
    import tomli_w

    given = value is not None
    shown = value if given else default
    if isinstance(shown, list):  # on one line
        items = [tomli_w.dumps({"x": one}).removeprefix("x = ").strip() for one in shown]
        line = f"{name} = [{', '.join(items)}]"
    else:
        line = tomli_w.dumps({name: shown}).strip()
    return f"\n{_comment(about)}{line if given else f'# {line}'}\n"


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, 96) if line)
