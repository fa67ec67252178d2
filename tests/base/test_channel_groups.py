"""Channels of like scale are found and judged together."""

from __future__ import annotations

import numpy as np
import pytest
from fidelity_cases import codes, detector, in_steps, softmax
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.base.fidelity import output_error
from dsconvert.base.output_fidelity import OutputComparison, measure
from dsconvert.base.output_fidelity.channel_axis import channel_axis
from dsconvert.base.output_fidelity.channel_groups import (
    as_ranges,
    groups,
    named,
)
from dsconvert.base.output_fidelity.channel_sums import ChannelSums
from dsconvert.base.output_fidelity.group_error import group_noise, judged_groups


class TestGroups:
    def test_by_gaps_between_the_largest_values(self):
        found = groups(np.array([0.5, 640.0, 0.0, 300.0, 1.9]))

        assert [list(group) for group in found] == [[1, 3], [0, 4]]
        assert groups(np.zeros(3)) == []

    def test_a_continuum_is_one_group(self):
        assert len(groups(np.geomspace(1e-3, 1, 64))) == 1

    def test_ranges(self):
        assert as_ranges([0, 1, 2, 7, 9, 10]) == ((0, 2), (7, 7), (9, 10))
        assert named(((0, 2), (7, 7))) == "channels 0–2, 7"
        assert named(((7, 7),)) == "channel 7"
        assert named(tuple((i, i) for i in range(0, 20, 2))).endswith("6, …")

    @pytest.mark.parametrize(
        ("shape", "axis"),
        [
            ((5,), 0),
            ((5, 7), 1),
            ((1, 10), 1),
            ((2, 3, 16, 16), 1),
            ((2, 16, 16, 3), 3),
            ((2, 240, 320, 2), 3),
            ((2, 21, 240, 320), 1),
            ((2, 400, 1), 2),
            ((2, 1, 400), 2),
            ((2, 1, 16000), 1),
            ((2, 1, 1, 84), 3),
            ((2, 84, 1, 1), 1),
            ((2, 1, 48, 64), 1),
            ((2, 48, 64, 1), 3),
            ((2, 100, 4), 2),
        ],
    )
    def test_axis_by_sizes(self, shape, axis):
        assert channel_axis(np.random.default_rng(0).random(shape)) == axis

    @pytest.mark.parametrize("shape", [(12, 12, 12), (24, 10, 12), (8, 20, 30)])
    @pytest.mark.parametrize("size", [0.0, 0.05])
    def test_axis_of_a_map_with_a_frame(self, shape, size):
        r = np.random.default_rng(0).normal(size=(8, *shape))
        frame = np.full(shape[1:], size)
        frame[1:-1, 1:-1] = 1
        r *= frame

        assert channel_axis(r) == 1
        assert channel_axis(np.moveaxis(r, 1, -1)) == 3

    def test_axis_by_values(self):
        detections = detector(8)

        assert channel_axis(detections) == 2  # 64 cells are fewer than 84 channels
        assert channel_axis(detections.swapaxes(1, 2)) == 1
        assert channel_axis(np.tile(detections, (1, 4, 1)).swapaxes(1, 2)) == 1


LAYOUTS = {
    "(n, A, C)": lambda x: x.reshape(8, -1, 84),
    "(n, C, A)": lambda x: x.reshape(8, -1, 84).swapaxes(1, 2),
    "(n, 1, A, C)": lambda x: x.reshape(8, 1, -1, 84),
    "(n, H, W, C)": lambda x: x,
    "(n, C, H, W)": lambda x: x.transpose(0, 3, 1, 2),
    "(n, C) of one cell": lambda x: x.reshape(-1, 84),
    "(n, 1, C)": lambda x: x.reshape(-1, 1, 84),
    "(n, 1, 1, C)": lambda x: x.reshape(-1, 1, 1, 84),
    "(n, C, 1, 1)": lambda x: x.reshape(-1, 84, 1, 1),
    "(n, anchors, H, W, C)": lambda x: x.reshape(8, 3, 5, 4, 84),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_detector_in_every_layout(layout):
    """The map is of 6 × 10 cells, less than its 84 channels, and no square."""
    r = detector(8)[:, :60].reshape(8, 6, 10, 84)
    own = np.concatenate([in_steps(r[..., :4]), in_steps(r[..., 4:])], axis=-1)
    weak = np.where(np.arange(84) < 4, own, own / 2)
    dead = in_steps(r)

    assert channel_axis(layout(r)) == layout(r).shape.index(84)
    assert codes(layout(r), layout(own)) == set()
    for spoiled in (weak, dead):
        assert "group-below" in codes(layout(r), layout(spoiled))
    assert len(group_noise(layout(r), layout(dead))) == 2
    assert max(group_noise(layout(r), layout(dead))) > 0.5


class TestMixedScales:
    """Parts of an output that a common scale, or a common figure, would hide."""

    def test_a_chain_of_scales(self):
        """Coordinates of many units link pixels to scores, each within a factor of four."""
        rng = np.random.default_rng(0)
        r = rng.uniform(-1, 1, (40, 30, 9)) * [640, 200, 60, 18, 5, 1.6, 1, 1, 1]
        own = np.stack([in_steps(r[..., i]) for i in range(9)], axis=-1)

        assert codes(r, own) == set()
        assert "group-below" in codes(r, in_steps(r))
        assert "group-below" in codes(r, np.where(np.arange(9) < 6, own, 0))

    @pytest.mark.parametrize("shape", [(64, 136), (16, 50, 136)])
    def test_one_score_beside_many_landmarks(self, shape):
        rng = np.random.default_rng(0)
        marks, score = rng.uniform(0, 640, shape), rng.uniform(0, 1, (*shape[:-1], 1))
        r = np.concatenate([marks, score], axis=-1)
        own = np.concatenate([in_steps(marks), in_steps(score)], axis=-1)

        assert codes(r, own) == set()
        assert "group-below" in codes(r, in_steps(r))
        assert [len(group) for group in judged_groups(r)] == [136, 1]

    def test_a_rare_class_of_a_segmentation(self):
        """48 of 98,304 pixels, which the other file gives to the class that comes second."""
        logits = np.random.default_rng(0).normal(0, 2, (6, 128, 128, 4))
        logits[..., 3] = -6
        logits[0, 20:28, 40:46, 3] = 9
        r = softmax(logits)
        y = r.copy()
        y[0, 20:28, 40:46] = [0.58, 0, 0, 0.42]

        assert codes(r, r) == set()
        assert "class-lost" in codes(r, y)

    def test_cut_off_logits(self):
        r = np.random.default_rng(0).normal(0, 3, (128, 10))

        assert "saturated" in codes(r, np.minimum(r, r.max() / 2))
        assert "saturated" not in codes(r, np.minimum(r, 0.9 * r.max()))


class TestSums:
    def test_by_definition(self):
        rng = np.random.default_rng(0)
        r = 1e4 + rng.random((30, 5, 3))
        y = r + rng.normal(0, 0.1, r.shape)
        sums = ChannelSums(3)
        for part in (slice(0, 7), slice(7, 8), slice(8, 30)):
            sums.add(r[part], y[part])
        flat_r, flat_y = r.reshape(-1, 3), y.reshape(-1, 3)

        np.testing.assert_allclose(sums.mean_r, flat_r.mean(0), rtol=1e-12)
        np.testing.assert_allclose(sums.var_r, flat_r.var(0), rtol=1e-9)
        np.testing.assert_allclose(sums.var_y, flat_y.var(0), rtol=1e-9)
        np.testing.assert_allclose(sums.noise, ((flat_r - flat_y) ** 2).mean(0), rtol=1e-9)
        np.testing.assert_allclose(sums.shift, (flat_y - flat_r).mean(0), rtol=1e-9, atol=1e-12)
        covariance = ((flat_r - flat_r.mean(0)) * (flat_y - flat_y.mean(0))).mean(0)
        np.testing.assert_allclose(sums.covariance, covariance, rtol=1e-9)
        assert sums.samples == 30
        assert (sums.high_r == flat_r.max(0)).all()
        assert (sums.low_y == flat_y.min(0)).all()

    def test_what_is_not_finite_in_both_is_left_out(self):
        r = np.array([[1.0, -np.inf], [2.0, -np.inf], [3.0, 4.0]])
        y = r.copy()
        y[0, 0] = np.nan
        sums = ChannelSums(2)
        sums.add(r, y)

        assert list(sums.not_finite) == [1, 0]
        assert list(sums.count) == [2, 1]
        assert list(sums.peak) == [3, 4]

    def test_memory_is_bounded(self):
        sums = ChannelSums(8)
        batch = np.ones((64, 1024, 8), np.float32)
        for _ in range(8):
            sums.add(batch, batch)

        assert sums.kept[0].size <= 1 << 19
        assert sums.count[0] == 8 * 64 * 1024

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match="shape"):
            measure("y", np.ones((2, 3)), np.ones((2, 4)))
        with pytest.raises(ValueError, match="no samples"):
            measure("y", np.ones((0, 3)), np.ones((0, 3)))


class TestMeasure:
    def test_each_group_at_its_own_scale(self):
        r = detector()
        y = r + np.concatenate([np.full(4, 3.2), np.full(80, 0.05)]) * np.sign(
            np.random.default_rng(1).normal(size=r.shape)
        )
        boxes, scores = measure("y", r, y).groups

        assert (boxes.channels, scores.channels) == (((0, 3),), ((4, 83),))
        assert boxes.noise == pytest.approx(3.2)
        assert scores.noise == pytest.approx(0.05)
        power = (r[..., 4:] ** 2).mean()
        assert scores.sqnr_db == pytest.approx(10 * np.log10(power / 0.05**2))
        spread = r[..., 4:].reshape(-1, 80).var(axis=0).mean()
        assert scores.variation_db == pytest.approx(10 * np.log10(spread / 0.05**2))
        assert (boxes.probabilities, scores.probabilities) == (False, True)

    def test_worst_group(self):
        r = detector()
        y = r * np.append(np.ones(4), np.full(80, 0.9))

        assert measure("y", r, y).worst.channels == ((4, 83),)
        assert measure("y", r, r).worst is None

    @given(st.integers(0, 2**32 - 1), st.integers(1, 39))
    def test_batches_make_no_difference(self, seed, cut):
        r = detector(seed=seed % 7)[:, :9]
        y = r + np.random.default_rng(seed).normal(0, 0.01, r.shape)
        comparison = OutputComparison("y")
        comparison.add(r[:cut], y[:cut])
        comparison.add(r[cut:], y[cut:])
        whole, parts = measure("y", r, y), comparison.result()

        assert [g.channels for g in parts.groups] == [g.channels for g in whole.groups]
        for ours, theirs in zip(parts.groups, whole.groups, strict=True):
            assert ours.sqnr_db == pytest.approx(theirs.sqnr_db, rel=1e-9)

    def test_channels_in_front(self):
        r = detector()
        y = r * np.append(np.ones(4), np.zeros(80))

        assert measure("y", r.swapaxes(1, 2), y.swapaxes(1, 2)).worst.channels == ((4, 83),)
        assert measure("y", r.swapaxes(1, 2), y.swapaxes(1, 2), axis=1).positions == 64


class TestGroupError:
    """The numbers that plans, fits and int8 files are chosen by."""

    def test_each_group_counts_alike(self):
        r = detector()
        y = r * np.append(np.full(4, 0.9), np.full(80, 0.5))

        assert group_noise(r, y) == pytest.approx([0.01, 0.25])
        assert output_error([r], [y]) == pytest.approx(0.13)
        one_scale = in_steps(r)
        apart = np.concatenate([in_steps(r[..., :4]), in_steps(r[..., 4:])], axis=2)
        assert output_error([r], [apart]) < output_error([r], [one_scale]) / 1e3

    def test_one_group_is_the_whole(self):
        rng = np.random.default_rng(0)
        r, y = rng.normal(size=(2, 30, 7))

        assert group_noise(r, y) == pytest.approx([((r - y) ** 2).sum() / (r**2).sum()])
        assert group_noise(np.zeros((3, 2)), np.zeros((3, 2))) == [0]
        assert group_noise(r, y * np.nan) == [np.inf]

    def test_rare_classes_are_no_group(self):
        probabilities = softmax(np.append(np.random.default_rng(0).normal(0, 3, 5), -9)[None])

        assert len(judged_groups(np.repeat(probabilities, 20, axis=0))) == 1

    def test_features_that_hardly_fire_do_not_count(self):
        r = np.random.default_rng(0).normal(size=(40, 64))
        r[:, 3] /= 1e4

        assert [len(group) for group in judged_groups(r)] == [63]
