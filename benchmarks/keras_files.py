"""Files of one layer each, written by the Keras of the environment that runs this.

    python benchmarks/keras_files.py tests/data/keras_files

writes ``keras-VERSION.tar.xz`` there: for each kind of layer that this version has the file in its
formats, and what it answers to given inputs. It needs TensorFlow and Keras 2.12 or newer:

    python3.11 -m venv old; old/bin/pip install tensorflow-cpu==2.13.1

Of Keras 2 ``tf-functions-VERSION.tar.xz`` as well, whose files record calls of TensorFlow's own
functions; ``--functions`` writes that alone.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
warnings.filterwarnings("ignore")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))


def main(folder: Path) -> None:
    import keras
    import numpy as np
    from keras_layer_kinds import LAYERS, network, samples

    formats = (".h5", ".keras") if keras.__version__.startswith("2") else (".keras",)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"keras-{keras.__version__}.tar.xz"
    count = 0
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(path, "w:xz", preset=9) as packed:
        for name in LAYERS:
            try:
                model = network(keras, name)
                answers = model.predict(samples(name, 2), verbose=0)
            except Exception as error:  # this version has no such layer, or cannot run it
                print(f"{name}: {str(error).strip().splitlines()[0][:90]}")
                continue
            written = io.BytesIO()
            np.save(written, answers.astype("f4"))
            _add(packed, f"{name}.npy", written.getvalue())
            for suffix in formats:
                file = Path(temporary) / f"net{suffix}"
                model.save(file)
                _add(packed, f"{name}{suffix}", file.read_bytes())
            keras.backend.clear_session()
            count += 1
    print(f"{path}: {count} kinds of layers, {path.stat().st_size:,} bytes")


def functions(folder: Path) -> None:
    """Write a file and the answer for each use of TensorFlow's functions."""
    import keras
    import numpy as np
    import tensorflow as tf
    from tf_function_uses import USES

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tf-functions-{keras.__version__}.tar.xz"
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(path, "w:xz", preset=9) as packed:
        for name, (shapes, function) in USES.items():
            keras.backend.clear_session()
            inputs = [keras.Input(shape, name=f"in{i}") for i, shape in enumerate(shapes)]
            model = keras.Model(inputs, function(tf, *inputs))
            draw = np.random.default_rng(1)
            arrays = [draw.normal(0, 1, (3, *shape)).astype("f4") for shape in shapes]
            written = io.BytesIO()
            answers = model(arrays if len(arrays) > 1 else arrays[0]).numpy()
            np.savez(written, answers, *arrays)
            _add(packed, f"{name}.npz", written.getvalue())
            file = Path(temporary) / "net.h5"
            model.save(file)
            _add(packed, f"{name}.h5", file.read_bytes())
    print(f"{path}: {len(USES)} uses, {path.stat().st_size:,} bytes")


def _add(packed: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    packed.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    if "--functions" not in sys.argv:
        main(Path(sys.argv[1]))
    if importlib.metadata.version("keras").startswith("2"):
        functions(Path(sys.argv[1]))
