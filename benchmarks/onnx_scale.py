"""Time and memory of rewriting a VGG16-sized ONNX file by its weights, each step a process.

The yardstick is what numpy needs for the truncated SVDs alone. Random weights; about 1.2 GB of
temporary files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import machine, table

# Output channels of the convolutions; 0 is a pooling.
LAYERS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)

BUILD = """
import sys
import numpy as np, onnx
from onnx import helper, numpy_helper, TensorProto
rng = np.random.default_rng(0)
layers, path, external = eval(sys.argv[1]), sys.argv[2], sys.argv[3] == "external"
nodes, weights, value, channels = [], [], "image", 3
def weight(name, *shape):
    array = rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:]))
    weights.append(numpy_helper.from_array(array.astype(np.float32), name))
    return name
for number, filters in enumerate(layers):
    if filters == 0:
        nodes.append(helper.make_node("MaxPool", [value], [f"pool{number}"], f"pool{number}",
            kernel_shape=[2, 2], strides=[2, 2]))
        value = f"pool{number}"
        continue
    name = f"conv{number}"
    inputs = [value, weight(name + "_w", filters, channels, 3, 3), weight(name + "_b", filters)]
    nodes.append(helper.make_node("Conv", inputs, [name], name, pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("Relu", [name], [name + "_relu"], name + "_relu"))
    value, channels = name + "_relu", filters
nodes.append(helper.make_node("Flatten", [value], ["flat"], "flat"))
value, features = "flat", 25088
for name, units in (("fc1", 4096), ("fc2", 4096), ("fc3", 1000)):
    inputs = [value, weight(name + "_w", units, features), weight(name + "_b", units)]
    nodes.append(helper.make_node("Gemm", inputs, [name], name, transB=1))
    value, features = name, units
image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 224, 224])
scores = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", 1000])
graph = helper.make_graph(nodes, "vgg16", [image], [scores], weights)
model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
onnx.save(model, path, save_as_external_data=external, location="weights.bin")
"""

SVDS = """
import json, sys, time
import numpy as np
rng = np.random.default_rng(0)
channels, kernels = 3, []
for filters in eval(sys.argv[1]):
    if filters:
        kernels.append(rng.standard_normal((channels, 9, filters), np.float32))
        channels = filters
started = time.process_time()
for kernel in kernels[1:]:  # the stem is left alone
    np.linalg.svd(kernel, full_matrices=False)
print(json.dumps({"seconds": time.process_time() - started}))
"""

REWRITE = """
import json, resource, sys, time
from pathlib import Path
from dsconvert.converter.rewrite import rewrite
from dsconvert.formats.onnx.save import save
from dsconvert.formats.onnx.open import open_onnx
clock, source = time.process_time, Path(sys.argv[1])
marks = [clock()]
file = open_onnx(source)
marks.append(clock())
result = rewrite(file.model, folder=source.parent)
marks.append(clock())
del file
save(result.model, source.parent, Path(sys.argv[2]), overwrite=False)
marks.append(clock())
assert "tensorflow" not in sys.modules
print(json.dumps({
    "read": marks[1] - marks[0],
    "rewrite": marks[2] - marks[1],
    "write": marks[3] - marks[2],
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "rewritten": len(result.report.rewritten),
}))
"""


def run(code: str, *arguments: object) -> dict[str, float]:
    """Run a piece of Python as a process of its own, and read the JSON that it prints last."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = output.strip().splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


def main() -> None:
    print(f"Machine: {machine()}")
    svd = min(run(SVDS, LAYERS)["seconds"] for _ in range(3))
    rows: list[list[object]] = [["bare batched numpy SVDs", "", f"{svd:.2f}", "", "1", "", ""]]
    with tempfile.TemporaryDirectory() as name:
        for storage in ("one file", "external data"):
            folder = Path(name) / storage.split()[0]
            folder.mkdir()
            source, target = folder / "vgg16.onnx", folder / "small.onnx"
            run(BUILD, LAYERS, source, storage.split()[0])
            size = sum(file.stat().st_size for file in folder.iterdir())
            figures = run(REWRITE, source, target)
            rows.append(
                [
                    f"rewrite of {int(figures['rewritten'])} convolutions, {storage}",
                    f"{figures['read']:.2f}",
                    f"{figures['rewrite']:.2f}",
                    f"{figures['write']:.2f}",
                    f"{figures['rewrite'] / svd:.2f}",
                    f"{figures['peak'] / 1e6:.0f}",
                    f"{figures['peak'] / size:.2f}",
                ]
            )
    table(
        "VGG16-sized ONNX file (553 MB, random weights), T = 1, weights only; CPU seconds",
        [
            "",
            "read and check",
            "rewrite",
            "check and write",
            "rewrite / SVDs",
            "peak memory MB",
            "peak / file",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
