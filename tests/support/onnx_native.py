"""Small ONNX graphs for the tests of their rewrite, and what those tests ask again and again."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from dsconvert.converter.rewrite import rewrite

FULL_RANK = 100
"""More pairs than any kernel in these tests needs: the rewrite is then exact."""


class Net:
    """A graph under construction; every method names the value that it makes."""

    def __init__(self, seed=0, dtype=np.float32):
        self.rng, self.dtype = np.random.default_rng(seed), dtype
        self.nodes, self.weights = [], []

    def constant(self, name, values):
        """An initialiser; ``values`` is an array, or a shape to fill with random numbers."""
        if isinstance(values, tuple):
            values = self.normal(*values)
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def normal(self, *shape):
        return self.rng.normal(size=shape).astype(self.dtype)

    def node(self, kind, inputs, outputs, **attributes):
        inputs, outputs = _words(inputs), _words(outputs)
        attributes.setdefault("name", f"{kind}_{outputs[0]}")
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs[0]

    def conv(self, source, target, channels=(6, 8), size=(3, 3), bias=True, **attributes):
        """A Conv whose node is called as what it makes, of fan-in weights."""
        taken, made = channels
        scale = 1 / np.sqrt(taken * np.prod(size))
        kernel = (self.normal(made, taken, *size) * scale).astype(self.dtype)
        inputs = [source, self.constant(f"{target}.kernel", kernel)]
        if bias:
            inputs.append(self.constant(f"{target}.bias", (made,)))
        attributes.setdefault("name", target)
        return self.node("Conv", inputs, target, **attributes)

    def norm(self, source, target, channels=8, **attributes):
        """A BatchNormalization that has seen data."""
        names = [
            self.constant(f"{target}.gamma", (channels,)),
            self.constant(f"{target}.beta", (channels,)),
            self.constant(f"{target}.mean", (channels,)),
            self.constant(f"{target}.var", self.rng.uniform(0.5, 2, channels).astype(self.dtype)),
        ]
        return self.node("BatchNormalization", [source, *names], target, **attributes)

    def model(self, outputs="y", inputs=None, opset=17, ir=8, listed=False, **fields):
        """The model.

        Args:
            outputs: Their names.
            inputs: Shapes by name, or element types and shapes.
            opset: Of ONNX, or all of them by domain.
            ir: The version of the file format.
            listed: Whether initialisers are among the inputs.
            fields: Of the model.
        """
        inputs = inputs or {"x": ("n", 6, 9, 10)}
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        typed = {name: x if x and type(x[-1]) is tuple else (kind, x) for name, x in inputs.items()}
        given = [helper.make_tensor_value_info(name, *x) for name, x in typed.items()]
        if listed:
            given += [
                helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.weights
            ]
        made = [onnx.ValueInfoProto(name=name) for name in _words(outputs)]
        graph = helper.make_graph(self.nodes, "net", given, made, self.weights)
        opsets = opset if isinstance(opset, dict) else {"": opset}
        imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        fields = {"opset_imports": imports, "ir_version": ir} | fields
        model = helper.make_model(graph, **fields)
        inferred = onnx.shape_inference.infer_shapes(model).graph.output
        del model.graph.output[:]
        model.graph.output.extend(inferred)
        return model


def _words(names):
    return names.split() if isinstance(names, str) else list(names)


def images(*shape, seed=0, dtype=np.float32):
    """Standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


X = images(2, 6, 9, 10)


def session(model):
    """Of a model or a path, on one thread."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    source = str(model) if not isinstance(model, onnx.ModelProto) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def outputs(model, *inputs):
    """What ONNX Runtime makes of the inputs, in the order of the graph."""
    runner = session(model)
    names = [x.name for x in runner.get_inputs()]
    return runner.run(None, dict(zip(names, inputs, strict=True)))


def relative(expected, got):
    """‖expected − got‖ / ‖expected‖."""
    gap = np.linalg.norm(np.asarray(expected, np.float64) - got)
    return float(gap / max(np.linalg.norm(np.asarray(expected, np.float64)), 1e-30))


def assert_same_outputs(model, rewritten, *inputs, tolerance=1e-5):
    """Relative to each output's size; some hundred float32 additions in another order."""
    expected, got = outputs(model, *inputs), outputs(rewritten, *inputs)
    for reference, other in zip(expected, got, strict=True):
        assert (reference.shape, reference.dtype) == (other.shape, other.dtype)
        assert relative(reference, other) <= tolerance


def rewritten(model, *names, pairs=FULL_RANK, folder=None, **more):
    """Rewrite the named convolutions (all that can be, without names) and check the result."""
    before = model.SerializeToString()
    result = rewrite(model, folder=folder, pairs=pairs, include=names, **more)
    assert model.SerializeToString() == before, "the given model was changed"
    if names:
        assert set(result.report.rewritten) == set(names)
    onnx.checker.check_model(result.model, full_check=True)
    return result.model


def kinds(model):
    """Operator names in the order of the graph."""
    return [node.op_type for node in model.graph.node]


def reasons(model, **more):
    """The reason's code of each convolution, "" for those that can be rewritten."""
    from dsconvert.converter.inspect import inspect

    found = inspect(model, **more).convolutions
    return {row.name: row.reason.code if row.reason else "" for row in found}


def two_convs(net=None, **attributes):
    """x → a → relu → b → y."""
    net = net or Net()
    net.conv("x", "a", **attributes)
    net.node("Relu", "a", "a.relu")
    net.conv("a.relu", "b", (8, 7))
    return net


def exactly(model, *names, x=X, **options):
    """The full-rank rewrite, checked to run and to compute the same."""
    result = rewritten(model, *names, **options)
    assert_same_outputs(model, result, x)
    return result


FLOAT = TensorProto.FLOAT
