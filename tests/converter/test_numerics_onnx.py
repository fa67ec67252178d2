"""The rewrite of ONNX graphs computes what its factors say."""

import onnxruntime as ort
from numerics import PairNumerics, make_cases, plan_of
from onnx import TensorProto, checker, helper, numpy_helper

from dsconvert.converter.rewrite import rewrite

AUTO_PADS = {"same": "SAME_UPPER", "same-lower": "SAME_LOWER", "valid": "VALID"}
ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh"}


def conv_attributes(spec):
    attributes = {"strides": spec.strides, "dilations": spec.dilation}
    if isinstance(spec.padding, str):
        return attributes | {"auto_pad": AUTO_PADS[spec.padding]}
    (top, bottom), (left, right) = spec.padding
    return attributes | {"pads": [top, left, bottom, right]}


class TestOnnx(PairNumerics):
    # ONNX Runtime has no automatic padding of dilated kernels.
    CASES = make_cases(
        strides=[(1, 1), (2, 2), (2, 1)],
        dilations=[(1, 1)],
        paddings=["same", "same-lower"],
        kernel_sizes=[(1, 3), (3, 3), (2, 2), (3, 5)],
    ) + make_cases(
        strides=[(1, 1), (2, 1)],
        dilations=[(1, 1), (2, 2), (3, 1)],
        paddings=["valid", ((1, 1), (1, 1)), ((0, 2), (3, 1))],
        kernel_sizes=[(1, 3), (3, 3), (2, 2), (3, 5)],
        combined=True,
        first=1000,
    )

    def build(self, cases):
        nodes, weights = [], []
        for case in cases:
            name = case.spec.name
            names = ["image", f"{name}.kernel", f"{name}.bias"][: 2 + case.spec.use_bias]
            arrays = [case.kernel.transpose(3, 2, 0, 1), case.bias]
            weights += map(numpy_helper.from_array, arrays[: len(names) - 1], names[1:])
            linear = case.activation == "linear"
            target = name if linear else f"{name}.linear"
            nodes.append(
                helper.make_node("Conv", names, [target], name, **conv_attributes(case.spec))
            )
            if not linear:
                nodes.append(helper.make_node(ACTIVATIONS[case.activation], [target], [name]))
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
        outputs = [
            helper.make_tensor_value_info(case.spec.name, TensorProto.FLOAT, ["n", 4, None, None])
            for case in cases
        ]
        graph = helper.make_graph(nodes, "cases", [image], outputs, weights)
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])

    def rewrite(self, model, choice):
        names = [node.name for node in model.graph.node if node.op_type == "Conv"]
        result = rewrite(model, plan=plan_of(names, choice))
        assert set(result.report.rewritten) == set(names)
        checker.check_model(result.model, full_check=True)
        return result.model

    def run(self, model, x):
        session = ort.InferenceSession(model.SerializeToString())
        outputs = session.run(None, {"image": x.transpose(0, 3, 1, 2)})
        return [output.transpose(0, 2, 3, 1) for output in outputs]
