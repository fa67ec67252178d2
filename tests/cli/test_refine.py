"""export with what makes int8 files better, on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from dsconvert.cli import main
from dsconvert.converter.rewrite import rewrite


@pytest.fixture(scope="module")
def folder(digits_cnn, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("refine")
    images, labels = digits
    rewrite(digits_cnn, calibration=images[:300], pairs=1).model.save(folder / "small.keras")
    np.savez(
        folder / "digits.npz", x_train=images[:1200], x_test=images[1200:], y_test=labels[1200:]
    )
    return folder


def export(folder, *chosen: str):
    command = ["export", str(folder / "small.keras"), "-o", str(folder / "out.tflite")]
    data = ("--calibration", str(folder / "digits.npz"), "--samples", "100", "--overwrite")
    return CliRunner().invoke(main, [*command, *data, *chosen])


@pytest.mark.slow
def test_an_accuracy_decides_how_many_layers_stay_in_float_and_the_report_shows_them(folder):
    goal = ("--keep-float", "auto", "--max-drop", "1%", "--test-data", str(folder / "digits.npz"))
    result = export(folder, "--quantize", "int8", "--report", "--json", *goal)
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert any("layers in float" in note for note in record["notes"])
    assert len(record["layers"]["layers"]) == 9
    assert "top-1" in result.stderr
    shown = export(folder, "--quantize", "int8", "--report")
    assert shown.stdout.count("worst five") == 5
    assert "cross-layer equalization" in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (["--report"], "--quantize int8"),
        (["--quantize", "int8", "--keep-float", "auto"], "--min-sqnr"),
        (["--quantize", "int8", "--min-sqnr", "20"], "--keep-float auto"),
        (["--quantize", "int8", "--keep-float", "auto", "--max-drop", "1%"], "--test-data"),
        (["--quantize", "int8", "--keep-float", "many"], "neither a number of layers nor auto"),
        (["--quantize", "float16", "--outputs", "split"], "--quantize int8"),
        (["--quantize", "int8", "--outputs", "float-tail"], "mixes scales"),
        (["--quantize", "int8", "--report", "--no-verify"], "images to measure on"),
        (["--quantize", "int8", "--keep-float", "99"], "cannot be left in float"),
    ],
)
def test_what_contradicts_itself_is_refused(folder, chosen, told):
    result = export(folder, *chosen)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize(
    ("words", "tried"),
    [
        (["--gauge", "on"], True),
        (["--gauge", "off"], False),
        (["--gauge", "off", "--equalize", "on"], True),  # the new name wins
    ],
)
def test_the_old_name_of_equalize_still_works_with_a_note(words, tried):
    import click

    from dsconvert.cli.quantization_options import choices

    @click.command()
    @choices
    def command(equalize: str, **rest: object) -> None:
        click.echo(equalize)

    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert result.stdout == ("on\n" if tried else "off\n")
    assert "--gauge" not in CliRunner().invoke(command, ["--help"]).output
