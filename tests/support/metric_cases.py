"""Metrics of made-up outputs."""

from __future__ import annotations

import numpy as np
import pytest

from dsconvert.base.errors import InputError
from dsconvert.models.evaluation.metrics import Answers, find_metric, value_of

N = 60


def value(name, outputs, labels=None, inputs=None, references=None, **how):
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    inputs = np.zeros((len(outputs[0]), 64, 48, 3), np.float32) if inputs is None else inputs
    return value_of(
        find_metric(name), Answers((inputs,), outputs, labels, references, "d.npz"), **how
    )


def code_of(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return caught.value.code
