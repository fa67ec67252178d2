"""Texts for the command line, as Python users read them."""

from __future__ import annotations

import logging

import pytest

from dsconvert.base.errors import GateFailed, InputError, MissingExtra
from dsconvert.base.messages import LOGGER, note
from dsconvert.base.option_words import as_arguments


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ("Add --calibration FILE.npz, or use --method svd.",
         "Add calibration='FILE.npz', or use method='svd'."),
        ("Read it: dsconvert export m.onnx --dequantize",
         "Read it: ds.export(ds.load('m.onnx', dequantize=True))"),
        ("add --dequantize, or not", "add dequantize=True, or not"),
        ("Leave --keep-float and --cpus out.", "Leave keep_float and cpus out."),
        ("write the file unverified with --no-verify.",
         "write the file unverified with verify=False."),
        ("Try: --pairs 1", "Try: pairs=1"),
        ("Write --target-latency 0.5x.", "Write latency='0.5x'."),
        ("Try: -o out/small.keras", "Try: output='out/small.keras'"),
        ("Add --data DATA.npz --labels.", "Add data='DATA.npz', labels=True."),
        ("Try: dsconvert export MODEL -o x.tflite --quantize int8 --calibration DATA.npz "
         "(or --allow-random, for a trial)",
         "Try: ds.export('MODEL', output='x.tflite', quantize='int8', calibration='DATA.npz') "
         "(or allow_random=True, for a trial)"),
        ("Ask for less; dsconvert sweep shows more.", "Ask for less; ds.sweep shows more."),
        ("Save one with: dsconvert profile FILES --json > run.json",
         "Save one with: ds.profile(FILES).save('run.json')"),
        ("use --custom-objects package.module:name", "use custom_objects='package.module:name'"),
        ("Say which: --device adb:R5CR1.", "Say which: device='adb:R5CR1'."),
        ("python -m tf2onnx.convert --saved-model a --output model.onnx",
         "python -m tf2onnx.convert --saved-model a --output model.onnx"),
        ("pre-trained — in-between -- x-o", "pre-trained — in-between -- x-o"),
    ],
)  # fmt: skip
def test_options_become_arguments(options, arguments):
    assert as_arguments(options) == arguments


def test_an_error_speaks_both_ways():
    error = InputError("no images", "Add --calibration DATA.npz.", code="needs-calibration")
    assert (error.code, error.exit_code) == ("needs-calibration", 2)
    assert error.words.hint == "Add --calibration DATA.npz."
    assert error.hint == "Add calibration='DATA.npz'."
    assert str(error) == "no images\nAdd calibration='DATA.npz'."
    error.add_hint("Or --method svd.")
    assert error.words.hint == "Add --calibration DATA.npz. Or --method svd."


def test_every_class_has_a_code():
    codes = {error("").code for error in (InputError, MissingExtra, GateFailed)}
    assert codes == {"invalid-input", "missing-extra", "gate-failed"}


def test_a_note_speaks_both_ways():
    seen = []
    handler = logging.Handler()
    handler.emit = seen.append
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    try:
        note("compared on random inputs: --data")
    finally:
        logger.removeHandler(handler)
    (record,) = seen
    assert record.getMessage() == "compared on random inputs: data"
    assert record.options == "compared on random inputs: --data"
