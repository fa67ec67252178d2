"""Every command refuses samples that a model's input of whole numbers cannot hold."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from refusals import refuses

import dsconvert as ds

INT8 = ds.ExportOptions(quantize="int8")
IMAGES = np.random.default_rng(0).random((16, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    image = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    for _ in range(2):
        x = keras.layers.Conv2D(4, 3)(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize(
    "use",
    [
        lambda m, _: ds.rewrite(m, calibration=IMAGES),
        lambda m, _: ds.inspect(m, calibration=IMAGES),
        lambda m, path: ds.export(m, path / "m.tflite", INT8, calibration=IMAGES),
        lambda m, _: ds.verify(m, m, data=IMAGES),
        lambda m, _: ds.finetune(m, m, data=IMAGES),
    ],
    ids=["rewrite", "inspect", "export", "verify", "finetune"],
)
def test_images_that_were_scaled(model, use, tmp_path):
    with refuses("values-do-not-fit"):
        use(model, tmp_path)


def test_a_token_that_an_embedding_lacks():
    ids = keras.Input((16,), dtype="int32")
    x = keras.layers.Reshape((4, 4, 8))(keras.layers.Embedding(9, 8)(ids))
    model = keras.Model(
        ids, keras.layers.Conv2D(8, 3)(keras.layers.Conv2D(8, 3, padding="same")(x))
    )
    with refuses("does-not-run") as raised:
        ds.rewrite(model, calibration=np.full((16, 16), 9))
    assert str(raised.value).splitlines()[0].endswith("is not in [0, 9) [Op:GatherV2]")
