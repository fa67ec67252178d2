"""Blocks, what may replace them, and a target: what costs are asked for in tests."""

from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.converter.core.types import Choice
from dsconvert.deploy.costs import Target

DW, PW = "depthwise-first", "pointwise-first"
ONE, FIRST, TWO = (
    Choice(pairs=1, order=DW),
    Choice(pairs=1, order=PW),
    Choice(pairs=2, order=DW),
)
MULTIPLIER = Choice(pairs=2, order=DW, lowering="multiplier")
SMALL = Block(input_size=(8, 8), in_channels=8, out_channels=8, kernel_size=(3, 3))
OTHER = Block(input_size=(8, 8), in_channels=8, out_channels=16, kernel_size=(3, 3))
MIDDLE = Block(input_size=(28, 28), in_channels=64, out_channels=64, kernel_size=(3, 3))
STRIDED = Block(
    input_size=(28, 28), in_channels=16, out_channels=16, kernel_size=(3, 3), strides=(4, 4)
)
U55 = Target(precision="int8", device="ethos-u55-128")


def values(costs):
    return [figure and figure.value for figure in costs.choices]
