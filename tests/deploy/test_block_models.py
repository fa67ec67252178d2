"""The small files that are timed compute what their block and their choice say."""

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from numerics import convolve

from dsconvert.base.errors import InputError
from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.converter.core.types import Choice
from dsconvert.deploy.costs import estimate
from dsconvert.deploy.costs.block_variants import form_of, plain
from dsconvert.deploy.costs.onnx_block import onnx_block
from dsconvert.deploy.costs.ort_block_core import inside
from dsconvert.deploy.costs.tflite_block import tflite_block
from dsconvert.deploy.runtimes.registry import open_runtime

SIZE, CHANNELS, FILTERS = (11, 10), 5, 8
IMAGE = np.random.default_rng(1).normal(size=(1, *SIZE, CHANNELS)).astype(np.float32)
ACTIVATIONS = {
    "none": lambda y: y,
    "relu": lambda y: np.maximum(y, 0),
    "relu6": lambda y: np.clip(y, 0, 6),
}
WRITERS = {".tflite": tflite_block, ".onnx": onnx_block}
FORMATS = list(WRITERS)
PRECISIONS = ["float32", "int8"]
DW, PW = "depthwise-first", "pointwise-first"

CHOICES = [
    None,
    *(Choice(pairs=pairs, order=order) for pairs in (1, 2, 3) for order in (DW, PW)),
    *(Choice(pairs=pairs, order=DW, lowering="multiplier") for pairs in (2, 3)),
]


def block(**changes):
    """A 3×3 convolution, unless told otherwise."""
    standard = {
        "input_size": SIZE,
        "in_channels": CHANNELS,
        "out_channels": FILTERS,
        "kernel_size": (3, 3),
    }
    return Block(**(standard | changes))


BLOCKS = [
    block(activation="relu"),
    block(strides=(2, 2)),
    block(strides=(2, 2), padding="same-lower", activation="relu6"),
    block(dilation=(2, 2), activation="relu"),
    block(dilation=(2, 1), padding="same-lower"),
    block(dilation=(1, 3), padding="valid", activation="relu6"),
    block(kernel_size=(5, 3), padding="valid"),
    block(kernel_size=(2, 2), strides=(1, 2), padding="valid", activation="relu"),
    block(kernel_size=(4, 1), padding=((2, 1), (0, 0)), activation="relu6"),
    block(padding=((2, 0), (1, 3)), strides=(3, 2)),
    block(padding=((1, 1), (1, 1)), activation="relu"),
    block(kernel_size=(1, 1), strides=(2, 2), padding="valid", activation="relu"),
]


def save(folder, form, suffix, precision):
    path = folder / f"block{suffix}"
    path.write_bytes(WRITERS[suffix](form, precision))
    return path


def run(path):
    """The file's output for IMAGE, (1, H', W', N)."""
    if path.suffix == ".tflite":
        return open_runtime(path).predict([IMAGE])[0]
    return open_runtime(path).predict([IMAGE.transpose(0, 3, 1, 2)])[0].transpose(0, 2, 3, 1)


def reference(form):
    y = convolve(IMAGE, form.kernel, form.block, form.bias)
    return ACTIVATIONS[form.block.activation](y)


def operators(file):
    """Name, version, options of each operator of a .tflite file."""
    model = schema.ModelT.InitFromPackedBuf(file)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0].isupper()}
    found = []
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        found.append((names[code.builtinCode], code.version, operator.builtinOptions))
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_form_is_its_convolution(tmp_path, suffix, precision):
    """float32: a handful of roundings of 6e-8. int8: one percent of the power is noise, at most."""
    limit = 2e-6 if precision == "float32" else 0.1
    wrong = {}
    for one in BLOCKS:
        for choice in CHOICES:
            form = form_of(one, choice)
            output, expected = run(save(tmp_path, form, suffix, precision)), reference(form)
            assert output.shape == expected.shape, (one, choice)
            error = np.linalg.norm(output - expected) / np.linalg.norm(expected)
            if not error < limit:
                wrong[one, choice] = error
    assert wrong == {}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("suffix", FORMATS)
def test_quantized_files_are_quantized(tmp_path, suffix, precision):
    """An int8 file is not exact, so that it was not float in disguise."""
    form = form_of(BLOCKS[0], CHOICES[3])
    output, expected = run(save(tmp_path, form, suffix, precision)), reference(form)
    error = np.linalg.norm(output - expected) / np.linalg.norm(expected)
    assert (error > 1e-3) == (precision == "int8")


def test_outputs_use_the_range_of_their_scale():
    """A standard normal input gives a standard normal output, whatever the form."""
    for choice in CHOICES:
        form = form_of(block(in_channels=64, out_channels=64, padding="valid"), choice)
        x = np.random.default_rng(2).normal(size=(1, *SIZE, 64))
        assert convolve(x, form.kernel, form.block).std() == pytest.approx(1, rel=0.1)


class TestTflite:
    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_operators(self, precision):
        version = {"float32": 1, "int8": 3}[precision]
        conv, deep = ("CONV_2D", version), ("DEPTHWISE_CONV_2D", version)
        add = ("ADD", {"float32": 1, "int8": 2}[precision])
        expected = {
            CHOICES[0]: [conv],
            CHOICES[1]: [deep, conv],
            CHOICES[2]: [conv, deep],
            CHOICES[5]: [deep, conv, deep, conv, add, deep, conv, add],
            CHOICES[8]: [deep, conv],
        }
        for choice, names in expected.items():
            found = operators(tflite_block(form_of(BLOCKS[0], choice), precision))
            assert [one[:2] for one in found] == names
            acts = [options.fusedActivationFunction for _, _, options in found]
            assert acts == [0] * (len(acts) - 1) + [schema.ActivationFunctionType.RELU]
            multipliers = [o.depthMultiplier for name, _, o in found if name == deep[0]]
            multiplier = choice.pairs if choice and choice.lowering == "multiplier" else 1
            assert set(multipliers) <= {multiplier}

    @pytest.mark.parametrize(
        ("padding", "padded", "word"),
        [
            ("same", False, "SAME"),
            ("valid", False, "VALID"),
            (((1, 1), (1, 1)), False, "SAME"),
            (((0, 0), (0, 0)), False, "VALID"),
            (((1, 0), (1, 1)), True, "VALID"),
        ],
    )
    def test_padding_is_native_where_it_has_a_word(self, padding, padded, word):
        for choice in CHOICES:
            file = tflite_block(form_of(block(padding=padding), choice), "int8")
            names = [name for name, _, _ in operators(file)]
            assert names.count("PAD") == padded == (names[0] == "PAD")
            words = {o.padding for name, _, o in operators(file) if "CONV" in name}
            assert getattr(schema.Padding, word) in words

    def test_float_dilation_needs_a_later_version(self):
        found = operators(tflite_block(form_of(block(dilation=(2, 2)), CHOICES[1]), "float32"))
        assert [one[:2] for one in found] == [("DEPTHWISE_CONV_2D", 2), ("CONV_2D", 1)]

    def test_ends_are_int8(self, tmp_path):
        runtime = open_runtime(save(tmp_path, form_of(BLOCKS[0], None), ".tflite", "int8"))
        assert {info.dtype for info in (*runtime.inputs, *runtime.outputs)} == {"int8"}

    @pytest.mark.parametrize("choice", [CHOICES[0], CHOICES[2], CHOICES[3], CHOICES[7]], ids=str)
    def test_npu_takes_all_of_it(self, tmp_path, choice):
        one = block(padding=((1, 0), (2, 1)), strides=(2, 2), activation="relu6")
        figures = estimate(save(tmp_path, form_of(one, choice), ".tflite", "int8"), "ethos-u55-128")
        assert figures.npu_share == 1
        assert figures.cycles > 0


class TestOnnx:
    @pytest.mark.parametrize("choice", CHOICES, ids=str)
    def test_onnx_runtime_fuses_all_of_int8(self, choice):
        one = block(in_channels=16, out_channels=16, activation="relu")
        graph = onnx.load_from_string(inside(onnx_block(form_of(one, choice), "int8"))).graph
        names = [node.op_type for node in graph.node]
        pairs, single = (0, 1) if choice is None else (choice.pairs, 0)
        if choice is not None and choice.lowering == "multiplier":
            pairs, single = 1, 0
        expected = ["QLinearConv"] * (2 * pairs + single) + ["QLinearAdd"] * max(pairs - 1, 0)
        assert sorted(names) == sorted(expected)
        assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8

    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("channels", [3, 20, 32])
    def test_inside_runs_and_has_no_conversions_at_its_ends(self, tmp_path, precision, channels):
        one = block(in_channels=channels, out_channels=channels + 4, activation="relu")
        for choice in CHOICES:
            path = tmp_path / "inside.onnx"
            path.write_bytes(inside(onnx_block(form_of(one, choice), precision)))
            graph = onnx.load(path).graph
            ends = [
                node.op_type
                for node in graph.node
                if node.input[0] == graph.input[0].name or graph.output[0].name in node.output
            ]
            assert ends
            if choice is None:
                conversions = {"Transpose", "QuantizeLinear", "DequantizeLinear", "ReorderOutput"}
                assert not conversions & set(ends)
            runtime = open_runtime(path)
            shape = runtime.inputs[0].shape
            prepared = runtime.prepare([np.ones(shape, runtime.inputs[0].dtype)])
            prepared.run()
            assert prepared.read()[0].size >= (channels + 4) * SIZE[0] * SIZE[1]


class TestRefusals:
    def test_kernel_larger_than_its_input(self):
        with pytest.raises(InputError, match=r"5×5 convolution 5→8 on 4×9, padding valid: the pad"):
            form_of(block(input_size=(4, 9), kernel_size=(5, 5), padding="valid"), None)

    def test_choices_that_cannot_be_written_down(self):
        for choice, message in (
            (Choice(pairs=2, order=PW, lowering="multiplier"), "needs the depthwise convolution"),
            (Choice(pairs=1, order="auto"), "order auto"),
            (Choice(pairs=0, order=DW), "got 0 pairs"),
        ):
            with pytest.raises(InputError, match=message):
                plain(choice)

    def test_multiplier_of_one_is_a_pair(self):
        assert plain(Choice(pairs=1, order=DW, lowering="multiplier")) == CHOICES[1]
