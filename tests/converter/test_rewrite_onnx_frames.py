"""ONNX networks that look at several images of each sample: frames of a clip, or regions."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import run
from onnx_nets import floats, graph, node

from dsconvert.converter.rewrite import rewrite

HEAD = [
    node("Conv", "i k", "a", pads=[1, 1, 1, 1]),
    node("Relu", "a", "r"),
    node("Conv", "r w", "c", pads=[1, 1, 1, 1]),
    node("GlobalAveragePool", "c", "p"),
]
WEIGHTS = {"k": floats(8, 4, 3, 3), "w": floats(8, 8, 3, 3, seed=1), "d": floats(8, 5, seed=2)}
CLIP = [
    node("Reshape", "x frames", "i"),
    *HEAD,
    node("Flatten", "p", "f"),
    node("Gemm", "f d", "g"),
    node("Reshape", "g clips", "s"),
    node("ReduceMean", "s", "y", axes=[1], keepdims=0),
]
REGIONS = [
    node("RoiAlign", "x boxes which", "i", output_height=4, output_width=4),
    *HEAD,
    node("Flatten", "p", "f"),
    node("Gemm", "f d", "y"),
]
NETS = {
    "clip": (CLIP, ["n", 6, 4, 8, 8],
             {"frames": np.array([-1, 4, 8, 8]), "clips": np.array([-1, 6, 5])}),
    "regions": (REGIONS, [1, 4, 12, 12],
                {"boxes": np.array([[0, 0, 8, 8], [4, 4, 11, 11]], np.float32),
                 "which": np.array([0, 0])}),
}  # fmt: skip


@pytest.mark.parametrize("which", ["Conv/c", "Conv/?"])
@pytest.mark.parametrize("kind", NETS)
def test_they_are_fitted_as_the_images_that_they_are(kind, which):
    nodes, shape, weights = NETS[kind]
    model = graph(nodes, shape, "y", **WEIGHTS, **weights)
    x = np.random.default_rng(0).normal(size=(48, *shape[1:])).astype(np.float32)
    made = rewrite(model, calibration=[x], pairs=7, include=[which])
    assert [layer.name for layer in made.report.layers if layer.pairs][-1:] == ["Conv/c"]
    wanted, got = (
        np.concatenate([run(one, [s[None]])[0] for s in x]) for one in (model, made.model)
    )
    apart = np.linalg.norm(got - wanted) / np.linalg.norm(wanted - wanted.mean(axis=0))
    assert apart < 0.2


def test_as_many_patches_of_all_frames_as_of_single_images():
    """A clip of six frames alike says what one of them says."""
    still = np.random.default_rng(0).normal(size=(32, 1, 4, 8, 8)).astype(np.float32)
    nodes, shape, weights = NETS["clip"]
    clip = graph(nodes, shape, "y", **WEIGHTS, **weights)
    one = dict(weights, clips=np.array([-1, 1, 5]))
    image = graph(nodes, ["n", 1, 4, 8, 8], "y", **WEIGHTS, **one)
    made = rewrite(clip, calibration=[np.repeat(still, 6, axis=1)], pairs=2, include=["Conv/c"])
    alone = rewrite(image, calibration=[still], pairs=2, include=["Conv/c"])
    errors = [layer.data_error for x in (made, alone) for layer in x.report.layers if layer.pairs]
    np.testing.assert_allclose(*errors, rtol=0.1)
