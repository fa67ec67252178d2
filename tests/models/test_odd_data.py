"""Data files and functions that are damaged, or of a form that libraries read as something else."""

import gzip
import io
import json
import re
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.models.data.datasets import load_data

GREY = [(None, 4, 6, 1)]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_images_of_16_bits_are_not_clipped(tmp_path, suffix):
    pixels = (np.arange(24).reshape(4, 6) * 2700).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")

    images = load_data(tmp_path, split="test", input_shapes=GREY).inputs[0]

    np.testing.assert_array_equal(images[0, ..., 0], pixels >> 8)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_images_of_numbers_without_a_range_are_refused(tmp_path, dtype):
    Image.fromarray(np.ones((4, 6), dtype)).save(tmp_path / "a.tif")

    with refuses("images-unreadable"):
        load_data(tmp_path, split="test", input_shapes=GREY)


def shard(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


SAMPLE = npy(np.ones((4, 6, 1), np.float32))


@pytest.mark.parametrize(
    ("sample", "label", "code"),
    [
        (re.sub(rb"\(4, 6, 1\), }", rb"(4, 6, 1", SAMPLE), b"1", "data-unreadable"),
        (SAMPLE.replace(b"(4, 6, 1)", b"(4,True,)"), b"1", "data-unreadable"),
        (SAMPLE.replace(b"(4, 6, 1), }    ", b"(4, 99999999), }"), b"1", "header-lies"),
        (SAMPLE, b"9" * 30, "data-unreadable"),
        (SAMPLE, b"9" * 5000, "data-unreadable"),
    ],
)
def test_members_of_a_shard_that_hold_no_sample(tmp_path, sample, label, code):
    shard(tmp_path / "d.tar", {"0.npy": sample, "0.cls": label})

    with refuses(code):
        load_data(tmp_path / "d.tar", split="test", labels=True)


def _text_class(folder):
    shard(folder / "d.tar", {"0.npy": SAMPLE, "0.cls": b"cat"})
    return folder / "d.tar"


def _later_text_class(folder):
    members = {"0.npy": SAMPLE, "0.cls": b"1", "1.npy": SAMPLE, "1.cls": b"cat"}
    shard(folder / "d.tar", members)
    return folder / "d.tar"


def _text_labels(folder):
    np.savez(folder / "d.npz", x=np.ones((2, 4, 6, 1)), y=["cat", "dog"])
    return folder / "d.npz"


def _object_labels(folder):
    np.savez(folder / "d.npz", x=np.ones((2, 4, 6, 1)), y=np.array(["cat", None], object))
    return folder / "d.npz"


def _function_with_text_labels(folder):
    (folder / "texts.py").write_text(
        "import numpy as np\ndef both():\n    return np.ones((2, 4, 6, 1)), ['cat', 'dog']\n"
    )
    return "texts:both"


@pytest.mark.parametrize(
    "make",
    [_text_class, _later_text_class, _text_labels, _object_labels, _function_with_text_labels],
)
def test_labels_of_no_use_are_told_and_left_out_where_none_are_needed(
    tmp_path, make, monkeypatch, caplog
):
    monkeypatch.syspath_prepend(tmp_path)
    source = make(tmp_path)

    data = load_data(source, split="test", input_shapes=GREY)

    assert data.labels is None
    assert data.inputs[0].shape[1:] == (4, 6, 1)
    assert "no labels are read" in caplog.text
    with pytest.raises(InputError):
        load_data(source, split="test", labels=True, input_shapes=GREY)


def test_sparse_members_of_a_shard_are_not_read_as_they_lie(tmp_path):
    shard(tmp_path / "d.tar", {"0.npy": SAMPLE, "1.npy": SAMPLE})
    content = bytearray((tmp_path / "d.tar").read_bytes())
    content[156:157] = tarfile.GNUTYPE_SPARSE
    content[386:398], content[483:495] = b"%011o\0" % 0, b"%011o\0" % len(SAMPLE)
    content[148:156] = b"%06o\0 " % (sum(content[:148]) + 8 * 32 + sum(content[156:512]))
    (tmp_path / "d.tar").write_bytes(content)

    with refuses("data-unreadable"):
        load_data(tmp_path / "d.tar", split="test")


@pytest.mark.parametrize("place", [3, 9, 60, -2])
def test_a_changed_byte_in_a_tfrecord(tmp_path, place):
    tf = pytest.importorskip("tensorflow")
    train = tf.train
    with tf.io.TFRecordWriter(str(tmp_path / "d.tfrecord")) as writer:
        values = train.Feature(float_list=train.FloatList(value=[0.5] * 24))
        example = train.Example(features=train.Features(feature={"x": values}))
        writer.write(example.SerializeToString())
    assert len(load_data(tmp_path / "d.tfrecord", split="test", input_shapes=GREY)) == 1
    content = bytearray((tmp_path / "d.tfrecord").read_bytes())
    content[place] ^= 1
    (tmp_path / "d.tfrecord").write_bytes(content)

    with refuses("data-unreadable"):
        load_data(tmp_path / "d.tfrecord", split="test", input_shapes=GREY)


def test_a_pattern_of_more_files_than_any_data_set(tmp_path):
    with refuses("not-a-data-source"):
        load_data(f"{tmp_path}/d-{{0..99999999999}}.tar", split="test")


@pytest.mark.parametrize("value", [np.inf, 1e30, 2.0**63])
def test_labels_that_no_integer_holds_stay_as_they_are(tmp_path, value):
    np.savez(tmp_path / "d.npz", x=np.ones((2, 3)), y=np.array([value, 1.0]))

    labels = load_data(tmp_path / "d.npz", split="test").labels

    np.testing.assert_array_equal(labels, np.float32([value, 1]))


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_data.py").write_text(
        "import sys\n"
        "import numpy as np\n"
        "x = np.ones((2, 3))\n"
        "def texts():\n    return x, ['cat', 'dog']\n"
        "def none():\n    return x, [1, None]\n"
        "def one():\n    return x, 3\n"
        "def objects():\n    return x, np.array([1, 2], object)\n"
        "def each():\n    yield x[0], 'cat'\n"
        "def ends():\n    sys.exit(0)\n"
    )
    yield "odd_data:"
    sys.modules.pop("odd_data", None)


@pytest.mark.parametrize("name", ["texts", "none", "one", "each"])
def test_labels_of_a_function_that_are_no_numbers(module, name):
    with refuses("not-numbers"):
        load_data(module + name, split="test", labels=True, input_shapes=[(None, 3)])


def test_labels_of_a_function_that_are_numbers_as_objects(module):
    assert load_data(f"{module}objects", split="test").labels.tolist() == [1, 2]


def test_a_function_that_ends_the_program(module):
    with refuses("function-failed"):
        load_data(f"{module}ends", split="test")


def boxes(folder, content):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "a.png")
    (folder / "boxes.json").write_text(content)
    return load_data(folder, split="test").labels


def coco(box, categories=(1,)):
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
            "annotations": [{"image_id": 1, "category_id": categories[-1], "bbox": box}],
            "categories": [{"id": number} for number in categories],
        }
    )


@pytest.mark.parametrize("box", [(0, 0, -4, 4), (0, 0, 4, 1e300), (1e39, 0, 4, 4)])
def test_boxes_that_are_none(tmp_path, box):
    with refuses("boxes-unreadable"):
        boxes(tmp_path, coco(box))


def test_boxes_nested_too_deeply(tmp_path):
    with refuses("boxes-unreadable"):
        boxes(tmp_path, '{"other":' * 5000)


def test_a_category_that_is_listed_twice_is_one(tmp_path):
    assert boxes(tmp_path, coco((0, 0, 4, 4), (1, 1, 2)))[0, 0, 4] == 1


def test_a_single_number_in_the_place_of_samples(tmp_path):
    """It is stored well: only its shape is wrong."""
    np.savez(tmp_path / "d.npz", x_test=np.float32(3))

    with refuses("not-numbers"):
        load_data(tmp_path / "d.npz", split="test", input_shapes=GREY)


def test_an_empty_image_in_a_shard_is_named_by_its_name_alone(tmp_path):
    shard(tmp_path / "d.tar", {"0.png": b"", "0.cls": b"1"})

    with refuses("images-unreadable") as refused:
        load_data(tmp_path / "d.tar", split="test", input_shapes=GREY)
    assert "0.png (no image of a known format)" in refused.value.message


def test_compressed_records_say_how_to_unpack_them(tmp_path):
    pytest.importorskip("tensorflow")
    (tmp_path / "d.tfrecord").write_bytes(gzip.compress(b"records"))

    with refuses("data-unreadable") as refused:
        load_data(tmp_path / "d.tfrecord", split="test", input_shapes=GREY)
    assert "gunzip -c" in refused.value.hint


def test_an_array_without_a_name_says_which_it_needs(tmp_path):
    np.savez(tmp_path / "d.npz", np.ones((2, 4, 6, 1)))

    with refuses("array-not-found") as refused:
        load_data(tmp_path / "d.npz", split="test", input_shapes=GREY)
    assert "numpy.savez(..., x_test=images)" in refused.value.hint
