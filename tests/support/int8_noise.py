"""What int8 costs a Keras model, without what `export` tries to make it less."""

import numpy as np

from dsconvert.deploy.exporting import tflite
from dsconvert.deploy.exporting.keras_source import read_source
from dsconvert.deploy.runtimes.registry import open_runtime


def int8_noise_db(model, x, path, quantize="int8"):
    """Write the .tflite file, calibrated on x: its squared error there in dB of the output."""
    expected = model.predict(x, verbose=0)
    tflite.convert(read_source(model, None), path, quantize, [x])
    (got,) = open_runtime(path).predict([x])
    return 10 * np.log10(np.sum(np.square(got - expected)) / np.sum(np.square(expected)))
