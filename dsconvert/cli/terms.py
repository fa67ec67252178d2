"""What the words in results mean, for the ``--help`` of the commands that print them."""

from __future__ import annotations

import textwrap

_WIDTH = 76
TERMS = {
    "MACs": "multiply-accumulates for one image",
    "pair": "a depthwise and a 1×1 convolution in place of a full one",
    "T": "how many pairs are summed in place of one convolution",
    "block": "a 1×1, a depthwise and a 1×1 convolution in place of a full one",
    "R": "how many channels a block has between its 1×1 convolutions",
    "stem": "a convolution of at most 4 channels, as the first one, which reads the image",
    "fit": "the error of a layer's output on images, ‖y − ŷ‖ / ‖y − mean y‖: excellent up to "
    "10 %, good up to 30 %; above that a network needs fine-tuning",
    "output error": "how far the whole network's outputs are from the original's: the KL "
    "divergence of class scores, in nats, else the squared relative error",
    "knee": "the point of the curve after which each saving costs much more error",
    "epoch 0": "the network before training, which competes too",
    "agreement": "share of images for which both models name the same class",
    "KL": "the Kullback–Leibler divergence of class scores, in nats: 0 for equal ones",
    "SQNR": "power of the outputs over that of their error, in dB: at 20 dB the error is 1 % "
    "of the power, at 40 dB 0.01 %",
    "top-1, top-5": "share of images whose class is the first, or one of the first five",
    "interval": "made so from other samples, 95 of 100 would hold the true value",
    "p50, p90, p99": "the times that 50, 90 and 99 % of the runs keep within",
    "load": "opening the file in a new process; the first run after it is timed apart",
    "against": "how the medians compare, with the 95 % interval of their ratio",
    "arena": "memory for the values between layers on a microcontroller",
    "cycles": "of an NPU, as Arm's compiler Vela estimates them",
    "lost": "what a file loses of the metric, against the original model; without labels the "
    "share of images whose class changes, or of noise in the outputs",
    "QDQ": "int8 in ONNX, as pairs of QuantizeLinear and DequantizeLinear",
    "per-channel": "each output channel of a kernel has a scale of its own",
}


def explained(*names: str) -> str:
    """Return the end of a command's help: the terms that its results have, one by one.

    Args:
        names: Keys of `TERMS`.
    """
    width = max(map(len, names))
    lines = []
    for name in names:
        lines += textwrap.wrap(
            TERMS[name],
            _WIDTH,
            initial_indent=f"  {name.ljust(width)}  ",
            subsequent_indent=" " * (width + 4),
        )
    return "\n".join(["\b", "In the results:", *lines])
