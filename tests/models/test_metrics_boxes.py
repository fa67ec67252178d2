"""COCO's average precision and the agreement of boxes, in arrays and in folders of annotations."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from metric_cases import N, code_of, value
from PIL import Image

from dsconvert.base.errors import MissingExtra
from dsconvert.models.data.datasets import load_data
from dsconvert.models.evaluation.metrics import Answers
from dsconvert.models.evaluation.metrics.detections import detections


def boxed(rng, shift=1.0):
    """Labels (n, 3, 5), and outputs (n, 20, 6) that find them, a bit off, among false ones."""
    labels = -np.ones((N, 3, 5), np.float32)
    outputs = np.zeros((N, 20, 6), np.float32)
    for i in range(N):
        count = rng.integers(1, 4)
        for j in range(8):
            centre, size, kind = rng.uniform(10, 38, 2), rng.uniform(8, 16, 2), rng.integers(0, 2)
            corners = np.concatenate([centre - size / 2, centre + size / 2])
            outputs[i, j, :4] = corners + rng.normal(0, shift, 4)
            outputs[i, j, 4 + kind] = rng.uniform(0.3, 1) if j < count else rng.uniform(0, 0.5)
            if j < count:
                labels[i, j] = [*corners, kind]
    return labels, outputs


class TestBoxes:
    @pytest.mark.parametrize("name", ["map", "map50"])
    def test_as_coco_computes_it(self, rng, name, capsys):
        """The figure of COCOeval.summarize over files, without this project's matching."""
        labels, outputs = boxed(rng)
        coco, evaluation = (
            pytest.importorskip(f"pycocotools.{part}") for part in ("coco", "cocoeval")
        )
        truth, given = coco.COCO(), []
        annotations = [
            (i, row) for i, image in enumerate(np.float64(labels)) for row in image if row[4] >= 0
        ]
        truth.dataset = {
            "images": [{"id": i} for i in range(N)],
            "categories": [{"id": 0}, {"id": 1}],
            "annotations": [
                {
                    "id": k + 1,
                    "image_id": i,
                    "category_id": int(row[4]),
                    "bbox": [row[0], row[1], row[2] - row[0], row[3] - row[1]],
                    "area": (row[2] - row[0]) * (row[3] - row[1]),
                    "iscrowd": 0,
                }
                for k, (i, row) in enumerate(annotations)
            ],
        }
        truth.createIndex()
        read = Answers((np.zeros((N, 64, 48, 3)),), (outputs,), labels)
        for i, boxes in enumerate(detections(read, read.outputs, {}, 0.01)):
            for (a, b, c, d), score, kind in zip(
                boxes.corners, boxes.scores, boxes.classes, strict=True
            ):
                given.append(
                    {
                        "image_id": i,
                        "category_id": int(kind),
                        "bbox": [a, b, c - a, d - b],
                        "score": score,
                    }
                )
        judge = evaluation.COCOeval(truth, truth.loadRes(given), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        expected = judge.stats[0 if name == "map" else 1]
        capsys.readouterr()
        found = value(name, outputs, labels)
        assert found.value == pytest.approx(expected, abs=1e-9)
        assert 0.3 < found.low < found.value < found.high < 1
        assert capsys.readouterr().out == ""

    def test_every_form_of_the_same_boxes(self, rng):
        labels, outputs = boxed(rng)
        corners, scores = outputs[..., :4], outputs[..., 4:]
        start, size = corners[..., :2], corners[..., 2:] - corners[..., :2]
        kinds = scores.argmax(-1).astype(np.float32)
        joined = lambda boxes, scores: np.concatenate([boxes, scores], -1)  # noqa: E731
        wide = np.array([48, 64, 48, 64], np.float32)
        ones = np.ones((N, 20, 1), np.float32)
        logits = np.log(np.clip(scores, 1e-6, 1 - 1e-6) / (1 - np.clip(scores, 1e-6, 1 - 1e-6)))
        expected = value("map", outputs, labels, interval=False).value
        forms = {
            "map": (corners, scores),
            "map/cxcywh": joined(np.concatenate([start + size / 2, size], -1), scores),
            "map/xywh": joined(np.concatenate([start, size], -1), scores),
            "map/yxyx": (scores, corners[..., [1, 0, 3, 2]]),
            "map/first": outputs.transpose(0, 2, 1),
            "map/background": (corners, joined(ones, scores)),
            "map/objectness": joined(corners, joined(scores.max(-1, keepdims=True), scores > 0)),
            "map/sigmoid": (corners, logits),
            "map/score=0.0100": (corners / wide, scores),
            "map/nms=0.60": (corners, scores.max(-1), kinds),
            "map/nms=0.600": (corners.reshape(N, 4, 5, 4), scores.reshape(N, 4, 5, 2)),
        }
        for name, form in forms.items():
            assert value(name, form, labels, interval=False).value == pytest.approx(
                expected, abs=1e-6
            ), name
        shares = labels / np.array([48, 64, 48, 64, 1], np.float32)
        assert value("map", outputs, shares, interval=False).value == pytest.approx(
            expected, abs=1e-6
        )

    def test_a_double_is_dropped_and_a_crowd_is_no_miss(self):
        labels = np.array([[[10, 10, 20, 20, 0, 0], [30, 10, 40, 20, 0, 1]]], np.float32)
        row = [10, 10, 20, 20]
        outputs = np.array([[[*row, 0.9], [*row, 0.8], [10, 11, 20, 21, 0.7]]], np.float32)
        assert value("map", outputs, labels).value == pytest.approx(1)
        assert value("map/nms=1", outputs, labels).value == pytest.approx(1)  # behind the first
        first = outputs[:, [2, 0, 1]].copy()
        first[0, :, 4] = 0.9, 0.8, 0.7
        assert value("map/nms=1", first, labels).value < 0.95

    def test_what_is_refused(self, rng):
        labels, outputs = boxed(rng)
        assert code_of(lambda: value("map", outputs, labels[:, 0])) == "labels-are-no-boxes"
        assert code_of(lambda: value("map", outputs * 3, labels)) == "no-boxes"  # scores of 3
        assert code_of(lambda: value("map", outputs[..., :3], labels)) == "no-boxes"
        both = code_of(lambda: value("map/xywh/yxyx", outputs, labels))
        assert both == "unknown-metric-setting"
        assert value("map", outputs, -np.ones((N, 1, 5))).reason == "no image has a box"

    def test_boxes_of_another_form_have_no_value(self, rng):
        labels, outputs = boxed(rng)
        outputs[..., 2:4] -= outputs[..., :2]  # left, top, width, height
        assert "map/cxcywh" in value("map", outputs, labels).reason

    def test_without_pycocotools(self, rng, monkeypatch):
        labels, outputs = boxed(rng)
        monkeypatch.setitem(sys.modules, "pycocotools", None)
        monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
        with pytest.raises(MissingExtra) as caught:
            value("map", outputs, labels)
        assert "dsconvert[boxes]" in caught.value.words.hint

    def test_agreement_with_a_reference(self, rng):
        _, reference = boxed(rng)
        found = value("boxes", reference, references=(reference,))
        assert (found.value, found.low, found.high) == (1, 1, 1)
        # Of n boxes that are sure, one image's are lost: 2·(n − k) / (2n − k).
        seen = detections(Answers((np.zeros((N, 64, 48, 3)),), ()), (reference,), {}, 0.25)
        lost, count = len(seen[0].scores), sum(len(boxes.scores) for boxes in seen)
        other = reference.copy()
        other[0, :, 4:] = 0
        assert value("boxes", other, references=(reference,)).value == pytest.approx(
            2 * (count - lost) / (2 * count - lost)
        )
        swapped = reference[..., [0, 1, 2, 3, 5, 4]]
        assert value("boxes", swapped, references=(reference,)).value < 0.1
        nothing = value("boxes", reference, references=(reference * 0,))
        assert "finds no box" in nothing.reason
        assert code_of(lambda: value("boxes", reference)) == "needs-reference"


class TestFolderOfBoxes:
    """Images of two sizes beside COCO's boxes.json."""

    @pytest.fixture
    def folder(self, tmp_path, rng):
        images, annotations = [], []
        for i, (width, height) in enumerate([(40, 20), (20, 40), (20, 20)]):
            Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(
                tmp_path / f"{i}.png"
            )
            images.append({"id": 10 * i, "file_name": f"{i}.png", "width": width, "height": height})
        for image, kind, box in ((0, 90, [10, 5, 20, 10]), (10, 3, [0, 0, 5, 40])):
            annotations.append({"image_id": image, "category_id": kind, "bbox": box})
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 90}, {"id": 3}],
        }
        (tmp_path / "boxes.json").write_text(json.dumps(content))
        return tmp_path

    def test_boxes_are_shares_of_the_image(self, folder):
        data = load_data(folder, split="test", input_shapes=((None, 32, 32, 3),))
        assert data.inputs[0].shape == (3, 32, 32, 3)
        expected = np.zeros((3, 1, 6))
        expected[:, 0, 4] = -1
        expected[0, 0, :5] = 0.25, 0.25, 0.75, 0.75, 1  # category 90 is the second
        expected[1, 0, :5] = 0, 0, 0.25, 1, 0
        np.testing.assert_allclose(data.labels, expected)

    def test_it_must_know_every_image(self, folder):
        (folder / "2.png").rename(folder / "new.png")
        shapes = ((None, 32, 32, 3),)
        load = lambda: load_data(folder, split="test", input_shapes=shapes)  # noqa: E731
        assert code_of(load) == "boxes-unreadable"
        (folder / "boxes.json").write_text("[]")
        assert code_of(load) == "boxes-unreadable"
