"""ONNX files whose outputs are names of classes, lists or dictionaries, or say no shape."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from commands import call
from onnx import TensorProto, helper, numpy_helper
from onnx_nets import floats, graph, node

from dsconvert.formats.onnx.messages import assign

HEAD = [
    node("Conv", "x k", "a", pads=[1, 1, 1, 1]),
    node("Relu", "a", "r"),
    node("Conv", "r w", "c", pads=[1, 1, 1, 1]),
    node("GlobalAveragePool", "c", "p"),
    node("Flatten", "p", "scores"),
]
NAMES = numpy_helper.from_array(np.array(["cat", "dog", "hen", "owl"], object), "names")
MAPS = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(1, []))
LAST = {
    "names": ([node("ArgMax", "scores", "i", axis=1, keepdims=0),
               node("Gather", "names i", "g"), node("Identity", "g", "odd")],
              helper.make_tensor_value_info("odd", TensorProto.STRING, None)),
    "list": ([node("SplitToSequence", "scores", "odd", axis=1)],
             helper.make_tensor_sequence_value_info("odd", TensorProto.FLOAT, None)),
    "maps": ([helper.make_node("ZipMap", ["scores"], ["odd"], domain="ai.onnx.ml",
                               classlabels_strings=["cat", "dog", "hen", "owl"])],
             helper.make_value_info("odd", helper.make_sequence_type_proto(MAPS))),
}  # fmt: skip


def write(folder, kind, outputs="scores odd"):
    """A small network with an output of this kind beside its scores, and images for it."""
    last, value = LAST[kind]
    made = graph(HEAD, ["n", 3, 8, 8], "scores", k=floats(8, 3, 3, 3), w=floats(4, 8, 3, 3))
    made.graph.node.extend(last)
    made.graph.initializer.append(NAMES)
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    kept = {"scores": made.graph.output[0], "odd": value}
    assign(made.graph.output, [kept[name] for name in outputs.split()])
    onnx.save(made, folder / "m.onnx")
    x = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)


@pytest.mark.parametrize("outputs", ["scores odd", "odd"])
@pytest.mark.parametrize("kind", LAST)
def test_they_are_rewritten_by_data(kind, outputs, tmp_path):
    write(tmp_path, kind, outputs)
    words = "rewrite m.onnx -o s.onnx --calibration x.npz --include Conv/c --pairs 2"
    result = call(words, tmp_path)
    assert result.exit_code == 0, result.output
    kinds = [one.op_type for one in onnx.load(tmp_path / "s.onnx").graph.node]
    assert kinds.count("Conv") > 2


@pytest.mark.parametrize("kind", LAST)
@pytest.mark.parametrize(
    "words", ["import m.onnx", "verify m.onnx m.onnx", "export m.onnx -o s.onnx --quantize float16"]
)
def test_elsewhere_the_refusal_says_how_to_leave_them_out(words, kind, tmp_path):
    write(tmp_path, kind)
    result = call(words, tmp_path)
    assert result.exit_code == 2
    assert 'if x.name in ["odd"]' in result.stderr


def test_an_output_without_a_shape(tmp_path):
    """That of a Loop: neither ONNX nor the file says how many axes it has."""
    body = helper.make_graph(
        [node("Mul", "s half", "t"), node("Identity", "on", "on2")],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("s", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("on2", TensorProto.BOOL, []),
         helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(0.5), "half")],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["turns", "", "c"], ["y"], name="loop", body=body)
    made = graph([*HEAD[:3], loop], ["n", 3, 8, 8], "y", k=floats(8, 3, 3, 3),
                 w=floats(4, 8, 3, 3), turns=np.array(3))  # fmt: skip
    made.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(made, tmp_path / "m.onnx")
    for words in ("inspect m.onnx", "import m.onnx", "rewrite m.onnx -o s.onnx --include *"):
        assert call(words, tmp_path).exit_code == 0, words
