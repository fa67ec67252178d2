"""Known defects planted into sound files, one at a time: all are refused, the sound files pass."""

from __future__ import annotations

import onnx
import planted_defects
import pytest
import small_networks


@pytest.fixture(scope="module", params=small_networks.NAMES)
def network(request):
    return small_networks.network(request.param)


def refusals(network, outputs, quantize, file=None):
    references = small_networks.run(network.model, network.inputs)
    return planted_defects.refusals(network, references, outputs, quantize, file)


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int8"])
def test_sound_files_pass(network, precision, tmp_path):
    path = network.write(tmp_path, precision)
    outputs = small_networks.run(path, network.inputs)
    quantize = "none" if precision == "float32" else precision

    assert refusals(network, outputs, quantize, onnx.load(path)) == ()


def test_planted_defects_are_refused(network, tmp_path):
    path = network.write(tmp_path, "int8")
    planted = list(planted_defects.plant(network, path))
    passed = [one.defect for one in planted if not refusals(network, one.outputs, "int8", one.file)]

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


def test_a_zero_point_that_errors_of_rounding_hide(tmp_path):
    """Its outputs alone pass: each logit of this poor file has an offset of its own."""
    network = small_networks.network("multiple", 3)
    planted = planted_defects.plant(network, network.write(tmp_path, "int8"))
    one = next(one for one in planted if one.defect == "zero point off by 8")

    assert refusals(network, one.outputs, "int8") == ()
    (told,) = refusals(network, one.outputs, "int8", one.file)
    assert told.startswith("kind: the integers of")
