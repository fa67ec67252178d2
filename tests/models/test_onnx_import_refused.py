"""What the import of an ONNX file refuses, in words, and wrong results that it keeps back."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_nets import floats, graph, node, small_cnn
from refusals import refuses

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.models.onnx_import import drawing, import_onnx, importing, ops, verify
from dsconvert.models.onnx_import.registry import HANDLERS


def test_all_unknown_operators_are_named_at_once():
    nodes = [node("Det", "x", "a"), node("Relu", "a", "r"), node("Det", "x", "b")]
    nodes += [node("Unique", "r", "y")]
    with pytest.raises(InputError) as caught:
        import_onnx(graph(nodes, ["n", 3, 3], "b y"))
    assert "Det (Det/a, Det/b); Unique (Unique/y)" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "advice"), [("QuantizeLinear", "float model"), ("DeformConv", "sizes are known")]
)
def test_what_to_do_instead(kind, advice):
    made = {
        "QuantizeLinear": [
            node("QuantizeLinear", "x s", "q"),
            node("DequantizeLinear", "q s", "y"),
        ],
        "DeformConv": [node("DeformConv", "x x o", "y")],
    }[kind]
    weights = {"s": np.float32(0.1)}
    if kind == "DeformConv":
        weights = {"o": floats(2, 50, 1, 1)}  # its kernel is computed
    with pytest.raises(InputError, match=kind) as caught:
        import_onnx(graph(made, [2, 3, 5, 5], "y", **weights, opset=19))
    assert advice in caught.value.hint


def test_control_flow_is_refused():
    """A loop whose number of turns the data decide."""
    value = helper.make_tensor_value_info
    ends = [value("on", 9, []), value("u", 1, None)]
    body = helper.make_graph(
        [node("Relu", "v", "u"), node("Identity", "go", "on")],
        "b",
        [value("i", 7, []), value("go", 9, []), value("v", 1, None)],
        ends,
    )
    nodes = [
        node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s z", "c"),
        node("Cast", "s", "turns", to=7),
        node("Loop", "turns c x", "y", body=body),
    ]
    with refuses("operators-not-imported") as caught:
        import_onnx(graph(nodes, ["n", 3], "y", z=np.float32(0)))
    assert "control flow" in caught.value.hint


def test_other_domains_are_refused():
    made = node("Relu", "x", "a")
    other = node("FusedConv", "a w", "y")
    other.domain = "com.microsoft"
    model = graph([made], [1, 3, 4, 4], "a", w=floats(4, 3, 1, 1))
    model.graph.node.append(other)
    model.graph.output[0].name = "y"
    model.opset_import.add(domain="com.microsoft", version=1)
    with pytest.raises(InputError, match=r"com\.microsoft\.FusedConv \(FusedConv/y\)"):
        import_onnx(model)


def test_what_onnx_runtime_refuses_is_refused():
    model = small_cnn()
    model.graph.node[0].attribute.append(helper.make_attribute("strides", [0, 0, 0]))
    with refuses("does-not-load"):
        import_onnx(model)


def test_weights_that_are_computed_from_the_data_are_refused():
    nodes = [node("GlobalAveragePool", "x", "g"), node("Conv", "x g", "y")]
    with pytest.raises(InputError, match=r"Conv 'Conv/y'.*computed from the model's inputs"):
        import_onnx(graph(nodes, [1, 3, 4, 4], "y"))


def test_an_output_that_depends_on_nothing_is_refused():
    nodes = [node("Relu", "x", "y"), node("Add", "a a", "z")]
    with refuses("output-is-constant") as caught:
        import_onnx(graph(nodes, [1, 3], "z", a=floats(3)))
    assert "the output 'z' does not depend" in caught.value.message


def test_outputs_that_depend_on_nothing_are_left_out_by_what_the_refusal_says(
    tmp_path, monkeypatch
):
    """Computed from weights, a weight itself, and one of the size alone."""
    nodes = [node("Relu", "x", "y"), node("Add", "a a", "z"), node("Shape", "x", "s")]
    model = graph(nodes, [1, 3], "y z a s", a=floats(3))
    hostile = """';touch>hurt;echo'"""  # a name is no part of the command that is copied
    model.graph.node[1].output[0] = model.graph.output[1].name = hostile
    with refuses("output-is-constant") as caught:
        import_onnx(model)
    assert "'a', 's' do not depend" in caught.value.message

    monkeypatch.chdir(tmp_path)
    onnx.save(model, "MODEL.onnx")
    command = caught.value.hint.partition(": python ")[2]
    subprocess.run(f"{shlex.quote(sys.executable)} {command}", shell=True, check=True)
    assert not Path("hurt").exists()
    assert import_onnx(tmp_path / "kept.onnx").output_names == ("y",)


def test_training_mode_is_refused():
    nodes = [node("BatchNormalization", "x g g g g", "y m v", training_mode=1)]
    with refuses("training-mode") as caught:
        import_onnx(graph(nodes, [2, 3, 4, 4], "y", g=np.ones(3, np.float32)))
    assert "eval" in caught.value.hint


def test_what_is_no_model_is_refused(tmp_path):
    with refuses("not-a-model"):
        import_onnx([1])
    with refuses("damaged-file"):
        import_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with refuses("not-a-model"):
        import_onnx(str(tmp_path / "text.onnx"))


def test_a_wrong_import_is_not_given_out(monkeypatch):
    from dsconvert.models.onnx_import import registry

    import_onnx(small_cnn())  # registers the handlers
    monkeypatch.setitem(registry.HANDLERS, "Relu", registry.HANDLERS["Identity"])
    with pytest.raises(GateFailed, match=r"output 'y' differs.*relative error"):
        import_onnx(small_cnn())


def test_what_keras_raises_names_the_node(monkeypatch):
    def fails(node, build):
        raise TypeError("first line\nand the second, which matters")

    ops.load()  # what is patched would be registered a second time
    monkeypatch.setitem(HANDLERS, "Relu", fails)
    with pytest.raises(InputError, match=r"Relu.*first line and the second, which matters"):
        import_onnx(small_cnn())


def steep(factor: float) -> onnx.ModelProto:
    """A sigmoid of a convolution, so steep that the last bit of its input shows in the output."""
    return graph(
        [
            node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
            node("Conv", "a v", "b", pads=[1, 1, 1, 1]),
            node("Mul", "b factor", "c"),
            node("Sigmoid", "c", "y"),
        ],
        ["n", 3, 96, 96],
        "y",
        w=floats(64, 3, 3, 3),
        v=floats(1, 64, 3, 3),
        factor=np.float32(factor),
    )


def test_a_steep_output_may_differ_as_far_as_the_original_does_from_itself(monkeypatch):
    proto, x = steep(100), floats(4, 3, 96, 96, seed=1)
    assert import_onnx(proto, inputs=[x]).output_names == ("y",)
    monkeypatch.setattr(verify, "_ROUNDING", 0.0)  # else it would say nothing
    with refuses("outputs-differ"):
        import_onnx(proto, inputs=[x])


def test_a_wrong_steep_output_is_refused(monkeypatch):
    """One weight of a thousand changed by one per cent."""
    proto, x = steep(100), floats(4, 3, 96, 96, seed=1)
    real = drawing.convert_graph

    def wrong(graph, facts):
        drawn = real(graph, facts)
        kernel = next(layer for layer in drawn.model.layers if layer.weights).kernel
        changed = kernel.numpy().copy()
        changed[0, 0, 0, 0] *= 1.01
        kernel.assign(changed)
        return drawn

    monkeypatch.setattr(importing, "convert_graph", wrong)
    with refuses("outputs-differ"):
        import_onnx(proto, inputs=[x])


def test_a_norm_of_an_old_opset_that_trains():
    """Its further outputs say so: ONNX Runtime takes the statistics of the batch then."""
    nodes = [node("BatchNormalization", "x s b m v", "y m2 v2 sm sv")]
    weights = {"s": floats(3), "b": floats(3, seed=1), "m": floats(3), "v": np.ones(3, np.float32)}
    proto = graph(nodes, ["n", 3, 6, 6], "y", opset=9, ir=4, **weights)
    with refuses("training-mode") as refused:
        import_onnx(proto)
    assert "training" in str(refused.value)
