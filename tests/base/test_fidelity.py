"""Comparisons of outputs against values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.base.fidelity import (
    compare_output,
    compare_outputs,
    is_class_distribution,
    kl_divergence,
    output_error,
    relative_error,
    top_k,
    wilson,
)

FAIR, BIASED = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
KL = 0.5 * math.log(4 / 3)  # ½ ln 2 + ½ ln ⅔


class TestCompareOutput:
    def test_regression(self):
        fidelity = compare_output("y", np.array([[3.0], [4.0]]), np.array([[3.0], [3.0]]))

        assert fidelity.finite
        assert fidelity.relative_error == pytest.approx(1 / 5)
        assert fidelity.sqnr_db == pytest.approx(10 * math.log10(25 / 1))
        assert fidelity.max_abs_error == 1
        assert (fidelity.kl_nats, fidelity.top1_agreement, fidelity.reference_classes) == (
            None,
        ) * 3

    def test_equal_outputs_have_no_finite_ratio(self):
        fidelity = compare_output("y", FAIR, FAIR)

        assert fidelity.sqnr_db is None
        assert (fidelity.relative_error, fidelity.max_abs_error, fidelity.kl_nats) == (0, 0, 0)

    def test_zero_reference_has_no_relative_error(self):
        fidelity = compare_output("y", np.zeros((2, 1)), np.ones((2, 1)))

        assert (fidelity.sqnr_db, fidelity.relative_error) == (None, None)
        assert fidelity.max_abs_error == 1
        assert relative_error(np.zeros(2), np.zeros(2)) == 0

    def test_classes(self):
        reference = np.array([[0.6, 0.4], [0.9, 0.1], [0.5, 0.5]])
        other = np.array([[0.4, 0.6], [0.8, 0.2], [0.5, 0.5]])
        fidelity = compare_output("scores", reference, other)

        # A tie names the lower class, on both sides.
        assert fidelity.top1_agreement == pytest.approx(2 / 3)
        assert fidelity.reference_classes == 1
        assert fidelity.kl_nats == pytest.approx(
            (
                0.6 * math.log(1.5)
                + 0.4 * math.log(2 / 3)
                + 0.9 * math.log(9 / 8)
                + 0.1 * math.log(0.5)
            )
            / 3
        )

    def test_logits_are_classes_but_no_distribution(self):
        fidelity = compare_output("logits", np.array([[5.0, -1.0]]), np.array([[4.0, 0.0]]))

        assert fidelity.kl_nats is None
        assert fidelity.top1_agreement == 1

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, bad):
        fidelity = compare_output("y", FAIR, np.array([[0.5, bad]]))

        assert not fidelity.finite
        assert fidelity.sqnr_db is fidelity.relative_error is fidelity.top1_agreement is None

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match=r"y: shape \(1, 3\) where the reference has \(1, 2\)"):
            compare_output("y", FAIR, np.ones((1, 3)))

    def test_outputs_are_paired_in_order(self):
        names = [f.name for f in compare_outputs(["a", "b"], [FAIR, FAIR], [FAIR, BIASED])]

        assert names == ["a", "b"]
        with pytest.raises(ValueError, match="shorter"):
            compare_outputs(["a", "b"], [FAIR, FAIR], [FAIR])


class TestKl:
    def test_by_hand(self):
        assert kl_divergence(FAIR, BIASED) == pytest.approx(KL)
        assert kl_divergence(np.vstack([FAIR, FAIR]), np.vstack([BIASED, FAIR])) == pytest.approx(
            KL / 2
        )

    def test_impossible_classes(self):
        certain = np.array([[1.0, 0.0]])

        assert kl_divergence(certain, FAIR) == pytest.approx(math.log(2))
        assert kl_divergence(certain, certain) == 0  # to the bit: "0 for equal ones"
        # What the other holds impossible counts as 1e-12, not as infinite.
        assert kl_divergence(FAIR, certain) == pytest.approx(
            0.5 * math.log(0.5) + 0.5 * math.log(0.5e12), rel=1e-9
        )

    @given(st.integers(0, 2**32 - 1))
    def test_never_negative_and_zero_for_equals(self, seed):
        p, q = np.random.default_rng(seed).dirichlet(np.full(5, 0.3), size=(2, 4))

        assert kl_divergence(p, q) >= 0
        assert kl_divergence(p, p) == pytest.approx(0, abs=1e-12)


def test_class_distributions_are_told_from_other_outputs():
    assert is_class_distribution(FAIR)
    assert is_class_distribution(np.array([[0.5, 0.49]]))  # a quantized softmax
    assert not is_class_distribution(np.array([[1.5, -0.5]]))
    assert not is_class_distribution(np.array([[0.5, 0.3]]))
    assert not is_class_distribution(np.ones((3, 1)))
    assert not is_class_distribution(np.full((1, 2, 2), 0.25))


class TestHarm:
    def test_sums_over_outputs(self):
        y, moved = np.array([[3.0], [4.0]]), np.array([[3.0], [3.0]])

        assert output_error([FAIR, y], [BIASED, moved]) == pytest.approx(KL + 1 / 25)
        assert output_error([FAIR, y], [FAIR, y]) == 0

    @pytest.mark.parametrize("bad", [np.nan, -np.inf])
    def test_not_finite_is_infinite(self, bad):
        assert output_error([FAIR, FAIR], [FAIR, np.array([[bad, 0.5]])]) == math.inf


class TestWilson:
    @pytest.mark.parametrize(
        ("correct", "total", "low", "high"),
        [(8, 10, 0.4901625, 0.9433178), (0, 10, 0.0, 0.2775328), (10, 10, 0.7224672, 1.0)],
    )
    def test_published_values(self, correct, total, low, high):
        accuracy = wilson(correct, total)

        assert accuracy.value == correct / total
        assert accuracy.low == pytest.approx(low, abs=1e-6)
        assert accuracy.high == pytest.approx(high, abs=1e-6)

    @given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_interval_holds_the_value(self, counts):
        accuracy = wilson(*counts)

        assert 0 <= accuracy.low <= accuracy.value <= accuracy.high <= 1

    @pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
    def test_impossible_counts(self, correct, total):
        with pytest.raises(ValueError, match=f"got {correct} of {total}"):
            wilson(correct, total)


class TestTopK:
    def test_by_hand(self):
        scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
        labels = np.array([2, 0])

        assert top_k(scores, labels, 1).correct == 1
        assert top_k(scores, labels, 2).correct == 2

    def test_ties_go_to_the_lower_class(self):
        tied = np.zeros((3, 3))

        assert top_k(tied, np.arange(3), 1).correct == 1
        assert top_k(tied, np.arange(3), 2).correct == 2

    def test_not_finite_counts_as_wrong(self):
        scores = np.array([[np.nan, 1.0], [np.inf, 0.0], [1.0, 0.0]])

        assert top_k(scores, np.array([1, 0, 0]), 2).correct == 1

    def test_labels_may_come_as_a_column(self):
        assert top_k(np.eye(3), np.arange(3)[:, None], 1).correct == 3
