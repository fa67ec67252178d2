"""Images keep their meaning whichever axis their channels are on."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dsconvert.models.data.datasets import Data, load_data
from dsconvert.models.data.preprocess import Preprocessing


class TestLayout:
    """The channel axis goes where the model takes it, by the shapes alone."""

    @pytest.mark.parametrize(
        ("stored", "model", "layout", "shape"),
        [
            ((4, 6, 5, 3), (None, 3, 6, 5), "moved first", (4, 3, 6, 5)),
            ((4, 3, 6, 5), (None, 6, 5, 3), "moved last", (4, 6, 5, 3)),
            ((4, 6, 5, 3), (1, 3, None, None), "moved first", (4, 3, 6, 5)),
            ((4, 6, 5), (None, 1, 6, 5), "added first", (4, 1, 6, 5)),
            ((4, 6, 5), (None, 6, 5, 1), "added last", (4, 6, 5, 1)),
            ((4, 6, 5, 1), (None, 1, 6, 5), "moved first", (4, 1, 6, 5)),
            ((4, 3, 6, 5), (None, 3, 6, 5), None, (4, 3, 6, 5)),
            ((4, 3, 3, 3), (None, 3, 3, 3), None, (4, 3, 3, 3)),  # both fit
            ((4, 3, 6, 3), (None, 3, None, None), None, (4, 3, 6, 3)),  # both fit
            ((4, 7, 5, 3), (None, 3, 6, 5), None, (4, 7, 5, 3)),  # neither fits
            ((4,), (None, 1), "added last", (4, 1)),
            ((4, 6), (None, 1, 6), None, (4, 6)),
        ],
    )
    def test_moved_only_where_needed(self, tmp_path, rng, stored, model, layout, shape):
        x = rng.random(stored)
        np.save(tmp_path / "d.npy", x)
        data = load_data(tmp_path / "d.npy", split="train", input_shapes=[model])
        assert data.inputs[0].shape == shape
        assert data.preprocessing.layout == (() if layout is None else (layout,))
        moves = {"moved first": (0, 3, 1, 2), "moved last": (0, 2, 3, 1)}
        expected = x.transpose(moves[layout]) if layout in moves else x.reshape(shape)
        np.testing.assert_array_equal(data.inputs[0], expected.astype(np.float32))

    @pytest.mark.parametrize("stored", ["last", "first"])
    @pytest.mark.parametrize("model", ["last", "first"])
    def test_mean_and_std_follow_the_channel_axis(self, tmp_path, rng, stored, model):
        x = rng.random((4, 6, 5, 3))
        first = {"last": x, "first": x.transpose(0, 3, 1, 2)}
        np.save(tmp_path / "d.npy", first[stored])
        mean, std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
        shape = {"last": (None, 6, 5, 3), "first": (None, 3, 6, 5)}[model]
        data = load_data(
            tmp_path / "d.npy",
            split="train",
            input_shapes=[shape],
            preprocessing=Preprocessing(mean=mean, std=std),
        )
        expected = (x - mean) / std
        if model == "first":
            expected = expected.transpose(0, 3, 1, 2)
        np.testing.assert_allclose(data.inputs[0], expected, atol=1e-6)

    def test_the_wish_wins_where_both_fit(self, tmp_path, rng):
        x = rng.random((2, 3, 3, 3))
        np.save(tmp_path / "d.npy", x)
        data = load_data(
            tmp_path / "d.npy",
            split="train",
            input_shapes=[(None, 3, 3, 3)],
            preprocessing=Preprocessing(channels_first=True),
        )
        np.testing.assert_allclose(data.inputs[0], x.transpose(0, 3, 1, 2), rtol=1e-6)

    def test_there_and_back(self, rng):
        x = rng.random((4, 6, 5, 3))
        data = Data((x, np.ones((4, 2))))
        first, last = [(None, 3, 6, 5), (None, 2)], [(None, 6, 5, 3), (None, 2)]
        moved = data.laid_out(first)
        assert moved.preprocessing.layout == ("moved first", "as stored")
        np.testing.assert_array_equal(moved.inputs[0], x.transpose(0, 3, 1, 2))
        back = moved.laid_out(last)
        assert back.preprocessing.layout == ()
        np.testing.assert_array_equal(back.inputs[0], x)
        assert data.laid_out(last) is data

    def test_a_sample_of_a_channels_first_model(self, tmp_path, monkeypatch):
        """Labelled samples (1, H, W) are samples; unlabelled ones are batches of one image."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "torch_data.py").write_text(
            "import numpy as np\n"
            "x = np.arange(40.0).reshape(10, 1, 2, 2)\n"
            "def labelled():\n    yield from zip(x, range(10))\n"
            "def unlabelled():\n    yield from x\n"
            "def plain():\n    yield x[:9, 0], [0] * 9\n    yield x[9:, 0], [0]\n"
        )
        for name in ("labelled", "unlabelled", "plain"):
            for shape in ((None, 1, 2, 2), (None, 2, 2, 1)):
                data = load_data(f"torch_data:{name}", split="train", input_shapes=[shape])
                assert data.inputs[0].shape == (10, *shape[1:])
                np.testing.assert_array_equal(data.inputs[0].ravel(), np.arange(40.0))
        sys.modules.pop("torch_data", None)
