"""Model and data files that are damaged, lie about their size, or point at other files."""

import errno
import json
import shutil
import zipfile
from importlib import import_module

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.models.data.datasets import load_data
from dsconvert.models.loading import load

KERNEL = "c2/{}/c2/kernel"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with one sound model as base.h5 and base.keras."""
    folder = tmp_path_factory.mktemp("sound")
    x = image = keras.Input((8, 8, 3))
    for name in ("c1", "c2"):
        x = layers.Conv2D(8, 3, padding="same", name=name)(x)
    model = keras.Model(image, layers.Dense(4, name="d")(layers.GlobalAveragePooling2D()(x)))
    model.save(folder / "base.keras")
    model.save(folder / "base.h5")
    return folder


def kernel_of(file):
    """The place of c2's kernel below model_weights."""
    found = []
    group = file["model_weights"]
    group.visititems(
        lambda name, item: (
            found.append(name)
            if isinstance(item, h5py.Dataset) and name.startswith("c2/") and "kernel" in name
            else None
        )
    )
    return group, found[0]


def outside(group, key, shape, folder):
    (folder / "private").write_bytes(bytes(4 * int(np.prod(shape))))
    group.create_dataset(key, shape, dtype="f4", external=[(str(folder / "private"), 0, 10**6)])


def linked(group, key, shape, folder):
    with h5py.File(folder / "other.h5", "w") as file:
        file["secret"] = np.full(shape, 42.0, "f4")
    group[key] = h5py.ExternalLink(str(folder / "other.h5"), "/secret")


def virtual(group, key, shape, folder):
    with h5py.File(folder / "other.h5", "w") as file:
        file["secret"] = np.full(shape, 42.0, "f4")
    layout = h5py.VirtualLayout(shape, dtype="f4")
    layout[...] = h5py.VirtualSource(str(folder / "other.h5"), "secret", shape=shape)
    group.create_virtual_dataset(key, layout)


def bomb(group, key, shape, folder):
    group.create_dataset(key, (10**9,), dtype="f4", chunks=(2**20,), fillvalue=1.0)


def deflated_bomb(group, key, shape, folder):
    zeros = np.zeros((2**20,), "f4")
    group.create_dataset(key, data=zeros, chunks=(2**20,), compression="gzip")


def loop(group, key, shape, folder):
    group[key] = h5py.SoftLink("/model_weights/" + key)


def text(group, key, shape, folder):
    group.create_dataset(key, shape, dtype=h5py.string_dtype())


def test_a_full_folder_for_temporary_files_is_no_damage(good, monkeypatch):
    """An archive is unpacked before it is read; the file is not blamed for the disk."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(import_module("dsconvert.models.loading.load"), "copyfileobj", full)
    with refuses("not-writable"):
        load(good / "base.keras")


@pytest.mark.parametrize(
    "change", [outside, linked, virtual, bomb, deflated_bomb, loop, text], ids=lambda f: f.__name__
)
def test_weights_that_are_not_in_the_file(good, tmp_path, change):
    path = tmp_path / "changed.h5"
    shutil.copy(good / "base.h5", path)
    with h5py.File(path, "r+") as file:
        group, key = kernel_of(file)
        shape = group[key].shape
        del group[key]
        change(group, key, shape, tmp_path)

    with pytest.raises(InputError) as refused:
        load(path)

    assert "changed.h5" in refused.value.message


def test_weights_of_an_archive_that_are_in_another_file(good, tmp_path):
    weights = tmp_path / "model.weights.h5"
    with zipfile.ZipFile(good / "base.keras") as archive:
        archive.extract("model.weights.h5", tmp_path)
    with h5py.File(weights, "r+") as file:
        found = []
        file.visititems(lambda n, i: found.append(n) if isinstance(i, h5py.Dataset) else None)
        shape = file[found[0]].shape
        del file[found[0]]
        linked(file, found[0], shape, tmp_path)
    path = tmp_path / "linked.keras"
    with zipfile.ZipFile(good / "base.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if name != "model.weights.h5":
                new.writestr(name, old.read(name))
        new.write(weights, "model.weights.h5")

    with pytest.raises(InputError, match=r"linked\.keras.*another file"):
        load(path)


@pytest.mark.parametrize("names", [0, np.array([b"\xff\xfe", b"x"]), np.array([b"no", b"such"])])
def test_names_of_weights_that_are_none(good, tmp_path, names):
    path = tmp_path / "names.h5"
    shutil.copy(good / "base.h5", path)
    with h5py.File(path, "r+") as file:
        file["model_weights"]["c1"].attrs["weight_names"] = names

    with pytest.raises(InputError):
        load(path)


def test_a_configuration_nested_too_deeply(good, tmp_path):
    path = tmp_path / "deep.h5"
    shutil.copy(good / "base.h5", path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        deep = 1
        for _ in range(450):
            deep = [deep]
        config["config"]["layers"][1]["config"]["extra"] = deep
        file.attrs["model_config"] = json.dumps(config)

    with pytest.raises(InputError):
        load(path)


def packed(good, path, name, size):
    """The sound archive with one more member of zeros, or with one member's text made longer."""
    with (
        zipfile.ZipFile(good / "base.keras") as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            spaces = b" " * size if member == name else b""
            new.writestr(member, old.read(member) + spaces)
        if name not in old.namelist():
            new.writestr(name, bytes(size))


def test_members_that_no_model_has_are_not_read(good, tmp_path):
    packed(good, tmp_path / "notes.keras", "notes.json", 200 << 20)

    assert load(tmp_path / "notes.keras").model.count_params() > 0


@pytest.mark.parametrize("name", ["config.json", "assets/words.txt"])
def test_an_archive_that_unpacks_to_too_much(good, tmp_path, name):
    packed(good, tmp_path / "bomb.keras", name, 120 << 20)

    with refuses("zip-bomb"):
        load(tmp_path / "bomb.keras")


def npy(header, data=bytes(64)):
    text = header.encode()
    text += b" " * ((64 - (len(text) + 11) % 64) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize("kind", ["npz", "npy"])
@pytest.mark.parametrize(
    "header",
    [
        "{'descr':'<f4','fortran_order':False,'shape':(16,8,8,8",
        "{'descr':'<f4','fortran_order':False,'shape':(4000000000,8,8,3)}",
        "{'descr':'<f4','fortran_order':False,'shape':(9223372036854775807,2)}",
        "{'descr':'<f4','fortran_order':False,'shape':(-1,8,8,8)}",
        "{'descr':'<f4','fortran_order':False,'shape':(16,8)}",
    ],
)
def test_numpy_headers_that_lie(tmp_path, kind, header):
    path = tmp_path / f"data.{kind}"
    if kind == "npz":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x.npy", npy(header))
    else:
        path.write_bytes(npy(header))

    with pytest.raises(InputError) as refused:
        load_data(str(path), split="test")

    assert refused.value.exit_code == 2


def test_a_tiff_whose_pixels_begin_at_a_fraction(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    long, rational = (b"\x11\x01" + kind + b"\0\x01\0\0\0" for kind in (b"\x04", b"\x05"))
    assert long in content  # the field of the pixels' place
    (tmp_path / "a.tif").write_bytes(content.replace(long, rational))

    with refuses("images-unreadable"):
        load_data(str(tmp_path), split="test", input_shapes=[(None, 8, 8, 3)])


def test_a_postscript_file_called_png_is_no_image(tmp_path):
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    )

    with refuses("images-unreadable"):
        load_data(str(tmp_path), split="test", input_shapes=[(None, 8, 8, 3)])
