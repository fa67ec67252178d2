"""TensorFlow's own converter, int8 in and out: MODEL IMAGES.npy OUT.tflite."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

source, images, out = sys.argv[1:]
model = tf.keras.models.load_model(source, compile=False)
with tempfile.TemporaryDirectory() as folder:
    model.export(folder, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in np.load(images))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    Path(out).write_bytes(converter.convert())
