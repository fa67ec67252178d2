"""Data that memory need not hold: arrays on disk, records, and training from them."""

from __future__ import annotations

import io
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from dsconvert.base.errors import InputError
from dsconvert.models.data.datasets import load_data
from dsconvert.models.data.preprocess import Preprocessing
from dsconvert.models.data.stored import Stored
from dsconvert.models.evaluation.plausibility import suspicions

SHAPE = [(None, 6, 4, 3)]
SCALED = Preprocessing(scale=1 / 255, mean=(0.1, 0.2, 0.3))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (12, 6, 4, 3), dtype=np.uint8)


@pytest.fixture
def labels():
    return np.arange(12) % 5


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path, images, labels=None, suffix="png"):
    with tarfile.open(path, "w") as archive:

        def add(name, content):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        for number, pixels in enumerate(images):
            if suffix == "npy":
                stream = io.BytesIO()
                np.save(stream, pixels)
                add(f"a.b/{number:03}.npy", stream.getvalue())
            else:
                add(f"a.b/{number:03}.png", png(pixels))
            add(f"a.b/{number:03}.json", b"{}")
            if labels is not None:
                add(f"a.b/{number:03}.cls", str(labels[number]).encode())


def write_tfrecord(path, examples):
    tf = pytest.importorskip("tensorflow")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for features in examples:
            writer.write(
                tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
            )


def image_examples(images, labels, names=("image/encoded", "image/class/label")):
    train = pytest.importorskip("tensorflow").train
    for pixels, label in zip(images, labels, strict=True):
        yield {
            names[0]: train.Feature(bytes_list=train.BytesList(value=[png(pixels)])),
            names[1]: train.Feature(int64_list=train.Int64List(value=[label])),
        }


def same(source, expected, **wishes):
    """Whatever the memory, the samples are those of arrays in memory."""
    for memory in (None, 1, expected.nbytes - 1):
        got = load_data(source, split="train", memory=memory, **wishes)
        assert got.on_disk == (memory is not None)
        assert got.inputs[0].shape == expected.shape
        np.testing.assert_array_equal(got.inputs[0][:], expected)
        np.testing.assert_array_equal(got.inputs[0][np.array([3, 1])], expected[[3, 1]])


class TestArrays:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    @pytest.mark.parametrize("samples", [None, 7])
    def test_npz(self, tmp_path, images, labels, save, samples):
        save(tmp_path / "d.npz", x_train=images, y_train=labels, x_test=images[:1])
        wishes = {"preprocessing": SCALED, "input_shapes": SHAPE, "samples": samples}
        index = slice(None)
        if samples:
            index = np.sort(np.random.default_rng(0).permutation(12)[:samples])
        same(tmp_path / "d.npz", SCALED.apply(images)[index], **wishes)
        data = load_data(tmp_path / "d.npz", split="train", memory=1, **wishes)
        np.testing.assert_array_equal(data.labels, labels[index])

    def test_columns_first(self, tmp_path, images):
        np.savez(tmp_path / "d.npz", x=np.asfortranarray(images))
        same(tmp_path / "d.npz", images.astype(np.float32))

    def test_npy_moved_to_where_the_model_takes_channels(self, tmp_path, images):
        np.save(tmp_path / "d.npy", images)
        expected = images.transpose(0, 3, 1, 2).astype(np.float32)
        same(tmp_path / "d.npy", expected, input_shapes=[(None, 3, 6, 4)])

    def test_laid_out_again(self, tmp_path, images):
        np.save(tmp_path / "d.npy", images)
        data = load_data(tmp_path / "d.npy", split="train", memory=1)
        moved = data.laid_out([(None, 3, 6, 4)])
        assert moved.inputs[0].shape == (12, 3, 6, 4)
        np.testing.assert_array_equal(moved.inputs[0][2:5], images[2:5].transpose(0, 3, 1, 2))

    def test_take_reads_nothing(self):
        read = []

        def samples(index):
            read.append(index.tolist())
            return index.astype(np.float32)

        stored = Stored(samples, (10,), np.dtype(np.float32), "numbers")
        part = stored.select(slice(2, 8)).select(np.array([5, 0]))
        assert (read, part.shape) == ([], (2,))
        assert part[:].tolist() == [7, 2]
        assert read == [[7, 2]]

    def test_wrong_channels_are_told_at_once(self, tmp_path, images):
        np.save(tmp_path / "d.npy", images)
        with pytest.raises(InputError) as refused:
            load_data(
                tmp_path / "d.npy",
                split="train",
                memory=1,
                preprocessing=Preprocessing(mean=(1.0, 2.0)),
            )
        assert refused.value.code == "wrong-channel-count"

    def test_only_a_few_are_looked_at(self, tmp_path):
        np.save(tmp_path / "d.npy", np.zeros((1000, 2), np.float32))
        data = load_data(tmp_path / "d.npy", split="train", memory=1)
        assert "is constant" in suspicions(data)[0]


class TestFolder:
    def test_images(self, tmp_path, images):
        for number, pixels in enumerate(images):
            (tmp_path / f"c{number % 2}").mkdir(exist_ok=True)
            (tmp_path / f"c{number % 2}" / f"{number:02}.png").write_bytes(png(pixels))
        expected = np.concatenate([images[::2], images[1::2]]).astype(np.float32)
        same(tmp_path, expected)

    def test_a_damaged_image_is_named_when_it_is_read(self, tmp_path, images):
        for number, pixels in enumerate(images):
            (tmp_path / f"{number:02}.png").write_bytes(png(pixels))
        (tmp_path / "07.png").write_bytes(png(images[7])[:-30])
        data = load_data(tmp_path, split="train", memory=1)
        assert len(data.inputs[0][:7]) == 7
        with pytest.raises(InputError) as refused:
            data.inputs[0][5:9]
        assert refused.value.code == "images-unreadable"
        assert "07.png" in refused.value.message


class TestTar:
    def test_images_and_classes(self, tmp_path, images, labels):
        write_tar(tmp_path / "s-000.tar", images[:8], labels[:8])
        write_tar(tmp_path / "s-001.tar", images[8:], labels[8:])
        for source in (tmp_path, f"{tmp_path}/s-*.tar", f"{tmp_path}/s-{{000..001}}.tar"):
            same(source, images.astype(np.float32), input_shapes=SHAPE)
            data = load_data(source, split="train", memory=1, labels=True)
            np.testing.assert_array_equal(data.labels, labels)
        assert load_data(tmp_path, split="train", memory=1).labels is None  # unread

    def test_arrays(self, tmp_path, images):
        write_tar(tmp_path / "d.tar", images / np.float32(2), suffix="npy")
        same(tmp_path / "d.tar", images / np.float32(2))

    def test_splits_by_name(self, tmp_path, images):
        write_tar(tmp_path / "d-train-0.tar", images[:8])
        write_tar(tmp_path / "d-val-0.tar", images[8:])
        assert len(load_data(tmp_path, split="train")) == 8
        assert len(load_data(tmp_path, split="test")) == 4
        (tmp_path / "d-val-0.tar").unlink()
        with pytest.raises(InputError) as refused:
            load_data(tmp_path, split="test")
        assert refused.value.code == "split-not-found"

    @pytest.mark.parametrize(
        ("content", "code"), [(b"no archive" * 100, "data-unreadable"), (b"", "data-unreadable")]
    )
    def test_no_archive(self, tmp_path, content, code):
        (tmp_path / "d.tar").write_bytes(content)
        with pytest.raises(InputError) as refused:
            load_data(tmp_path / "d.tar", split="train")
        assert refused.value.code == code

    @pytest.mark.parametrize("size", [200, 512, 700, 1024, 5 * 512, 5 * 512 + 9, 6 * 512])
    def test_cut(self, tmp_path, images, size):
        write_tar(tmp_path / "d.tar", images)
        whole = (tmp_path / "d.tar").read_bytes()
        (tmp_path / "d.tar").write_bytes(whole[:size])
        with pytest.raises(InputError) as refused:
            load_data(tmp_path / "d.tar", split="train")
        assert refused.value.code == "data-unreadable"

    def test_a_label_that_is_no_class(self, tmp_path, images):
        write_tar(tmp_path / "d.tar", images, ["cat"] * 12)
        with pytest.raises(InputError) as refused:
            load_data(tmp_path / "d.tar", split="train", labels=True)
        assert refused.value.code == "data-unreadable"

    def test_no_file(self, tmp_path):
        with pytest.raises(InputError) as refused:
            load_data(tmp_path / "d.tar", split="train")
        assert refused.value.code == "data-not-found"

    def test_a_model_of_two_inputs(self, tmp_path, images):
        write_tar(tmp_path / "d.tar", images)
        with pytest.raises(InputError) as refused:
            load_data(
                tmp_path / "d.tar", split="train", input_names="ab", input_shapes=[(None, 2)] * 2
            )
        assert refused.value.code == "inputs-missing"


class TestTfRecord:
    @pytest.mark.parametrize("names", [("image/encoded", "image/class/label"), ("image", "label")])
    def test_images_and_classes(self, tmp_path, images, labels, names):
        path = tmp_path / "d.tfrecord-00000-of-00001"
        write_tfrecord(path, image_examples(images, labels, names))
        same(path, images.astype(np.float32), input_shapes=SHAPE)
        data = load_data(tmp_path, split="train", labels=True)
        np.testing.assert_array_equal(data.labels, labels)

    def test_numbers_in_the_shape_of_the_model(self, tmp_path, images):
        train = pytest.importorskip("tensorflow").train
        values = images / np.float32(3)
        write_tfrecord(
            tmp_path / "d.tfrecord",
            (
                {"signal": train.Feature(float_list=train.FloatList(value=one.ravel()))}
                for one in values
            ),
        )
        wishes = {"input_names": ["signal"], "input_shapes": SHAPE}
        same(tmp_path / "d.tfrecord", values, **wishes)
        with pytest.raises(InputError) as refused:
            load_data(
                tmp_path / "d.tfrecord",
                split="train",
                input_names=["signal"],
                input_shapes=[(None, 5)],
            )
        assert refused.value.code == "shape-mismatch"

    def test_what_tfds_has_prepared(self, tmp_path, images, labels, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        for version, count in (("1.9.0", 4), ("1.10.0", 12)):
            folder = tmp_path / "tiny" / version
            folder.mkdir(parents=True)
            examples = image_examples(images[:count], labels[:count], ("image", "label"))
            write_tfrecord(folder / "tiny-train.tfrecord-00000-of-00001", examples)
        same("tfds:tiny", images.astype(np.float32), input_shapes=SHAPE)
        assert len(load_data("tfds:tiny:1.9.0", split="train")) == 4
        for absent in ("tfds:tiny:3.0.0", "tfds:huge"):
            with pytest.raises(InputError) as refused:
                load_data(absent, split="train")
            assert refused.value.code == "data-not-found"

    @pytest.mark.parametrize(
        "content",
        [
            b"\x1f\x8b" + bytes(50),
            b"short",
            struct.pack("<Q", 2**62) + bytes(40),
            struct.pack("<Q", 4) + bytes(4) + b"\xff\xff\xff\xff" + bytes(4),
        ],
        ids=["compressed", "short", "length lies", "no example"],
    )
    def test_damaged(self, tmp_path, content):
        pytest.importorskip("tensorflow")
        (tmp_path / "d.tfrecord").write_bytes(content)
        with pytest.raises(InputError) as refused:
            load_data(tmp_path / "d.tfrecord", split="train")
        assert refused.value.code == "data-unreadable"

    def test_other_features(self, tmp_path):
        train = pytest.importorskip("tensorflow").train
        write_tfrecord(
            tmp_path / "d.tfrecord",
            [{"text": train.Feature(bytes_list=train.BytesList(value=[b"a"]))}],
        )
        with pytest.raises(InputError) as refused:
            load_data(tmp_path / "d.tfrecord", split="train")
        assert refused.value.code == "array-not-found"
        assert "text" in refused.value.message


class TestTraining:
    """The same batches from disk and from memory give the same weights."""

    @pytest.mark.parametrize("augment", [(), ("flip", "crop")])
    def test_weights(self, tmp_path, images, augment):
        keras = pytest.importorskip("keras")
        from dsconvert.models.training.finetune import finetune
        from dsconvert.models.training.settings import FinetuneSettings

        np.save(tmp_path / "d.npy", images)
        keras.utils.set_random_seed(0)
        teacher, *students = (
            keras.Sequential(
                [keras.Input((6, 4, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
            )
            for _ in range(3)
        )
        students[1].set_weights(students[0].get_weights())
        settings = FinetuneSettings(epochs=2, batch_size=3, augment=augment, validation=3)
        for student, memory in zip(students, (None, 1), strict=True):
            data = load_data(tmp_path / "d.npy", split="train", memory=memory)
            tuned = finetune(student, teacher, data, settings)
            assert tuned.best_epoch > 0
        for one, other in zip(*(student.get_weights() for student in students), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_another_file_is_another_run(self, tmp_path, images):
        from dsconvert.models.training.checkpoint import fingerprint

        found = set()
        for name in ("a", "b"):
            np.save(tmp_path / f"{name}.npy", images)
            data = load_data(tmp_path / f"{name}.npy", split="train", memory=1)
            found |= {fingerprint(data.inputs), fingerprint(data.take(slice(5)).inputs)}
        assert len(found) == 4
