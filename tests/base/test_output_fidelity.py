"""Outputs judged per group of channels: what is measured, what is refused, what is not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from fidelity_cases import INT8, SHAPES, codes, detector, in_steps, softmax
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.base.output_fidelity import Tolerance, find, measure
from dsconvert.deploy.schemes import SCHEMES

FLOAT = Tolerance(min_sqnr_db=60, floor=1e-5, defect=0.01)


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

    @given(seed=st.integers(0, 2**32 - 1))
    def test_outputs_that_one_number_decides(self, seed):
        """Of 64 samples some other one is near to any, which is no exchange of samples."""
        rng = np.random.default_rng(seed)
        age, weights = rng.normal(size=(64, 1)), 0.5 * rng.choice([-1, 1], (1, 12))
        r, y = (3 + np.tanh(z @ weights) for z in (age, age + rng.normal(0, 0.1, age.shape)))

        assert "samples-mixed" not in codes(r, y)
        assert "samples-mixed" in codes(r, rng.permutation(r))

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

    @pytest.mark.parametrize("over", [(1, 2), (1, 2, 3), (2,)])
    def test_shares_of_a_whole_are_small_and_judged(self, over):
        r = np.exp(np.random.default_rng(0).uniform(size=(20, 20, 80, 5)))
        r /= r.sum(axis=over, keepdims=True)

        assert r.max() < 1 / 32
        assert "group-below" in codes(r, 0 * r)
        assert codes(r, in_steps(r)) == set()

    def test_constant_reference(self):
        r = np.concatenate([np.full((20, 1), 3.0), np.random.default_rng(0).random((20, 1))], 1)

        assert codes(r, r) == set()
        assert codes(r, r, severity="warning") == {"reference-constant"}
        assert codes(r, r * [2, 1]) == {"not-constant"}

    @pytest.mark.parametrize(("apart", "found"), [(5e-5, set()), (5e-3, {"not-constant"})])
    def test_constant_sums_that_cancel_are_as_coarse_as_float16(self, apart, found):
        """A state of a recurrent network has values near 10 and others near 0."""
        state = np.random.default_rng(0).normal(0, 5, (20, 4))
        state[:, 1] = 1e-4
        other = state + np.eye(4)[1] * apart

        assert codes(state, other, SCHEMES["float16"].tolerance) == found
        assert codes(state, other, FLOAT) == {"not-constant"}

    def test_all_zero_reference(self):
        r = np.zeros((20, 3))

        assert codes(r, r) == set()
        assert codes(r, r + 1) == {"not-constant"}

    def test_few_samples_are_told_softly(self):
        r = np.linspace(0.4, 0.6, 256).reshape(1, 16, 16, 1)

        assert codes(r, r + 0.08) == set()
        assert codes(r, r + 0.08, severity="warning") == {"group-below", "offset"}


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

    @pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
    def test_small_values_on_both_sides_of_0_are_no_quiet_scores(self, size):
        r = np.random.default_rng(5).normal(0, size, (20, 12, 12, 4))
        wrong = np.random.default_rng(6).normal(0, size, r.shape)

        assert codes(r, in_steps(r)) == set()
        assert "group-below" in codes(r, wrong)
        assert "scale" in codes(r, in_steps(1.15 * r))

    @pytest.mark.parametrize("shape", [(40, 10), (20, 12, 12, 4)])
    def test_one_scaled_channel_of_logits(self, shape):
        """An SQNR over all channels, of 10 dB, and the errors of sound channels hide it."""
        r = np.random.default_rng(7).normal(0.3, 1, shape)
        y = r.copy()
        y[..., 1] *= 1.15
        (told,) = [one for one in find(measure("y", r, in_steps(y)), INT8) if one.code == "scale"]

        assert (told.severity, told.channels) == ("failure", ((1, 1),))
        assert told.figures["size"] == pytest.approx(1.15, abs=0.01)
        assert codes(r, in_steps(r)) == set()

    def test_channels_that_are_scaled_up_and_down(self):
        """The median of their slopes is 1."""
        r = np.random.default_rng(8).normal(0.3, 1, (40, 8))
        y = r * np.array([0.8, 1.2, 1, 0.8, 1.2, 1, 1, 1])

        (told,) = [one for one in find(measure("y", r, in_steps(y)), INT8) if one.code == "scale"]
        assert (told.severity, told.channels) == ("failure", ((0, 1), (3, 4)))

    @pytest.mark.parametrize("shape", [(64, 10), (16, 8, 8, 5)])
    def test_one_scaled_class_of_a_distribution(self, shape):
        """A flatter softmax still sums to one; this does not."""
        rng = np.random.default_rng(8)
        logits = rng.normal(0, 1.5, shape)
        r = softmax(logits)
        y = r.copy()
        y[..., 1] *= 1.4
        flatter = softmax(0.7 * logits)

        assert "scale" in codes(r, in_steps(y, 1 / 256))
        assert "scale" not in codes(r, in_steps(flatter, 1 / 256))
        assert codes(r, in_steps(r, 1 / 256)) == set()

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
        assert told.figures["sqnr_db"] == pytest.approx(0, abs=1e-9)


def test_many_nearly_equal_probabilities_are_no_other_sum():
    """Of 1,000 classes near 0.001 each, int8 keeps nothing and float keeps all: both are right."""
    rng = np.random.default_rng(0)
    p = 1e-3 + 1e-6 * rng.random((20, 1000))
    p /= p.sum(axis=1, keepdims=True)
    assert "sum" not in codes(p, p * (1 + 1e-7), FLOAT)
    assert "sum" not in codes(p, 0 * p)
    assert "sum" in codes(p, 1.5 * p, FLOAT)
