from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.models.data.datasets import load_data, plain_labels
from dsconvert.models.data.preprocess import Preprocessing


@pytest.fixture
def archive(tmp_path, rng):
    """An .npz file with training and test data, and its arrays."""
    arrays = {
        "x_train": rng.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8),
        "y_train": rng.integers(0, 4, 20),
        "x_test": rng.integers(0, 256, (8, 6, 5, 3), dtype=np.uint8),
        "y_test": rng.integers(0, 4, 8),
    }
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path, arrays


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


class TestArchive:
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_splits(self, archive, split):
        path, arrays = archive
        data = load_data(path, split=split, preprocessing=Preprocessing(scale=0.5))
        np.testing.assert_array_equal(data.inputs[0], arrays[f"x_{split}"] * np.float32(0.5))
        np.testing.assert_array_equal(data.labels, arrays[f"y_{split}"])
        assert data.source == str(path)
        assert len(data) == len(arrays[f"x_{split}"])

    def test_samples_are_drawn_with_their_labels(self, archive):
        path, arrays = archive
        data = load_data(path, split="train", samples=7, seed=3)
        again = load_data(path, split="train", samples=7, seed=3)
        other = load_data(path, split="train", samples=7, seed=4)
        np.testing.assert_array_equal(data.inputs[0], again.inputs[0])
        assert not np.array_equal(data.inputs[0], other.inputs[0])
        where = [
            next(i for i, x in enumerate(arrays["x_train"]) if np.array_equal(x, sample))
            for sample in data.inputs[0]
        ]
        assert len(set(where)) == 7
        np.testing.assert_array_equal(data.labels, arrays["y_train"][where])

    def test_plain_names_serve_both(self, tmp_path):
        np.savez(tmp_path / "d.npz", x=np.arange(6.0).reshape(3, 2), y=[0, 1, 1])
        for split in ("train", "test"):
            data = load_data(tmp_path / "d.npz", split=split)
            np.testing.assert_array_equal(data.labels, [0, 1, 1])

    def test_plain_labels_do_not_go_with_split_inputs(self, tmp_path):
        np.savez(tmp_path / "d.npz", x_train=np.ones((3, 2)), y=[0, 1, 1])
        assert load_data(tmp_path / "d.npz", split="train").labels is None

    def test_several_inputs_by_name(self, tmp_path):
        np.savez(tmp_path / "d.npz", b=np.ones((3, 2)), a_train=np.zeros((3, 4)), y=[1, 2, 3])
        data = load_data(tmp_path / "d.npz", split="train", input_names=["a", "b"])
        assert [x.shape for x in data.inputs] == [(3, 4), (3, 2)]
        assert data.names == ("a", "b")

    @pytest.mark.parametrize("names", [["left_image", "right"], ["left image", "right:0"]])
    def test_names_that_a_file_format_changed(self, tmp_path, names):
        stored = {"left image": np.ones((3, 2)), "right": np.zeros((3, 4))}
        np.savez(tmp_path / "d.npz", **stored)
        data = load_data(tmp_path / "d.npz", split="test", input_names=names)
        assert [x.shape for x in data.inputs] == [(3, 2), (3, 4)]

    def test_a_name_that_is_missing_is_told_once(self, tmp_path):
        np.savez(tmp_path / "a.npz", image=np.zeros((4, 3)))
        with pytest.raises(InputError) as refused:
            load_data(tmp_path / "a.npz", split="test", input_names=["x"])
        assert "no array x_test or x to test with" in refused.value.message

    def test_a_name_that_may_be_either_is_none(self, tmp_path):
        np.savez(tmp_path / "d.npz", **{"a b": np.ones((3, 2)), "a-b": np.ones((3, 2)), "c": [1]})
        with pytest.raises(InputError) as refused:
            load_data(tmp_path / "d.npz", split="test", input_names=["a_b", "c"])
        assert refused.value.code == "array-not-found"

    def test_channel_axis_is_added(self, tmp_path):
        np.save(tmp_path / "d.npy", np.zeros((3, 8, 7), np.uint8))
        shape = (None, 8, 7, 1)
        assert load_data(tmp_path / "d.npy", split="train", input_shapes=[shape]).inputs[
            0
        ].shape == (3, 8, 7, 1)
        first = Preprocessing(channels_first=True)
        assert load_data(
            tmp_path / "d.npy", split="train", input_shapes=[(None, 1, 8, 7)], preprocessing=first
        ).inputs[0].shape == (3, 1, 8, 7)

    @pytest.mark.parametrize(
        ("stored", "plain"),
        [
            (np.eye(3)[[2, 0, 1]], [2, 0, 1]),
            (np.array([[2], [0], [1]], np.uint8), [2, 0, 1]),
            (np.array([2.0, 0.0, 1.0]), [2, 0, 1]),
            (np.array([2, 0, 1], np.float16), [2, 0, 1]),
            (np.array([2, 0, 1], np.uint64), [2, 0, 1]),
        ],
    )
    @pytest.mark.filterwarnings("error")
    def test_class_labels(self, tmp_path, stored, plain):
        np.savez(tmp_path / "d.npz", x=np.zeros((3, 2)), y=stored)
        labels = load_data(tmp_path / "d.npz", split="test").labels
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, plain)

    def test_what_int64_does_not_hold_stays(self):
        labels = np.array([2**63 + 1, 0], np.uint64)
        np.testing.assert_array_equal(plain_labels(labels), labels)

    def test_regression_targets(self, tmp_path):
        np.savez(tmp_path / "d.npz", x=np.zeros((3, 2)), y=[0.5, 1.0, 2.0])
        labels = load_data(tmp_path / "d.npz", split="test").labels
        assert labels.dtype == np.float32
        np.testing.assert_array_equal(labels, np.float32([0.5, 1.0, 2.0]))

    def test_missing_keys_are_listed(self, tmp_path):
        np.savez(tmp_path / "d.npz", images=np.zeros((3, 2)), classes=[1])
        with pytest.raises(InputError, match=r"no array x_test or x .*it has images, classes"):
            load_data(tmp_path / "d.npz", split="test")

    def test_missing_labels(self, tmp_path):
        np.save(tmp_path / "d.npy", np.zeros((3, 2)))
        with refuses("needs-labels"):
            load_data(tmp_path / "d.npy", split="test", labels=True)

    def test_numbers_differ(self, tmp_path):
        np.savez(tmp_path / "d.npz", x=np.zeros((3, 2)), y=[1, 2])
        with pytest.raises(InputError, match=r"differ in number: \[3, 2\]"):
            load_data(tmp_path / "d.npz", split="test")

    @pytest.mark.parametrize("content", [b"", b"not a zip file"])
    @pytest.mark.parametrize("name", ["d.npz", "d.npy"])
    def test_damaged(self, tmp_path, content, name):
        (tmp_path / name).write_bytes(content)
        with refuses("data-unreadable"):
            load_data(tmp_path / name, split="test")

    def test_objects_are_not_unpickled(self, tmp_path):
        np.savez(tmp_path / "d.npz", x=np.array([{}, None], object))
        with pytest.raises(InputError, match="Python objects") as refused:
            load_data(tmp_path / "d.npz", split="test")
        assert refused.value.code == "data-unreadable"
        assert "dtype" in refused.value.hint  # to copy it again does not help

    @pytest.mark.parametrize("source", ["nowhere.npz", "nowhere", "nowhere.csv"])
    def test_nowhere(self, tmp_path, source):
        with pytest.raises(InputError, match="does not exist"):
            load_data(tmp_path / source, split="test")

    def test_no_samples_asked_for(self, archive):
        with pytest.raises(InputError, match="0 samples"):
            load_data(archive[0], split="train", samples=0)


class TestFolder:
    def test_classes_are_sorted_folders(self, tmp_path):
        for number, name in enumerate(["dog", "ant", "cat"]):
            save(tmp_path / name / "1.png", np.full((4, 5, 3), number, np.uint8))
        data = load_data(tmp_path, split="train")
        np.testing.assert_array_equal(data.labels, [0, 1, 2])
        np.testing.assert_array_equal(data.inputs[0][:, 0, 0, 0], [1, 2, 0])

    def test_an_empty_class_keeps_its_number(self, tmp_path):
        (tmp_path / "a").mkdir()
        save(tmp_path / "b" / "1.png", np.zeros((4, 5, 3), np.uint8))
        np.testing.assert_array_equal(load_data(tmp_path, split="test").labels, [1])

    def test_split_folders(self, tmp_path):
        save(tmp_path / "train" / "1.png", np.full((4, 5, 3), 7, np.uint8))
        data = load_data(tmp_path, split="train")
        assert data.labels is None
        assert (data.inputs[0] == 7).all()
        with pytest.raises(InputError, match=r"train/ but none named test/"):
            load_data(tmp_path, split="test")

    def test_resized_bilinearly_to_the_model(self, tmp_path, rng):
        pixels = rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)
        save(tmp_path / "1.png", pixels)
        data = load_data(tmp_path, split="train", input_shapes=[(None, 6, 4, 3)])
        expected = Image.fromarray(pixels).resize((4, 6), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(data.inputs[0][0], np.asarray(expected, np.float32))

    def test_grayscale_and_channels_first(self, tmp_path, rng):
        save(tmp_path / "1.png", rng.integers(0, 256, (6, 4, 3), dtype=np.uint8))
        data = load_data(
            tmp_path,
            split="train",
            input_shapes=[(None, 1, 6, 4)],
            preprocessing=Preprocessing(channels_first=True),
        )
        assert data.inputs[0].shape == (1, 1, 6, 4)

    def test_image_size(self, tmp_path):
        save(tmp_path / "1.png", np.zeros((6, 4, 3), np.uint8))
        save(tmp_path / "2.png", np.zeros((5, 4, 3), np.uint8))
        shapes = [(None, None, None, 3)]
        with pytest.raises(InputError, match=r"2 different sizes \(5×4, 6×4"):
            load_data(tmp_path, split="train", input_shapes=shapes)
        data = load_data(tmp_path, split="train", input_shapes=shapes, image_size=(7, 9))
        assert data.inputs[0].shape == (2, 7, 9, 3)

    def test_damaged_images_are_named(self, tmp_path):
        save(tmp_path / "good.png", np.zeros((6, 4, 3), np.uint8))
        (tmp_path / "bad.png").write_bytes(b"no image")
        cut = (tmp_path / "good.png").read_bytes()[:-30]
        (tmp_path / "cut.png").write_bytes(cut)
        with pytest.raises(InputError, match=r"2 of 3 images cannot be read.*bad\.png.*cut\.png"):
            load_data(tmp_path, split="train")

    def test_only_drawn_images_are_read(self, tmp_path):
        for number in range(4):
            save(tmp_path / "a" / f"{number}.png", np.full((4, 4, 3), number, np.uint8))
        assert len(load_data(tmp_path, split="train", samples=2)) == 2

    def test_no_images(self, tmp_path):
        (tmp_path / "readme.txt").write_text("none")
        with refuses("no-images"):
            load_data(tmp_path, split="train")

    def test_images_beside_classes(self, tmp_path):
        save(tmp_path / "1.png", np.zeros((6, 4, 3), np.uint8))
        save(tmp_path / "a" / "1.png", np.zeros((6, 4, 3), np.uint8))
        with pytest.raises(InputError, match="1 images beside sub-folders with 1 more"):
            load_data(tmp_path, split="train")

    def test_model_without_images(self, tmp_path):
        save(tmp_path / "1.png", np.zeros((6, 4, 3), np.uint8))
        with pytest.raises(InputError, match=r"the model takes \(None, 7\)"):
            load_data(tmp_path, split="train", input_shapes=[(None, 7)])

    @pytest.mark.parametrize(
        ("shape", "got"),
        [
            ((None, 3, 8, 9), (1, 3, 8, 9)),
            ((None, 1, 8, 9), (1, 1, 8, 9)),
            ((None, 3, None, None), (1, 3, 6, 4)),
            ((None, None, None, None), (1, 6, 4, 3)),
        ],
    )
    def test_channels_first_models(self, tmp_path, rng, shape, got):
        save(tmp_path / "1.png", rng.integers(0, 256, (6, 4, 3), dtype=np.uint8))
        assert load_data(tmp_path, split="train", input_shapes=[shape]).inputs[0].shape == got


class TestFunction:
    @pytest.fixture
    def module(self, tmp_path, monkeypatch):
        """Write a module into the current folder; gives "module:" to put a name behind."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "given_data.py").write_text(
            "import numpy as np\n"
            "x = np.arange(40.0).reshape(10, 2, 2)\n"
            "y = np.arange(10)\n"
            "def arrays(split):\n    return (x, y) if split == 'train' else (x[:4], y[:4])\n"
            "def only_x():\n    return x\n"
            "def batches():\n    yield x[:6, ..., None], y[:6]\n    yield x[6:, ..., None], y[6:]\n"
            "def flat_batches():\n    yield x[:6]\n    yield x[6:]\n"
            "def singles():\n    yield from zip(x[..., None], y)\n"
            "def forever():\n    while True:\n        yield from x[..., None]\n"
            "def named():\n    yield {'b': x, 'a': x[:, 0]}, y\n"
            "def dataset():\n"
            "    import tensorflow as tf\n"
            "    return tf.data.Dataset.from_tensor_slices((x[..., None], y)).batch(4)\n"
            "def fails():\n    raise RuntimeError('no disk')\n"
            "def nothing():\n    yield from ()\n"
            "def triple():\n    yield 1, 2, 3\n"
        )
        yield "given_data:"
        sys.modules.pop("given_data", None)

    @pytest.mark.parametrize("name", ["arrays", "batches", "singles", "dataset"])
    def test_forms(self, module, name):
        data = load_data(module + name, split="train", input_shapes=[(None, 2, 2, 1)])
        np.testing.assert_array_equal(data.inputs[0], np.arange(40.0).reshape(10, 2, 2, 1))
        np.testing.assert_array_equal(data.labels, np.arange(10))

    @pytest.mark.parametrize("name", ["batches", "flat_batches", "singles"])
    def test_free_sizes(self, module, name):
        data = load_data(module + name, split="train", input_shapes=[(None, None, None, 1)])
        np.testing.assert_array_equal(data.inputs[0], np.arange(40.0).reshape(10, 2, 2, 1))

    @pytest.mark.parametrize("name", ["only_x", "flat_batches"])
    def test_without_labels(self, module, name):
        data = load_data(module + name, split="test", input_shapes=[(None, 2, 2, 1)])
        np.testing.assert_array_equal(data.inputs[0], np.arange(40.0).reshape(10, 2, 2, 1))
        assert data.labels is None

    def test_split_is_passed(self, module):
        assert len(load_data(module + "arrays", split="test")) == 4

    def test_endless(self, module):
        data = load_data(
            module + "forever", split="train", samples=13, input_shapes=[(None, 2, 2, 1)]
        )
        assert len(data) == 13

    def test_several_inputs(self, module):
        data = load_data(module + "named", split="train", input_names=["a", "b"])
        assert [x.shape for x in data.inputs] == [(10, 2), (10, 2, 2)]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("fails", "RuntimeError: no disk"),
            ("nothing", "no samples"),
            ("triple", "tuple of 3"),
            ("absent", "absent"),
        ],
    )
    def test_refuses(self, module, name, message):
        with pytest.raises(InputError, match=message):
            load_data(module + name, split="train")

    def test_no_module(self):
        with pytest.raises(InputError, match="no_such_module_here"):
            load_data("no_such_module_here:f", split="train")
