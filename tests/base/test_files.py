"""Files that appear whole or not at all, and arrays that leave memory when it is full."""

import gc
import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from refusals import refuses

from dsconvert.base.errors import InputError, MissingExtra, require
from dsconvert.base.files import (
    check_writable,
    is_unwritable,
    read_whole,
    refuse_without_room,
    replacing,
    sha256,
)
from dsconvert.base.json_text import encoded
from dsconvert.converter.core.network.activation_store import Store


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_texts_of_windows_shells_are_read(tmp_path, encoding):
    (tmp_path / "run.json").write_bytes('["ü"]'.encode(encoding))
    assert read_whole(tmp_path / "run.json") == '["ü"]'.encode()


def test_a_mark_before_other_bytes_is_left(tmp_path):
    (tmp_path / "run.json").write_bytes(b"\xff\xfe\x00")
    assert read_whole(tmp_path / "run.json") == b"\xff\xfe\x00"


class TestReplacing:
    def test_new_file(self, tmp_path):
        path = tmp_path / "model.keras"
        with replacing(path, overwrite=False) as temporary:
            assert temporary.suffix == ".keras"
            assert temporary.parent.parent == tmp_path  # so that the rename stays on one disk
            temporary.write_text("new")
            assert not path.exists()

        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_link_that_leads_nowhere_is_in_the_way_from_the_beginning(self, tmp_path):
        (tmp_path / "model.keras").symlink_to(tmp_path / "absent.keras")
        with refuses("output-exists"):
            check_writable(tmp_path / "model.keras", overwrite=False)

    def test_a_folder_that_takes_no_files(self, tmp_path, monkeypatch):
        def refuse(**_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.mkdtemp", refuse)
        with (
            pytest.raises(InputError, match=r"cannot write .*Permission denied"),
            replacing(tmp_path / "model.keras", overwrite=False),
        ):
            pass

    def test_a_read_only_folder_is_refused_early(self, tmp_path, monkeypatch):
        monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
        with refuses("not-writable"):
            check_writable(tmp_path / "model.keras", overwrite=False)

    def test_failure_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "model.keras"
        path.write_text("old")

        def save():
            with replacing(path, overwrite=True) as temporary:
                temporary.write_text("half")
                raise PermissionError("half way")

        with pytest.raises(PermissionError, match="half way"):
            save()

        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_what_somebody_wrote_meanwhile_is_kept(self, tmp_path):
        path = tmp_path / "model.keras"

        def save():
            with replacing(path, overwrite=False) as temporary:
                temporary.write_text("mine")
                path.write_text("theirs")

        with refuses("output-exists"):
            save()

        assert path.read_text() == "theirs"
        assert (tmp_path / "model-2.keras").read_text() == "mine"
        assert len(list(tmp_path.iterdir())) == 2

    def test_a_file_system_without_hard_links(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr("os.link", refuse)
        path = tmp_path / "model.keras"
        with replacing(path, overwrite=False) as temporary:
            temporary.write_text("new")

        assert path.read_text() == "new"

    @pytest.mark.parametrize("number", [28, 27])
    def test_a_full_disk_is_bad_input_with_the_cause(self, tmp_path, number):
        path = tmp_path / "model.keras"

        def save():
            with replacing(path, overwrite=True):
                raise OSError(number, os.strerror(number))

        with pytest.raises(InputError, match=os.strerror(number)):
            save()

        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("kind", "code"), [(RuntimeError, "not-writable"), (InputError, "invalid-input")]
    )
    def test_a_full_disk_in_the_words_of_a_library(self, tmp_path, kind, code):
        """TensorFlow has the system's sentence in errors of its own; a refusal stays as it is."""

        def save():
            with replacing(tmp_path / "model.tflite", overwrite=True):
                raise kind(f"part-0: {os.strerror(28)} [Op:SaveV2]")

        with pytest.raises(InputError) as caught:
            save()
        assert caught.value.code == code
        assert is_unwritable(caught.value) == (kind is RuntimeError)

    def test_overwrites_only_when_asked(self, tmp_path):
        path = tmp_path / "model.keras"
        path.write_text("old")
        with (
            refuses("output-exists") as caught,
            replacing(path, overwrite=False),
        ):
            pytest.fail("the block must not run")
        assert "--overwrite" in caught.value.words.hint
        with replacing(path, overwrite=True) as temporary:
            temporary.write_text("new")

        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]

    def test_unusable_places_are_refused(self, tmp_path):
        with refuses("folder-not-found") as caught:
            check_writable(tmp_path / "missing" / "a.keras", overwrite=True)
        assert "mkdir -p" in caught.value.hint
        with refuses("output-is-a-folder"):
            check_writable(tmp_path, overwrite=True)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_in_the_place_of_a_folder(self, tmp_path):
        (tmp_path / "out").write_text("mine")
        with refuses("folder-not-found") as caught:
            check_writable(tmp_path / "out" / "run" / "a.keras", overwrite=True)
        assert f"{tmp_path / 'out'} is a file" in str(caught.value)
        assert "mkdir" not in caught.value.hint

    def test_a_full_disk_names_the_file_that_was_asked_for(self, tmp_path):
        def save():
            with (
                replacing(tmp_path / "model.onnx", overwrite=False) as temporary,
                replacing(temporary, overwrite=False),
            ):
                raise OSError(28, os.strerror(28))

        with pytest.raises(InputError) as caught:
            save()
        assert f"cannot write {tmp_path / 'model.onnx'}:" in str(caught.value)
        assert "TMPDIR" not in caught.value.hint

    def test_a_full_disk_of_temporary_files_names_their_folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

        def save():
            with (
                tempfile.TemporaryDirectory(prefix="dsconvert-") as folder,
                replacing(Path(folder) / "part.onnx", overwrite=False),
            ):
                raise OSError(28, os.strerror(28))

        with pytest.raises(InputError) as caught:
            save()
        assert "TMPDIR" in caught.value.hint
        assert "elsewhere" not in caught.value.hint


def test_folders_without_room_are_refused(tmp_path, monkeypatch):
    refuse_without_room([tmp_path], 1 << 16)
    assert list(tmp_path.iterdir()) == []

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with refuses("not-writable") as caught:
        refuse_without_room([tmp_path], 1 << 16)
    assert str(tmp_path) in str(caught.value)
    assert "TMPDIR" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_sha256(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")

    assert sha256(path) == hashlib.sha256(b"abc").hexdigest()


class TestRequire:
    def test_missing_package_names_its_extra(self):
        with pytest.raises(MissingExtra, match="no_such_package is needed to dream") as caught:
            require("no_such_package.inner", "keras", "to dream")
        assert "pip install 'dsconvert[keras]'" in caught.value.hint
        assert caught.value.exit_code == 2

    def test_package_that_misses_another_names_that(self, tmp_path, monkeypatch):
        (tmp_path / "half_installed.py").write_text("import no_such_package.inner")
        monkeypatch.syspath_prepend(tmp_path)

        with pytest.raises(MissingExtra, match="no_such_package is needed to dream"):
            require("half_installed", "keras", "to dream")


class TestStore:
    def test_spills_beyond_its_memory(self):
        store = Store(memory=1000)
        within, beyond = store.empty((10, 20)), store.empty((5, 11))

        assert (type(within), store.used) == (np.ndarray, 800)
        assert (type(beyond), store.spilled) == (np.memmap, 220)
        assert (beyond.shape, beyond.dtype) == ((5, 11), np.float32)
        beyond[:] = np.arange(55).reshape(5, 11)
        store.settle()
        np.testing.assert_array_equal(beyond.ravel(), np.arange(55))
        store.close()
        np.testing.assert_array_equal(beyond.ravel(), np.arange(55))  # as long as it is held

    def test_a_full_disk_is_a_sentence(self, tmp_path, monkeypatch):
        """Room is taken at once: a mapped hole in a file ends the process when the disk is full."""

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setattr("os.posix_fallocate", full, raising=False)
        store = Store(memory=0)
        with pytest.raises(InputError, match="No space left"):
            store.empty((10,))
        store.close()
        assert list(tmp_path.iterdir()) == []

    def test_memory_comes_back_once_nothing_holds_it(self):
        store = Store(memory=1000)
        array = store.empty((250,))
        view = array[10:]
        del array
        gc.collect()
        assert store.used == 1000  # a view holds the whole
        assert isinstance(store.empty((1,)), np.memmap)
        del view
        gc.collect()

        assert store.used == 0
        assert not isinstance(store.empty((250,)), np.memmap)
        store.close()

    def test_leaves_no_files(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        store = Store(memory=0)
        arrays = [store.empty((10,)) for _ in range(3)]
        for number, array in enumerate(arrays):
            array[:] = number

        (folder,) = tmp_path.iterdir()
        assert folder.name.startswith("dsconvert-")
        assert list(folder.iterdir()) == []  # so that a crash leaves nothing large behind
        assert [array[0] for array in arrays] == [0, 1, 2]
        store.close()
        assert list(tmp_path.iterdir()) == []


class TestNames:
    def test_a_long_name_leaves_room_for_the_temporary_file(self, tmp_path):
        path = tmp_path / f"{'a' * 240}.keras"
        with replacing(path, overwrite=False) as temporary:
            temporary.write_bytes(b"model")
            assert temporary.suffix == ".keras"
        assert path.read_bytes() == b"model"
        assert [file.name for file in tmp_path.iterdir()] == [path.name]

    @pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
    def test_a_name_that_no_runtime_opens(self, suffix, tmp_path):
        path = tmp_path / f"{os.fsdecode(bytes([0xFF]))}{suffix}"
        with pytest.raises(InputError) as refused:
            check_writable(path, overwrite=False)
        assert refused.value.code == "not-writable"
        check_writable(path.with_suffix(".keras"), overwrite=False)


def test_half_characters_are_question_marks_in_json():
    record = {"path": os.fsdecode(bytes([0x61, 0xFF])), "in\ud800": ["\udfff", 1]}
    assert json.loads(encoded(record)) == {"path": "a?", "in?": ["?", 1]}
    assert encoded(dict(reversed(record.items())), ordered=True) == encoded(record, ordered=True)
