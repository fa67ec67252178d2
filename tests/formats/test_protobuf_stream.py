"""What `wire.write` writes is what protobuf itself would have written."""

import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dsconvert.formats.onnx import protobuf_stream
from dsconvert.formats.onnx.protobuf_stream import write


def model_with(*tensors):
    nodes = [helper.make_node("Relu", ["x"], ["y"], "relu", doc_string="noted")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], tensors, doc_string="a graph")
    model = helper.make_model(graph, producer_name="maker", ir_version=8)
    helper.set_model_props(model, {"author": "nobody"})
    return model


def written(model):
    file = io.BytesIO()
    write(model, file)
    return onnx.load_model_from_string(file.getvalue())


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int64])
@pytest.mark.parametrize("sizes", [(), (1,), (127, 128), (3, 70_000), (70_000, 3, 200_000)])
def test_reads_back_as_the_same_model(dtype, sizes):
    rng = np.random.default_rng(0)
    tensors = []
    for number, size in enumerate(sizes):
        array = rng.integers(-9, 9, (size, 2)).astype(dtype)
        tensors.append(numpy_helper.from_array(array, f"weight{number}"))
        tensors[-1].doc_string = f"the {number}th"
    model = model_with(*tensors)

    again = written(model)

    def by_name(graph):
        return sorted(graph.initializer, key=lambda tensor: tensor.name)

    assert by_name(again.graph) == by_name(model.graph)
    del again.graph.initializer[:], model.graph.initializer[:]
    assert again == model


def test_values_in_typed_fields_are_kept():
    tensor = helper.make_tensor("weight", TensorProto.FLOAT, [70_000], np.arange(70_000.0))
    assert not tensor.HasField("raw_data")

    again = written(model_with(tensor))

    np.testing.assert_array_equal(
        numpy_helper.to_array(again.graph.initializer[0]), np.arange(70_000, dtype=np.float32)
    )


def test_more_than_protobuf_takes_is_refused(monkeypatch):
    monkeypatch.setattr(protobuf_stream, "LIMIT", 500_000)
    model = model_with(numpy_helper.from_array(np.zeros(200_000, np.float32), "weight"))

    with pytest.raises(ValueError, match="too large"):
        write(model, io.BytesIO())
