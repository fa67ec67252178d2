"""Whatever judges outputs sees the scores of a detector beside its boxes of 640 pixels.

One head, (n, 10): four coordinates of 0 … 640 and six scores of 0 … 1. Over all of it an SQNR of
40 dB and more says nothing of the scores, and each place that decides by outputs must see them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy_network import EVERYTHING, HELD_OUT, Network, layer, smooth_images
from onnx import TensorProto, helper, numpy_helper

import dsconvert as ds
from dsconvert.base.fidelity import compare_output, output_error
from dsconvert.converter.core.network.sensitivity import measure_effects
from dsconvert.converter.core.types import Choice
from dsconvert.deploy.exporting.held_out import HeldOut
from dsconvert.deploy.exporting.improve import Improvement, improve
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.deploy.verification.device_outputs import wrong_answer
from dsconvert.deploy.verification.gate import judge

IMAGES = np.random.default_rng(1).normal(size=(80, 8)).astype(np.float32)
QUIET = Improvement(equalize="off", correct_biases=False, outputs="keep")


def head(box_factor: float = 1.0, score_factor: float = 1.0) -> onnx.ModelProto:
    """Boxes and scores, each times a factor that is 1 where they are right."""
    rng = np.random.default_rng(0)
    weights = {"box.w": rng.normal(0, 0.2, (8, 4)), "score.w": rng.normal(0, 0.7, (8, 6))}
    weights |= {"pixels": np.array(640 * box_factor), "unit": np.array(score_factor)}
    nodes = [
        helper.make_node("MatMul", ["image", "box.w"], ["box"], name="box"),
        helper.make_node("MatMul", ["image", "score.w"], ["score"], name="score"),
        helper.make_node("Sigmoid", ["box"], ["parts"]),
        helper.make_node("Sigmoid", ["score"], ["likely"]),
        helper.make_node("Mul", ["parts", "pixels"], ["boxes"]),
        helper.make_node("Mul", ["likely", "unit"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["detections"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("detections", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """The head, one with scores of zero, and one of which all is a little wrong."""
    folder = tmp_path_factory.mktemp("heads")
    made = {"sound": (1, 1), "dead": (1, 0), "noisy": (0.99, 0.98)}
    for name, factors in made.items():
        onnx.save(head(*factors), folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in made}


@pytest.fixture(scope="module")
def outputs(files) -> dict[str, np.ndarray]:
    found = {name: open_runtime(path).predict([IMAGES])[0] for name, path in files.items()}
    figures = {name: compare_output("y", found["sound"], y) for name, y in found.items()}
    # Over the whole output the file with dead scores is the better one, and a very good one.
    assert figures["dead"].sqnr_db > 50 > figures["noisy"].sqnr_db > 30
    assert figures["dead"].worst_db < 1 < 30 < figures["noisy"].worst_db
    return found


@pytest.mark.usefixtures("outputs")
class TestFiles:
    def test_verify(self, files):
        found = ds.verify(files["sound"], files["dead"], data=IMAGES)

        assert not found.passed
        assert any("channels 4–9" in text for text in found.failures)

    def test_gate_of_export(self, files, outputs):
        given = (["detections"], [outputs["sound"]], [IMAGES], "int8")

        assert judge(files["dead"], *given).failures
        assert not judge(files["sound"], *given).failures

    def test_evaluate(self, files):
        found = ds.evaluate(files["dead"], IMAGES, reference=files["sound"])

        assert found.fidelity[0].worst.channels == ((4, 9),)
        assert found.fidelity[0].worst_db < 1

    def test_outputs_of_a_device(self, files, outputs):
        infos = open_runtime(files["sound"]).outputs

        assert not wrong_answer(files["sound"], infos, [outputs["sound"]], [outputs["sound"]])
        assert "channels 4–9" in wrong_answer(
            files["sound"], infos, [outputs["sound"]], [outputs["dead"]]
        )


@dataclass
class Builder:
    """Hands out ready files in place of int8 ones."""

    files: dict[str, Path]
    plain: str = "dead"
    suffix: str = ".onnx"
    method: str = "minmax"
    floats: list[tuple[str, ...]] = field(default_factory=list)

    def write(self, path, in_float=()):
        self.floats.append(tuple(in_float))
        shutil.copyfile(self.files["noisy" if "score" in in_float else self.plain], path)
        return ()

    def write_float(self, path):
        shutil.copyfile(self.files["sound"], path)

    def equalized(self):
        return Builder(self.files, "noisy"), ()

    def with_float_tail(self, samples):
        return None

    def otherwise(self):
        return None

    def corrected(self, full, quantized, path):
        shutil.copyfile(self.files["noisy"], path)
        return 1


class TestChoicesOfExport:
    """Each choice is between dead scores, and all a little wrong: the latter is right."""

    @pytest.mark.parametrize(
        ("wish", "note"),
        [
            ({"equalize": "auto"}, "cross-layer equalization kept"),
            ({"correct_biases": True}, "bias correction of 1 layers kept"),
            ({"keep_float": "auto", "min_sqnr_db": 20.0}, "1 layers in float: score"),
        ],
        ids=["equalization", "bias correction", "keep-float"],
    )
    def test_it_is_kept(self, files, outputs, tmp_path, wish, note):
        path = tmp_path / "chosen.onnx"
        held_out = HeldOut((IMAGES,), (outputs["sound"],))
        options = {"equalize": "off", "correct_biases": False, "outputs": "keep", **wish}
        done = improve(Builder(files), path, held_out, Improvement(**options))

        assert any(text.startswith(note) for text in done.notes), done.notes
        assert path.read_bytes() == files["noisy"].read_bytes()


def test_output_error_of_plans_and_fits(outputs):
    dead, noisy = (output_error([outputs["sound"]], [outputs[name]]) for name in ("dead", "noisy"))

    assert dead > 0.4 > 100 * noisy


def test_planner():
    """Two layers alike, one of which makes boxes and the other scores, count alike."""

    def joined(boxes, scores):
        return np.concatenate([640 * boxes, scores], axis=-1)

    both = {name: layer(name, 3, (3, 3, 4, 4)) for name in ("boxes", "scores")}
    network = Network(both, [("boxes", 0), ("scores", 0), (joined, 1, 2)])
    choice = Choice(pairs=1, order="depthwise-first")
    found = measure_effects(
        network, [smooth_images()], HELD_OUT, dict.fromkeys(both, (choice,)), EVERYTHING
    )
    boxes, scores = (found[name, choice].output_error for name in both)

    assert scores == pytest.approx(boxes, rel=0.1)  # of 1/640² over the whole output
    assert scores > 1e-3


def test_regression_loss_of_finetuning(outputs):
    keras = pytest.importorskip("keras")
    from dsconvert.models.training.distill import objectives

    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    (objective,) = objectives(teacher, [outputs["sound"]], 1.0, 0.0)
    r = outputs["sound"]
    still = np.broadcast_to(r.mean(axis=0), r.shape)  # of no information
    boxes, scores = (
        float(np.mean(np.asarray(objective.loss(r, np.where(which, still, r)))))
        for which in (np.arange(10) < 4, np.arange(10) >= 4)
    )

    assert scores == pytest.approx(boxes, rel=0.3)
