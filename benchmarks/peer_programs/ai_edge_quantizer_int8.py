"""ai-edge-quantizer's static int8 recipe: FLOAT.tflite IMAGES.npy OUT.tflite."""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

source, images, out = sys.argv[1:]
interpreter = Interpreter(source)
(signature, names), *_ = interpreter.get_signature_list().items()
(name,) = names["inputs"]
work = quantizer.Quantizer(source)
work.load_quantization_recipe(recipe.static_wi8_ai8())
samples = [{name: image[None]} for image in np.load(images)]
work.quantize(work.calibrate({signature: samples})).export_model(out, overwrite=True)
