"""Layers of images: what only training needs is left out of a file, what computes stays."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.inference_only import without_augmentation
from dsconvert.deploy.runtimes.registry import open_runtime

KINDS = {
    **{"AugMix": (), "AutoContrast": (), "CenterCrop": (4, 4), "CutMix": ()},
    **{"MaxNumBoundingBoxes": (4,), "MixUp": (), "RandAugment": (), "RandomBrightness": (0.2,)},
    **{"RandomColorDegeneration": (0.2,), "RandomColorJitter": (), "RandomContrast": (0.2,)},
    **{"RandomErasing": (), "RandomFlip": (), "RandomGrayscale": (), "RandomHue": (0.2,)},
    **{"RandomInvert": (), "RandomPosterization": (4,), "RandomRotation": (0.2,)},
    **{"RandomSharpness": (0.2,), "RandomTranslation": (0.2, 0.2), "RandomZoom": (0.2,)},
    **{"Resizing": (4, 4), "Solarization": (0.5, 0.5)},
    "ContrastLimitedAdaptiveHistogramEqualization": (),
}


def of_layer(kind):
    """A model of one such layer, or a skip where this Keras has none."""
    if not hasattr(layers, kind):
        pytest.skip(f"this Keras has no {kind}")
    image = keras.Input((8, 8, 3), name="image")
    return keras.Model(image, getattr(layers, kind)(*KINDS[kind], name="it")(image))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(40, 180, (4, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_removed_where_it_does_nothing_in_inference(kind, images):
    model = of_layer(kind)
    given = np.asarray(model(images, training=False))
    _, removed = without_augmentation(model)

    assert bool(removed) == (given.shape == images.shape and np.array_equal(given, images))


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_what_stretches_the_contrast_is_in_the_file(suffix, images, tmp_path):
    model = of_layer("AutoContrast")
    path = tmp_path / f"stretched.{suffix}"
    export(model, path, verification=images)
    (given,) = open_runtime(path).predict([images])

    np.testing.assert_allclose(given, np.asarray(model(images, training=False)), atol=1e-2)
    assert float(given.max()) > 250  # of 40 … 180
