"""Time and memory of rewriting a network of ImageNet's size: VGG16, 224², 64 random images."""

from __future__ import annotations

import resource
import time

import numpy as np
from common import machine, table


def main() -> None:
    import keras

    from dsconvert.converter.rewrite import rewrite

    print(f"Machine: {machine()}")
    keras.utils.set_random_seed(0)
    model = keras.applications.VGG16(weights=None)
    calibration = np.random.default_rng(0).random((64, 224, 224, 3), dtype=np.float32)
    started = time.perf_counter()
    result = rewrite(model, calibration=calibration)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    table(
        "VGG16 (weights=None), T = 1, data method",
        ["convolutions rewritten", "G MACs", "s", "peak memory GiB"],
        [
            [
                len(result.report.rewritten),
                f"{(result.report.macs_before or 0) / 1e9:.2f} → "
                f"{(result.report.macs_after or 0) / 1e9:.2f}",
                f"{seconds:.0f}",
                f"{peak:.1f}",
            ]
        ],
    )


if __name__ == "__main__":
    main()
