"""Known defects planted into sound files, one at a time: all are refused, the sound files pass."""

from __future__ import annotations

import planted_defects
import pytest
import small_networks

from dsconvert.base.output_fidelity import failures, find_all, measure_all
from dsconvert.deploy.schemes import SCHEMES


@pytest.fixture(scope="module", params=small_networks.NAMES)
def network(request):
    return small_networks.network(request.param)


def refusals(network, outputs, quantize):
    references = small_networks.run(network.model, network.inputs)
    measures = measure_all(network.outputs, references, outputs, [network.inputs])
    return failures(find_all(measures, SCHEMES[quantize].tolerance))


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int8"])
def test_sound_files_pass(network, precision, tmp_path):
    outputs = small_networks.run(network.write(tmp_path, precision), network.inputs)
    quantize = "none" if precision == "float32" else precision

    assert refusals(network, outputs, quantize) == ()


def test_planted_defects_are_refused(network, tmp_path):
    path = network.write(tmp_path, "int8")
    planted = list(planted_defects.plant(network, path))
    passed = [one.defect for one in planted if not refusals(network, one.outputs, "int8")]

    assert len(planted) >= 18
    assert passed == []


def test_every_defect_is_planted_somewhere(tmp_path):
    seen = {
        one.defect
        for name in small_networks.NAMES
        for network in [small_networks.network(name)]
        for one in planted_defects.plant(network, network.write(tmp_path, "int8"))
    }

    assert len(seen) >= 24
    assert seen == set(planted_defects.defects())
