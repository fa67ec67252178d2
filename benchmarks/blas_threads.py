"""How long a three-factor fit takes with one BLAS thread, and with all that NumPy and SciPy start.

Both fit the same white noise and take turns; wall seconds, since spinning threads take the time of
others. Run it alone to see an idle machine.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from common import arguments, machine, table

LAYERS = {"32": (32, 64), "64": (64, 136), "128": (128, 64), "256": (256, 136)}
"""Channels in and out, and R."""
STEPS = 40


def main() -> None:
    chosen = arguments(__doc__, *LAYERS, rounds="3")
    print(f"Machine: {machine()}")
    table(
        f"A three-factor fit of at most {STEPS} steps, wall seconds: median of {chosen.rounds}",
        ["channels", "R", "one thread", "all threads", "ratio"],
        (_row(*LAYERS[name], int(chosen.rounds)) for name in chosen.only.split(",")),
    )


def _row(width: int, channels: int, rounds: int) -> list[Any]:
    from dsconvert.converter.core.fitting.fit import FitOptions
    from dsconvert.converter.core.fitting.moments import Moments
    from dsconvert.converter.core.fitting.three_factor_fit import fit_three_factors

    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, width, width)) / width
    moments = Moments(9 * width, width)
    mixing = rng.normal(size=(9 * width, 9 * width)).astype(np.float32)
    x = rng.normal(size=(12 * width, 9 * width)).astype(np.float32) @ mixing
    moments.update(x, x @ kernel.transpose(2, 0, 1, 3).reshape(-1, width).astype(np.float32))
    stats = moments.statistics()
    options = FitOptions(steps=STEPS, starts=1)
    ways = {"one": fit_three_factors, "all": fit_three_factors.__wrapped__}  # type: ignore[attr-defined]
    seconds: dict[str, list[float]] = {"one": [], "all": []}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way([stats], kernel, channels, options=options)
            seconds[name].append(time.perf_counter() - started)
    one, every = (float(np.median(seconds[name])) for name in ("one", "all"))
    return [f"{width} → {width}", channels, f"{one:.2f}", f"{every:.2f}", f"{every / one:.1f}"]


if __name__ == "__main__":
    main()
