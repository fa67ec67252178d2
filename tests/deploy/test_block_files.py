"""The small files that are timed compute what their block and their choice say."""

from collections import Counter
from functools import cache

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from numerics import convolve

from dsconvert.base.errors import InputError
from dsconvert.converter.core.fitting.styles import block_style
from dsconvert.converter.core.planning.block_weights import block_weights
from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.converter.core.types import Choice
from dsconvert.deploy.costs import estimate
from dsconvert.deploy.costs.block_files import block_files
from dsconvert.deploy.costs.ort_block_core import inside
from dsconvert.deploy.runtimes.registry import open_runtime

SIZE, CHANNELS, FILTERS = (11, 10), 5, 8
IMAGE = np.random.default_rng(1).normal(size=(1, *SIZE, CHANNELS)).astype(np.float32)
ACTIVATIONS = {
    "none": lambda y: y,
    "relu": lambda y: np.maximum(y, 0),
    "relu6": lambda y: np.clip(y, 0, 6),
}
SUFFIXES = [".tflite", ".onnx"]
PRECISIONS = ["float32", "int8"]
DW, PW = "depthwise-first", "pointwise-first"

CHOICES = [
    None,
    *(Choice(pairs=pairs, order=order) for pairs in (1, 2, 3) for order in (DW, PW)),
    *(Choice(pairs=pairs, order=DW, lowering="multiplier") for pairs in (2, 3)),
]
MOBILENET = [
    Choice(pairs=1, block="mobilenet"),
    Choice(pairs=2, order=DW, block="mobilenet"),
    Choice(pairs=2, order=DW, lowering="multiplier", block="mobilenet"),
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
    block(strides=(2, 2), padding="same-lower", activation="relu6"),
    block(dilation=(2, 1), padding="same-lower"),
    block(dilation=(1, 3), padding="valid", activation="relu6"),
    block(kernel_size=(2, 2), strides=(2, 2), padding="valid", activation="relu"),
    block(kernel_size=(4, 1), padding=((2, 1), (0, 0)), activation="relu6"),
    block(padding=((2, 0), (1, 3)), strides=(3, 3)),
    block(padding=((1, 1), (1, 1)), activation="relu"),
]


@cache
def files(one, suffix, precision, choices=(*CHOICES, *MOBILENET)):
    """The forms of a block by their choice; none may fail."""
    made = block_files(one, choices, suffix, precision)
    assert not [why for why in made if isinstance(why, Exception)]
    return dict(zip(choices, made, strict=True))


def save(folder, content, suffix):
    path = folder / f"block{suffix}"
    path.write_bytes(content)
    return path


def run(path):
    """The file's output for IMAGE, (1, H', W', N)."""
    if path.suffix == ".tflite":
        return open_runtime(path).predict([IMAGE])[0]
    return open_runtime(path).predict([IMAGE.transpose(0, 3, 1, 2)])[0].transpose(0, 2, 3, 1)


def reference(one, choice):
    """By the definition: the convolution that the form stands for, or its layers one by one."""
    drawn = block_weights(one, choice)
    if drawn.factors is None or drawn.factors.linear:
        kernel = drawn.kernel if drawn.factors is None else drawn.factors.kernel()
        return ACTIVATIONS[one.activation](convolve(IMAGE, kernel, one, drawn.bias))
    total = drawn.bias
    for deep, norm, flat in drawn.factors.branches():
        kh, kw, groups, many = deep.kernel.shape
        dense = np.zeros((kh, kw, groups, groups * many))  # channel c and multiple m: c·M + m
        for c in range(groups):
            dense[:, :, c, c * many : (c + 1) * many] = deep.kernel[:, :, c]
        inner = convolve(IMAGE, dense, one)
        gain = norm.gamma / np.sqrt(norm.variance + norm.epsilon)
        total = total + np.maximum((inner - norm.mean) * gain + norm.beta, 0) @ flat.kernel
    return ACTIVATIONS[one.activation](total)


def operators(file):
    """Name and options of each operator of a .tflite file."""
    model = schema.ModelT.InitFromPackedBuf(file)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0].isupper()}
    return [
        (names[model.operatorCodes[one.opcodeIndex].builtinCode], one.builtinOptions)
        for one in model.subgraphs[0].operators
    ]


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_form_is_what_it_stands_for(tmp_path, suffix, precision):
    """float32: a handful of roundings of 6e-8. int8: a few percent of the power are noise.

    And int8 files are not exact, or they were float in disguise.
    """
    limit = 2e-6 if precision == "float32" else 0.15
    wrong = {}
    for one in BLOCKS:
        for choice, content in files(one, suffix, precision).items():
            output, expected = run(save(tmp_path, content, suffix)), reference(one, choice)
            assert output.shape == expected.shape, (one, choice)
            error = np.linalg.norm(output - expected) / np.linalg.norm(expected)
            if not error < limit or (precision == "int8" and error < 1e-3):
                wrong[one, choice] = error
    assert wrong == {}


def test_a_form_that_cannot_be_written_takes_no_other_with_it(tmp_path):
    choices = [None, Choice(pairs=1, order="auto"), CHOICES[1]]
    for suffix in SUFFIXES:
        made = block_files(BLOCKS[0], choices, suffix, "float32")
        assert [isinstance(one, bytes) for one in made] == [True, False, True]
        assert isinstance(made[1], InputError)
        run(save(tmp_path, made[2], suffix))


class TestTflite:
    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_operators(self, precision):
        conv, deep, add = "CONV_2D", "DEPTHWISE_CONV_2D", "ADD"
        expected = {
            CHOICES[0]: [conv],
            CHOICES[1]: [deep, conv],
            CHOICES[2]: [conv, deep],
            CHOICES[3]: [deep, conv] * 2 + [add],
            CHOICES[5]: [deep, conv] * 3 + [add] * 2,
            CHOICES[8]: [deep, conv],
            MOBILENET[0]: [deep, conv],  # the norm is folded, its ReLU fused
            MOBILENET[2]: [deep, conv],
        }
        relu = schema.ActivationFunctionType.RELU
        for choice, names in expected.items():
            found = operators(files(BLOCKS[0], ".tflite", precision)[choice])
            assert Counter(name for name, _ in found) == Counter(names), choice
            assert found[-1][0] == names[-1]
            inner = [o.fusedActivationFunction for name, o in found[:-1] if name == deep]
            assert set(inner) <= {relu if choice and choice.block == "mobilenet" else 0}
            assert found[-1][1].fusedActivationFunction == relu
            multipliers = [options.depthMultiplier for name, options in found if name == deep]
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
        choices = (None, CHOICES[1], CHOICES[4])
        for file in files(block(padding=padding), ".tflite", "int8", choices).values():
            names = [name for name, _ in operators(file)]
            assert names.count("PAD") == padded == (names[0] == "PAD")
            words = {options.padding for name, options in operators(file) if "CONV" in name}
            assert getattr(schema.Padding, word) in words

    def test_ends_are_int8(self, tmp_path):
        content = files(BLOCKS[0], ".tflite", "int8")[None]
        runtime = open_runtime(save(tmp_path, content, ".tflite"))
        assert {info.dtype for info in (*runtime.inputs, *runtime.outputs)} == {"int8"}

    def test_npu_takes_all_of_it(self, tmp_path):
        one = block(padding=((1, 0), (2, 1)), strides=(2, 2), activation="relu6")
        choices = (None, CHOICES[2], CHOICES[3], CHOICES[7], MOBILENET[0])
        for content in files(one, ".tflite", "int8", choices).values():
            figures = estimate(save(tmp_path, content, ".tflite"), "ethos-u55-128")
            assert figures.npu_share == 1
            assert figures.cycles > 0


class TestOnnx:
    def test_onnx_runtime_fuses_all_of_int8(self):
        one = block(in_channels=16, out_channels=16, activation="relu")
        for choice, content in files(one, ".onnx", "int8").items():
            graph = onnx.load_from_string(inside(content)).graph
            names = [node.op_type for node in graph.node]
            pairs, single = (0, 1) if choice is None else (choice.pairs, 0)
            if choice is not None and choice.lowering == "multiplier":
                pairs, single = 1, 0
            expected = ["QLinearConv"] * (2 * pairs + single) + ["QLinearAdd"] * max(pairs - 1, 0)
            assert sorted(names) == sorted(expected), choice
            assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8

    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("channels", [3, 20, 32])
    def test_inside_runs_and_has_no_conversions_at_its_ends(self, tmp_path, precision, channels):
        one = block(in_channels=channels, out_channels=channels + 4, activation="relu")
        for choice, content in files(one, ".onnx", precision).items():
            path = tmp_path / "inside.onnx"
            path.write_bytes(inside(content))
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
            block_weights(block(input_size=(4, 9), kernel_size=(5, 5), padding="valid"), None)

    def test_choices_that_cannot_be_written_down(self):
        for choice, message in (
            (Choice(pairs=1, order="auto"), "order auto"),
            (Choice(pairs=0, order=DW), "got 0"),
            (Choice(pairs=1, order=PW, block="mobilenet"), "depthwise first"),
            (Choice(block="fancy"), "unknown block style 'fancy'"),
        ):
            with pytest.raises(InputError, match=message):
                block_weights(BLOCKS[0], choice)

    def test_multiplier_of_one_is_a_pair(self):
        one = Choice(pairs=1, order=DW, lowering="multiplier")
        assert block_style("linear").written(one) == CHOICES[1]
