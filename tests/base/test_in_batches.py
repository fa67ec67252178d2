"""Outputs of every form come out samples first; labels are compared as names, not as numbers."""

import numpy as np
import pytest
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import compare_output
from dsconvert.base.in_batches import InBatches, samples_first
from dsconvert.base.label_agreement import OutputKind, label_agreement

X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)


def running(invoke, *shapes, batch=None, fills=(), **more):
    names = [f"y{i}" for i in range(len(shapes))]
    return InBatches(invoke, "model", names, shapes, batch=batch, most=5, fills=fills, **more)


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_batch_on_another_axis_comes_to_the_front(batch):
    """16 samples and 16 time steps: the number of samples must not be taken for the time."""
    weights = np.arange(16 * 4, dtype=np.float32).reshape(16, 4)

    def recogniser(arrays):  # (time, n, classes)
        return [weights[:, None] * arrays[0][None]]

    (y,) = running(recogniser, (16, batch, 4), batch=batch).run([X])
    np.testing.assert_array_equal(y, weights[None] * X[:, None])


@pytest.mark.parametrize("batch", [None, 1])
def test_rows_are_filled_up_to_the_longest_sample(batch):
    def selected(arrays):
        assert batch is None or len(arrays[0]) == batch
        return [np.argwhere(arrays[0] > 0.5)[:, 1:]]

    (y,) = running(selected, (None, 1), batch=batch, fills=[-1]).run([X])
    assert y.shape == (16, max((X > 0.5).sum(axis=1)), 1)
    for row, x in zip(y[..., 0], X, strict=True):
        np.testing.assert_array_equal(row[row >= 0], np.flatnonzero(x > 0.5))


def test_output_of_a_whole_invocation_is_stacked():
    (y,) = running(lambda arrays: [arrays[0].sum()], (), batch=None).run([X])
    np.testing.assert_allclose(y, X.sum(axis=1), rtol=1e-6)


def test_batch_that_is_called_free_and_is_not():
    seen = []

    def only_one(arrays):
        if len(arrays[0]) != 1:
            raise InputError("the constant shape (1, 4) does not fit")
        seen.append(len(arrays[0]))
        return [arrays[0] * 2]

    (y,) = running(only_one, (None, 4)).run([X])
    np.testing.assert_array_equal(y, X * 2)
    assert set(seen) == {1}


def test_what_only_looks_like_a_batch_is_of_each_sample():
    """Two rows of two samples, and three of three: but of five no more than three."""
    (y,) = running(lambda arrays: [arrays[0][:3]], (None, 4)).run([X])
    np.testing.assert_array_equal(y, X[:, None])


def test_results_that_cannot_be_put_together_are_refused():
    def of_any_rank(arrays):
        return [arrays[0] if arrays[0][0, 0] > 0 else arrays[0].ravel()]

    with refuses("outputs-not-joined"):
        running(of_any_rank, (1, 4), batch=1).run([X])


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(None, 3)], True),
        ([(7, 3), (7, 2)], True),
        ([(None, 3), (1, 2)], True),
        ([(None, 512), (2, None, 128), ()], False),
        ([(None, 3), (8732, 4)], False),
        ([()], False),
    ],
)
def test_inputs_without_a_common_batch(shapes, expected):
    assert samples_first(shapes) is expected


class TestLabels:
    def test_selected_rows_are_a_set_of_each_sample(self):
        r = np.array([[[0, 7], [1, 3], [-1, -1]], [[0, 2], [1, 3], [1, 4]]])
        y = np.array([[[1, 3], [0, 7], [0, 8]], [[1, 4], [0, 2], [0, 7]]])
        found = label_agreement(r, y, OutputKind(True, rows=1))
        assert found.agreement == 4 / 6  # (0, 7) of the first sample does not count in the second
        assert found.labels == 6

    def test_a_constant_answer_agrees_by_chance(self):
        r = (np.arange(1000) % 10 == 0).astype(int)
        found = label_agreement(r, np.zeros_like(r), OutputKind(True))
        assert (found.agreement, found.kappa) == (0.9, pytest.approx(0.0))
        assert label_agreement(r, r, OutputKind(True)).kappa == 1.0

    def test_a_reference_of_one_label_has_no_kappa(self):
        assert label_agreement(np.ones(9), np.ones(9), OutputKind(True)).kappa is None

    def test_outputs_of_other_numbers_of_rows_are_compared(self):
        r, y = np.ones((2, 3, 4), np.float32), np.ones((2, 2, 4), np.float32)
        assert not compare_output("y", r, y, OutputKind(rows=1)).sqnr_db > 5
        with pytest.raises(ValueError, match="shape"):
            compare_output("y", r, y)


def test_samples_of_which_much_is_computed_run_one_by_one():
    """Two and three at once would show which axis is the batch, and take all memory."""
    seen = []

    def doubled(arrays):
        seen.append(len(arrays[0]))
        return [arrays[0] * 2]

    running_large = running(doubled, (None, 4), largest=lambda shapes: 1 << 29)
    np.testing.assert_array_equal(running_large.run([X])[0], X * 2)
    assert set(seen) == {1}


def test_rows_of_a_large_network_are_not_taken_for_samples():
    def selected(arrays):
        assert len(arrays[0]) == 1
        return [np.argwhere(arrays[0] > 0.5)[:, 1:]]

    large = running(selected, (None, 1), fills=[-1], largest=lambda shapes: 1 << 29)
    (y,) = large.run([X])
    assert y.shape == (16, max((X > 0.5).sum(axis=1)), 1)
