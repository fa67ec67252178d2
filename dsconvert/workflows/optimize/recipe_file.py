"""The recipe of a run, with every value that it was made with."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import tomli_w

from dsconvert.base.input_size import size_words

from ..command_words import number_word

if TYPE_CHECKING:
    from dsconvert.models.data.preprocess import Preprocessing

    from .work import Work

HEAD = "# dsconvert recipe: dsconvert optimize --recipe THIS_FILE does the same again.\n\n"


def recipe_text(work: Work, preprocessing: Preprocessing | None) -> str:
    """Return the recipe that makes the same run again, as TOML.

    Args:
        work: The run.
        preprocessing: What is done to stored images.
    """
    options = work.options
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    shared: dict[str, Any] = {"model": work.opened.told, "data": work.images.source}
    shared["seed"] = given.pop("seed")
    loading = work.opened.loading
    if loading is not None and loading.trust:
        shared["trust"] = True
    if loading is not None and isinstance(loading.custom_objects, str):
        shared["custom_objects"] = loading.custom_objects
    given["dequantize"] = work.opened.dequantized
    given["input_size"] = size_words(loading.input_size) if loading is not None else []
    given["formats"] = ",".join(options.formats_for(work.opened.kind))
    given["output"] = str(work.folder)
    said = {
        name: _plain(value) for name, value in given.items() if value not in (None, (), [], False)
    }
    tables: dict[str, Any] = {**shared}
    if preprocessing is not None and not preprocessing.does_nothing:
        tables["preprocessing"] = preprocessing_table(preprocessing)
    tables["optimize"] = said
    return HEAD + tomli_w.dumps(tables)


def preprocessing_table(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return what is done to images as a recipe says it."""
    found: dict[str, Any] = {}
    if preprocessing.scale != 1:
        found["scale"] = number_word(preprocessing.scale)
    for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if values is not None:
            found[name] = list(values)
    if preprocessing.channels_first:
        found["channels_first"] = True
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
