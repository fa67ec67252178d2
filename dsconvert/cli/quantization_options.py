"""The options that make int8 files better."""

from __future__ import annotations

from typing import Any

import click

from dsconvert.base.number_words import whole_number

from . import options

_MOST = 10**6 - 1
"""Layers."""


class _Count(click.ParamType[Any]):
    """How many layers, or "auto"."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse it."""
        if value == "auto" or isinstance(value, int):
            return value
        number = whole_number(value)
        if number is None or not 0 <= number <= _MOST:
            self.fail(f"{value!r} is neither a number of layers nor auto.", param, ctx)
        return number


choices = options.stack(
    options.renamed("--gauge", "--equalize"),
    click.option(
        "--equalize",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Equal ranges for the channels inside each pair of an int8 file: where that helps.",
    ),
    click.option(
        "--bias-correction/--no-bias-correction",
        "correct_biases",
        default=True,
        help="Let biases of int8 files make up for shifted means, where that helps.",
    ),
    click.option(
        "--refine-int8",
        is_flag=False,
        flag_value="60",
        metavar="[SECONDS]",
        help="Choose on the calibration images which way each weight of an int8 .tflite file is "
        "rounded, where that helps: 60 seconds, or as many as given, or 400steps.",
    ),
    click.option(
        "--keep-float",
        type=_Count(),
        default=0,
        help="Leave the N layers that lose most in int8 in float; auto: as many as --min-sqnr or "
        "--max-drop needs.",
    ),
    click.option("--min-sqnr", type=options.Finite(), metavar="DB", help="For --keep-float auto."),
    click.option(
        "--max-drop",
        metavar="DROP",
        help="For --keep-float auto: 1% of --metric on --test-data, or 0.5 in its unit.",
    ),
    click.option("--test-data", metavar="DATA", help="Labelled images for --max-drop."),
    click.option(
        "--metric",
        default="top1",
        show_default=True,
        metavar="METRIC",
        help=f"For --max-drop: {options.METRICS}.",
    ),
    click.option(
        "--outputs",
        type=click.Choice(["auto", "keep", "split", "float-tail"]),
        default="auto",
        show_default=True,
        help="Int8 outputs that mix scales (boxes and scores): keep them, split them into what the "
        "last operators join, or leave those operators in float; auto: what is good enough.",
    ),
    click.option("--report", is_flag=True, help="Show what each layer of an int8 file loses."),
)
