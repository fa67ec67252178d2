"""What several test files share."""

import logging
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The matrices of the tests are small: threads cost them more than they give, above all on a busy
# machine. Set before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import network_guard
import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("fixed")

# Made once for all runs, by tests/arm64/setup.sh: found before tests get a home of their own.
os.environ.setdefault(
    "DSCONVERT_ARM64",
    str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsconvert" / "arm64"),
)

# What a user may have set and what changes results or their form.
FOREIGN = (
    *("ADB", "DSCONVERT_CACHE", "DSCONVERT_DEVICES", "KERAS_BACKEND", "KERAS_HOME"),
    *("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Take from pytest-randomly the order alone: its seed is another one each time."""
    config.option.randomly_reset_seed = False


network_guard.install()


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Let no test, and so no command that one runs, reach another machine."""
    network_guard.talked.clear()
    yield
    assert network_guard.talked == []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed the global generators: whatever ran before, a test and its fixtures draw the same."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries draw from this one


@contextmanager
def places(folder: Path) -> Iterator[None]:
    """Give this process, and those that it starts, the home, caches and temporary files there."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FOREIGN:
            patch.delenv(name, raising=False)
        for names, place in {
            ("HOME", "USERPROFILE"): "home",
            ("DSCONVERT_CACHE",): "home/.cache/dsconvert",
            ("XDG_CACHE_HOME", "LOCALAPPDATA"): "home/.cache",
            ("XDG_CONFIG_HOME", "APPDATA"): "home/.config",
            ("TMPDIR", "TEMP", "TMP"): "tmp",
        }.items():
            for name in names:
                patch.setenv(name, str(folder / place))
        for place in ("home", "tmp"):
            (folder / place).mkdir(exist_ok=True)
        patch.setattr(tempfile, "tempdir", str(folder / "tmp"))
        yield


@pytest.fixture(scope="session", autouse=True)
def places_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep fixtures that several tests share away from the user's own files."""
    with places(tmp_path_factory.mktemp("session")):
        yield


@pytest.fixture(autouse=True)
def places_of_the_test(
    places_of_the_session: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Let no test find what another one has left."""
    with places(tmp_path_factory.mktemp("places")):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of other people's models and data, where there is one."""
    folder = Path(os.environ.get("DSCONVERT_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared folder at {folder}; set DSCONVERT_SHARED")
    return folder


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's 1,797 handwritten digits: images (n, 8, 8, 1) in 0 … 1, and labels (n,)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32), labels


@pytest.fixture(scope="session")
def digits_cnn(digits):
    """A small convolutional network that has learnt the first 1,200 digits. Not to be changed."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="stem"),
            layers.Conv2D(24, 3, padding="same", activation="relu", name="middle"),
            layers.MaxPooling2D(name="halved"),
            layers.Conv2D(32, 3, padding="same", use_bias=False, name="last"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(10, activation="softmax", name="scores"),
        ],
        name="digits",
    )
    images, labels = digits
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(images[:1200], labels[:1200], batch_size=60, epochs=6, verbose=0)
    return model


_LOGGERS = tuple(map(logging.getLogger, ("dsconvert", "dsconvert.notes")))
_FRESH = [(log, log.level, log.handlers[:], log.propagate) for log in _LOGGERS]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Undo what a command sets up for its own process: levels, handlers, and being quiet.

    Before a test, too: fixtures of its module may have run commands.
    """
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    _as_fresh()
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    _as_fresh()


def _as_fresh() -> None:
    for log, level, handlers, propagate in _FRESH:
        log.setLevel(level)
        log.handlers[:], log.propagate = handlers, propagate
    terminal = sys.modules.get("dsconvert.cli.terminal")
    if terminal is not None:
        terminal._quiet = False
