"""nncf's post-training quantization: FLOAT.onnx IMAGES.npy OUT.onnx."""

import sys

import nncf
import numpy as np
import onnx

source, images, out = sys.argv[1:]
model = onnx.load(source)
name = model.graph.input[0].name
samples = [{name: image[None]} for image in np.load(images)]
onnx.save(nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples)), out)
