"""Calls of TensorFlow's functions in genuine files of tf.keras 2.13: the outputs are the same."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from tf_function_uses import USES

from dsconvert.models.loading import load

ARCHIVE = Path(__file__).parents[1] / "data" / "keras_files" / "tf-functions-2.13.1.tar.xz"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("name", USES)
def test_the_answers_are_those_of_the_file(name, files):
    model = load(files / f"{name}.h5").model
    with np.load(files / f"{name}.npz") as held:
        expected, *arrays = held.values()
    found = np.asarray(model(arrays if len(arrays) > 1 else arrays[0]))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(np.abs(expected).max(), 1e-9))


def test_samples_of_another_number(files):
    """What was computed from shapes does not hold for the samples that it was computed with."""
    for name in ("shape_batch_reshape2", "shape_zeros", "windows_dyn", "shape_broadcast"):
        model = load(files / f"{name}.h5").model
        with np.load(files / f"{name}.npz") as held:
            expected, x = held.values()
        for count in (1, 2):
            np.testing.assert_allclose(np.asarray(model(x[:count])), expected[:count], atol=1e-5)
