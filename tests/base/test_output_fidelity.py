"""Outputs judged per group of channels: what is measured, what is refused, what is not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.base.fidelity import output_error
from dsconvert.base.output_fidelity import OutputComparison, Tolerance, find, measure
from dsconvert.base.output_fidelity.channel_axis import channel_axis
from dsconvert.base.output_fidelity.channel_groups import (
    as_ranges,
    groups,
    named,
)
from dsconvert.base.output_fidelity.channel_sums import ChannelSums
from dsconvert.base.output_fidelity.group_error import group_noise, judged_groups

INT8 = Tolerance(min_sqnr_db=10, floor=3 / 255, excused=0.9, half_step=1 / 512)
FLOAT = Tolerance(min_sqnr_db=60, floor=1e-5, defect=0.01)


def codes(reference, other, tolerance=INT8, severity="failure", **options) -> set[str]:
    found = find(measure("y", reference, other, **options), tolerance)
    return {one.code for one in found if one.severity == severity}


def detector(samples=40, seed=0) -> np.ndarray:
    """Boxes in pixels and sparse scores, (n, 64, 84)."""
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(0, 640, (samples, 64, 4))
    scores = 1 / (1 + np.exp(-rng.normal(-3, 2, (samples, 64, 80))))
    return np.concatenate([boxes, scores], axis=2)


def in_steps(values, scale=None) -> np.ndarray:
    """What 8 bits leave of values, one scale for all."""
    scale = scale or np.ptp(np.append(values, 0)) / 255
    return np.round(values / scale) * scale


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


SHAPES = [(40,), (40, 1), (40, 10), (40, 64), (24, 64, 20), (8, 16, 16, 3), (6, 3, 16, 16), (1, 9)]


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


class TestSound:
    """What rounding and noise do is no defect."""

    @pytest.mark.parametrize("shape", SHAPES)
    @given(seed=st.integers(0, 2**32 - 1))
    def test_eight_bits(self, shape, seed):
        rng = np.random.default_rng(seed)
        r = rng.normal(size=shape) * rng.uniform(0.2, 1, shape[-1:] if len(shape) > 1 else ())
        y = in_steps(r + rng.normal(0, 0.03, shape))

        assert codes(r, y) == set()

    @given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 200))
    def test_softmax_of_noisy_logits(self, seed, classes):
        """Classes that are rarely predicted on few images do not count."""
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 3, (32, classes)) + rng.normal(0, 1, classes)
        r, y = (
            np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            for z in (logits, logits + rng.normal(0, 0.2, logits.shape))
        )

        assert codes(r, in_steps(y, 1 / 256)) == set()

    @given(seed=st.integers(0, 2**32 - 1))
    def test_detector_with_scales_of_its_own(self, seed):
        r = detector(16, seed)
        y = np.concatenate([in_steps(r[..., :4]), in_steps(r[..., 4:])], axis=2)

        assert codes(r, y) == set()
        assert codes(r, in_steps(r)) >= {"group-below"}  # one scale for both

    def test_equal_outputs(self):
        for shape in SHAPES:
            r = np.random.default_rng(0).normal(size=shape)
            assert codes(r, r, FLOAT) == set()
            assert codes(r, r.astype(np.float32), FLOAT) == set()

    def test_weak_features_are_told(self):
        rng = np.random.default_rng(0)
        r = np.maximum(rng.normal(size=(40, 64)), 0) * 50
        r[:, 7] /= 1000
        found = find(measure("y", r, in_steps(r)), INT8)

        assert [(one.code, one.severity) for one in found] == [("weak-channels", "warning")]

    def test_one_large_value_is_no_exchange(self):
        r = np.full((40, 6), 0.01)
        r += np.random.default_rng(0).uniform(0, 0.002, r.shape)
        r[5, :2] = 0.5, 0.3
        y = r.copy()
        y[5, :2] = 0.3, 0.5

        assert "swapped" not in codes(r, y)

    def test_small_channels_of_many_features(self):
        rng = np.random.default_rng(0)
        r = np.maximum(rng.normal(size=(40, 64)), 0) * 5
        r[:, 7] /= 1000
        y = in_steps(r)

        assert not y[:, 7].any()
        assert codes(r, y) == set()
        assert codes(r, y, severity="warning") == {"reference-near-zero"}
        r[:, 7] *= 50  # 5 % of the largest: a step of the integers is a tenth of it
        dead = r.copy()
        dead[:, 7] = 0
        assert codes(r, in_steps(r)) == set()
        assert "group-below" in codes(r, dead)


class TestWarnings:
    def test_scores_that_never_fire(self):
        rng = np.random.default_rng(0)
        boxes = rng.uniform(0, 640, (20, 64, 4))
        quiet = np.concatenate([boxes, rng.uniform(0, 0.01, (20, 64, 1))], axis=2)
        dead = np.concatenate([boxes, np.zeros((20, 64, 1))], axis=2)

        assert codes(quiet, dead) == set()
        (told,) = find(measure("y", quiet, dead), INT8)
        assert (told.code, told.severity, told.channels) == (
            "reference-near-zero",
            "warning",
            ((4, 4),),
        )
        wild = np.concatenate([boxes, np.full((20, 64, 1), 0.4)], axis=2)
        assert "group-below" in codes(quiet, wild)
        assert "group-below" in codes(quiet, dead, FLOAT)  # floats have no steps

    def test_constant_reference(self):
        r = np.concatenate([np.full((20, 1), 3.0), np.random.default_rng(0).random((20, 1))], 1)

        assert codes(r, r) == set()
        assert codes(r, r, severity="warning") == {"reference-constant"}
        assert codes(r, r * [2, 1]) == {"not-constant"}

    def test_all_zero_reference(self):
        r = np.zeros((20, 3))

        assert codes(r, r) == set()
        assert codes(r, r + 1) == {"not-constant"}

    def test_few_samples_are_told_softly(self):
        r = np.linspace(0.4, 0.6, 256).reshape(1, 16, 16, 1)

        assert codes(r, r + 0.08) == set()
        assert codes(r, r + 0.08, severity="warning") == {"group-below", "offset"}


def softmax(z):
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


class TestRefused:
    """Each defect, in outputs that are equal otherwise."""

    SCORES = softmax(np.random.default_rng(0).normal(0, 4, (60, 10)))
    IMAGES = np.random.default_rng(1).random((20, 3, 12, 12)).cumsum(axis=3) / 12

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_one_value_that_is_not_finite(self, bad):
        y = self.SCORES.copy()
        y[3, 4] = bad
        (told,) = find(measure("y", self.SCORES, y), INT8)

        assert (told.code, told.channels, told.figures) == ("not-finite", ((4, 4),), {"values": 1})

    def test_dead_class(self):
        y = self.SCORES.copy()
        y[:, 3] = 0
        y /= y.sum(axis=1, keepdims=True)

        assert codes(self.SCORES, y) >= {"class-lost", "constant"}

    def test_a_class_predicted_once_is_only_told(self):
        logits = np.random.default_rng(2).normal(0, 4, (60, 9))
        r = softmax(np.concatenate([logits, np.full((60, 1), -9.0)], axis=1))
        r[0] = np.append(np.full(9, 0.05), 0.55)
        y = r.copy()
        y[0] = np.append(np.full(8, 0.05), [0.32, 0.28])

        assert codes(r, y) == set()
        assert codes(r, y, severity="warning") == {"class-lost"}

    @pytest.mark.parametrize(
        "change", [lambda p: p * 23, lambda p: p - 8 / 256, lambda p: np.log(p + 1e-3)]
    )
    def test_probabilities_of_another_sum(self, change):
        assert "sum" in codes(self.SCORES, change(self.SCORES))

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda x: x[:, [1, 0, 2]], "swapped"),
            (lambda x: x[:, ::-1], "swapped"),
            (lambda x: np.roll(x, 1, axis=2), "moved"),
            (lambda x: np.roll(x, -1, axis=3), "moved"),
            (lambda x: x[..., ::-1], "moved"),
            (lambda x: x.swapaxes(2, 3), "moved"),
            (lambda x: np.roll(x, 3, axis=0), "samples-mixed"),
            (lambda x: np.repeat(x[:1], len(x), axis=0), "same-for-all-samples"),
            (lambda x: 1 - x, "inverted"),
            (lambda x: x * 1.3, "scale"),
            (lambda x: x + 8 / 255, "offset"),
            (lambda x: np.minimum(x, 0.6 * x.max()), "saturated"),
            (lambda x: x * np.array([1, 0, 1])[:, None, None], "constant"),
        ],
    )
    def test_images(self, change, code):
        assert codes(self.IMAGES, self.IMAGES) == set()
        assert code in codes(self.IMAGES, change(self.IMAGES))

    @pytest.mark.parametrize(("amount", "severity"), [(0.3, "failure"), (0.05, "warning")])
    def test_a_model_that_hands_its_input_on(self, amount, severity):
        """What a dead denoiser gives is close to the right picture all the same."""
        noise = np.random.default_rng(3).normal(0, amount, self.IMAGES.shape) * self.IMAGES.std()
        fed = self.IMAGES + noise
        assert "group-below" not in codes(self.IMAGES, fed)
        judged = measure("y", self.IMAGES, fed, inputs=[fed[:, :1], fed])
        assert judged.groups[0].change_db == pytest.approx(0, abs=1e-9)
        allowed = msgspec.structs.replace(INT8, floor=0.001)
        (found,) = [one for one in find(judged, allowed) if one.code == "group-below"]
        assert found.severity == severity
        half = self.IMAGES + noise / 2  # 6 dB of the change
        assert codes(self.IMAGES, half) == set()
        judged = measure("y", self.IMAGES, half, inputs=[fed])
        assert judged.groups[0].change_db == pytest.approx(20 * np.log10(2))
        assert find(judged, allowed) == ()

    def test_one_value_outside_of_the_calibrated_range(self):
        r = np.random.default_rng(4).normal(0, 1, (64, 1))
        r[0] = 6.0
        assert "saturated" not in codes(r, np.minimum(r, 4.5))
        assert "saturated" in codes(r, np.minimum(r, 1.0))

    def test_one_channel_of_boxes(self):
        r = detector()
        y = r.copy()
        y[..., 1] += 80

        (told,) = [one for one in find(measure("y", r, y), INT8) if one.code == "offset"]
        assert told.channels == ((1, 1),)

    def test_cells_of_a_flat_grid(self):
        r = detector()

        assert "moved" in codes(r, np.roll(r, 1, axis=1))
        assert "moved" in codes(r, np.roll(r, 8, axis=1))  # one row of 8×8 cells

    def test_the_text_names_channels_and_figures(self):
        r = detector()
        y = r * np.append(np.ones(4), np.zeros(80))
        told = find(measure("detections", r, y), INT8)[0]

        assert told.text.startswith("detections channels 4–83: SQNR 0.0 dB; at least 10 dB")
        assert told.figures["sqnr_db"] == 0


def test_many_nearly_equal_probabilities_are_no_other_sum():
    """Of 1,000 classes near 0.001 each, int8 keeps nothing and float keeps all: both are right."""
    rng = np.random.default_rng(0)
    p = 1e-3 + 1e-6 * rng.random((20, 1000))
    p /= p.sum(axis=1, keepdims=True)
    assert "sum" not in codes(p, p * (1 + 1e-7), FLOAT)
    assert "sum" not in codes(p, 0 * p)
    assert "sum" in codes(p, 1.5 * p, FLOAT)
