"""Task metrics: each against its definition, written out here or computed by another library."""

from __future__ import annotations

import sys

import coloured_shapes
import numpy as np
import onnx
import pytest
import small_networks
from metric_cases import N, code_of, value

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import wilson
from dsconvert.models.data.datasets import Data
from dsconvert.models.evaluation.evaluate import evaluate
from dsconvert.models.evaluation.metrics import METRICS, find_metric


class TestClasses:
    def test_top1_and_top5(self, rng):
        scores, labels = rng.random((300, 8)), rng.integers(0, 8, 300)
        ranks = (-scores).argsort(axis=1)
        for name, k in (("top1", 1), ("top5", 5)):
            right = int((ranks[:, :k] == labels[:, None]).any(axis=1).sum())
            found, expected = value(name, scores, labels), wilson(right, 300)
            assert (found.value, found.low, found.high) == (
                expected.value,
                expected.low,
                expected.high,
            )
            assert found.interval == "wilson"

    def test_five_classes_have_no_top5(self, rng):
        found = value("top5", rng.random((9, 5)), rng.integers(0, 5, 9))
        assert found.value is None
        assert "5 classes" in found.reason

    def test_the_output_of_scores_is_found(self, rng):
        labels = rng.integers(0, 3, 9)
        assert value("top1", (rng.random((9, 4, 4, 3)), np.eye(3)[labels]), labels).value == 1

    @pytest.mark.parametrize(
        ("outputs", "labels", "code"),
        [
            (np.zeros((4, 3)), None, "needs-labels"),
            (np.zeros((4, 3)), np.zeros((4, 2), np.float32), "no-class-labels"),
            (np.zeros((4, 3)), np.array([0, 1, 2, 3]), "labels-out-of-range"),
            (np.zeros((4, 3, 3)), np.array([0, 1, 2, 2]), "no-accuracy"),
        ],
    )
    def test_what_is_refused(self, outputs, labels, code):
        assert code_of(lambda: value("top1", outputs, labels)) == code


class TestSegments:
    def test_by_definition(self, rng):
        labels, scores = rng.integers(0, 4, (9, 6, 5)), rng.random((9, 6, 5, 4))
        labels[0, :2] = 255
        named, valid = scores.argmax(-1), labels != 255
        expected = [
            np.sum((named == c) & (labels == c) & valid)
            / np.sum(((named == c) | (labels == c)) & valid)
            for c in range(4)
        ]
        stored = labels.astype(np.float32)  # as data sets are loaded
        for outputs, truth in ((scores, stored), (scores.transpose(0, 3, 1, 2), stored[..., None])):
            found = value("miou", outputs, truth)
            assert found.value == pytest.approx(np.mean(expected), rel=1e-12)
            assert found.low < found.value < found.high

    def test_another_label_is_ignored(self, rng):
        labels = np.zeros((2, 4, 4))
        labels[:, 0] = 7
        outputs = np.zeros((2, 4, 4, 3))
        assert value("miou/ignore=7", outputs, labels).value == 1
        assert code_of(lambda: value("miou", outputs, labels)) == "labels-out-of-range"
        assert value("miou/ignore=0", outputs, np.zeros((2, 4, 4))).value is None

    @pytest.mark.parametrize("scale", [1.0, 20.0])
    def test_a_mask_is_a_probability_or_a_logit(self, rng, scale):
        truth = rng.integers(0, 2, (5, 4, 4))
        mask = np.where(truth, 0.9, 0.2) if scale == 1 else np.where(truth, 0.3, -8.0)
        assert value("miou", mask[:, None], truth).value == 1

    def test_another_size_is_refused(self, rng):
        assert code_of(lambda: value("miou", np.zeros((2, 4, 4, 3)), np.zeros((2, 8, 8)))) == (
            "labels-do-not-fit"
        )


class TestImages:
    def test_psnr_by_definition(self, rng):
        truth = rng.random((8, 16, 16, 3)).astype(np.float32)
        noisy = truth + rng.normal(0, 0.05, truth.shape)
        mse = np.square(np.float64(truth) - noisy).mean(axis=(1, 2, 3))
        found = value("psnr", noisy.transpose(0, 3, 1, 2), truth)
        assert found.value == pytest.approx(np.mean(-10 * np.log10(mse)), rel=1e-9)
        assert value("psnr", noisy * 255, truth * 255).value == pytest.approx(found.value, abs=1e-4)
        twice = value("psnr/peak=2", noisy, truth).value
        assert twice == pytest.approx(found.value + 20 * np.log10(2))
        assert value("psnr", truth, truth).value == 100

    def test_ssim_by_definition(self, rng):
        """Every window of 11×11 pixels by itself, weighted by a Gaussian of σ = 1.5."""
        r = rng.random((2, 15, 14, 2))
        y = np.clip(r + rng.normal(0, 0.1, r.shape), 0, 1)
        line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
        weights = np.outer(line, line) / line.sum() ** 2
        c1, c2 = 0.01**2, 0.03**2
        scores = []
        for one, other in zip(r, y, strict=True):
            for i, j, c in np.ndindex(5, 4, 2):
                a, b = (image[i : i + 11, j : j + 11, c] for image in (one, other))
                m, n = (weights * a).sum(), (weights * b).sum()
                v, w = (weights * (a - m) ** 2).sum(), (weights * (b - n) ** 2).sum()
                both = (weights * (a - m) * (b - n)).sum()
                top = (2 * m * n + c1) * (2 * both + c2)
                scores.append(top / ((m**2 + n**2 + c1) * (v + w + c2)))
        assert value("ssim", y, r).value == pytest.approx(np.mean(scores), rel=1e-9)
        assert value("ssim", r, r).value == pytest.approx(1)

    def test_mae_is_better_when_less(self, rng):
        truth = rng.random(7).astype(np.float32)
        found = value("mae", (truth + np.float32(0.25))[:, None], truth)
        assert found.value == pytest.approx(0.25, rel=1e-6)
        assert not found.larger_is_better
        assert found.low == pytest.approx(0.25, rel=1e-6)

    def test_the_peak_is_not_guessed(self, rng):
        truth = rng.uniform(-1, 1, (3, 16, 16, 1))
        assert code_of(lambda: value("psnr", truth, truth)) == "unknown-peak"
        assert value("psnr/peak=2", truth, truth).value == 100
        assert code_of(lambda: value("psnr/peak=x", truth, truth)) == "unknown-metric-setting"

    def test_small_images_have_no_ssim(self, rng):
        truth = rng.random((3, 8, 16, 1))
        assert code_of(lambda: value("ssim", truth, truth)) == "images-too-small"

    def test_what_is_not_finite_has_no_value(self, rng):
        truth = rng.random((3, 16, 16, 1))
        found = value("psnr", np.where(truth > 0.99, np.nan, np.nan), truth)
        assert found.value is None
        assert "not finite" in found.reason


class TestOwnFunctions:
    @pytest.fixture(autouse=True)
    def module(self, tmp_path, monkeypatch):
        (tmp_path / "my_metrics.py").write_text(
            "import numpy as np\n"
            "def mean(inputs, outputs, labels):\n"
            "    assert labels is None and len(inputs[0]) == len(outputs[0])\n"
            "    return outputs[0].mean()\n"
            "def each(inputs, outputs, labels):\n    return outputs[0][:, 0]\n"
            "def error(inputs, outputs, labels):\n    return abs(outputs[0]).max()\n"
            "error.larger_is_better = False\n"
            "def wrong(inputs, outputs, labels):\n    return outputs[0]\n"
            "def fails(inputs, outputs, labels):\n    raise KeyError('boxes')\n"
            "def in_place(inputs, outputs, labels):\n"
            "    outputs[0][:] += 1\n    return outputs[0].mean()\n"
            "def ends(inputs, outputs, labels):\n    raise SystemExit(0)\n"
            "number = 3\n"
        )
        monkeypatch.chdir(tmp_path)
        yield
        sys.modules.pop("my_metrics", None)

    def test_a_number_and_a_number_of_each_sample(self, rng):
        outputs = rng.random((40, 2))
        for name, expected in (("mean", outputs.mean()), ("each", outputs[:, 0].mean())):
            found = value(f"my_metrics:{name}", outputs)
            assert found.value == pytest.approx(expected)
            error = outputs.std() / 40**0.5
            assert 1 < (found.high - found.low) / error < 6
            assert found.larger_is_better

    def test_it_may_compute_in_place(self, rng):
        outputs = rng.random((40, 2))
        expected = outputs.mean() + 1
        found = value("my_metrics:in_place", outputs)
        assert (found.value, outputs.mean()) == pytest.approx((expected, expected - 1))
        assert found.low < expected < found.high

    def test_it_may_say_that_less_is_better(self, rng):
        assert not value("my_metrics:error", rng.random((4, 2))).larger_is_better

    @pytest.mark.parametrize(
        ("name", "code"),
        [
            ("wrong", "metric-not-a-number"),
            ("fails", "metric-failed"),
            ("ends", "metric-failed"),
            ("number", "metric-not-imported"),
            ("absent", "metric-not-imported"),
        ],
    )
    def test_what_is_refused(self, name, code, rng):
        assert code_of(lambda: value(f"my_metrics:{name}", rng.random((4, 2)))) == code


class TestIntervals:
    def test_the_bootstrap_covers_the_standard_error(self, rng):
        truth = rng.normal(0, 1, (400, 1)).astype(np.float32)
        outputs = truth + rng.normal(0, 1, truth.shape)
        found = value("mae", outputs, truth)
        scores = np.abs(truth - outputs)
        half = 1.96 * scores.std() / 20
        assert (found.low, found.high) == pytest.approx(
            (found.value - half, found.value + half), abs=0.2 * half
        )
        assert value("mae", outputs, truth) == found  # the same each time

    def test_outputs_without_the_samples_axis_are_left_out(self, rng):
        truth, outputs = rng.random((N, 2)), rng.random((N, 2))
        found = value("mae", (outputs[:7], outputs), truth, inputs=np.zeros((N, 4)))
        assert found == value("mae", outputs, truth)
        nothing = value("mae", (outputs[:7],), truth, inputs=np.zeros((N, 4)))
        assert (nothing.value, bool(nothing.reason)) == (None, True)

    def test_one_sample_has_none(self):
        found = value("mae", np.ones((1, 2)), np.zeros((1, 2)))
        assert (found.value, found.low, found.interval) == (1, None, None)


def test_names():
    assert find_metric("map/cxcywh/nms=0.5").told == "map/cxcywh/nms=0.5"
    assert {*METRICS} >= {"top1", "top5", "miou", "psnr", "ssim", "mae", "map", "boxes"}
    assert code_of(lambda: find_metric("mAP")) == "unknown-metric"
    assert code_of(lambda: find_metric("map/cxcw")) == "unknown-metric-setting"
    assert code_of(lambda: find_metric("top1/peak=2")) == "unknown-metric-setting"


class TestEvaluate:
    def test_without_labels_the_message_names_the_reference(self, tmp_path):
        path, data = tmp_path / "detector.onnx", tmp_path / "data.npz"
        onnx.save(small_networks.network("detector").model, path)
        np.savez(data, x_test=small_networks.network("detector").inputs)
        with pytest.raises(InputError) as caught:
            ds.evaluate(path, data)
        assert caught.value.code == "nothing-to-measure"
        assert "--reference" in caught.value.words.hint
        found = ds.evaluate(path, data, reference=path, metric="boxes/score=0.1/cxcywh")
        assert found.metrics[0].value == 1

    def test_a_detector_end_to_end(self, tmp_path):
        """MAP of float and int8 files on boxes that the test made; and they agree."""
        network = small_networks.box_detector()
        shapes = coloured_shapes.pictures(len(network.inputs), 2)
        side = small_networks.PIXELS / coloured_shapes.SIZE
        centre, radius = shapes.centres[:, ::-1], shapes.radii[:, None]
        corners = np.concatenate([centre - radius, centre + radius], 1) * side
        labels = np.concatenate([corners, shapes.kinds[:, None]], 1)[:, None]
        data = Data((shapes.images,), labels=labels.astype(np.float32))
        wanted = [find_metric(name) for name in ("map/cxcywh", "map50/cxcywh", "boxes/cxcywh")]
        models = [onnx.load(network.write(tmp_path, one)) for one in ("float32", "int8")]
        reference = _Predictor(models[0])
        full, quantized = (
            evaluate(_Predictor(model), data, reference=reference, metrics=wanted).metrics
            for model in models
        )
        assert full[0].value > 0.3
        assert full[1].value > 0.6
        assert full[0].value < full[1].value
        for before, after in zip(full[:2], quantized[:2], strict=True):
            assert after.value == pytest.approx(before.value, abs=0.02)
        assert full[2].value == 1
        assert 0.9 < quantized[2].value < 1
        dead = _Predictor(models[1], scores=0.0)
        assert evaluate(dead, data, metrics=wanted[:1]).metrics[0].value == 0


class _Predictor:
    """A small network as a predictor; its scores may be multiplied."""

    input_names, input_shapes = ("image",), ((None, 3, 16, 16),)

    def __init__(self, model, scores=1.0):
        self.model, self.scores = model, scores

    @property
    def output_names(self):
        return tuple(output.name for output in self.model.graph.output)

    def predict(self, inputs):
        (found,) = small_networks.run(self.model, inputs[0])
        found[..., 4:] *= self.scores
        return (found,)
