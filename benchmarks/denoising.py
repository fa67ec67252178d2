"""A denoiser planned for half its measured time, fitted and refined without clean pictures.

Calibration takes noisy cuts of 32×32 alone; clean pictures of 64×64 judge. PSNR is in dB, and the
noise has a σ of 25 of 255.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, machine, table

DNCNN = "keras/dncnn_sigma25.keras"
SIGMA = np.float32(25 / 255)
TEST = 100
"""Pictures that judge."""


def main() -> None:
    chosen = arguments(
        __doc__, "dncnn", pictures="400", steps="60", seeds="0,1", limits="0.5x", runtime="litert"
    )
    print(f"Machine: {machine()}")
    columns = ["pictures", "seed", "limit", "measured", "rewritten", "original dB"]
    table(
        f"{DNCNN} on enlarged grey CIFAR-10 pictures with noise, planned for {chosen.runtime}",
        [*columns, "fitted dB", "refined dB", "steps", "CPU s"],
        rows(chosen),
    )


def grey(data: Path, part: str, count: int, seed: int, size: int = 64) -> Any:
    """Clean pictures from 0 to 1, enlarged to 64×64 of which (count, size, size, 1) is cut out."""
    from PIL import Image

    x = np.load(data)[part]
    x = x[np.random.default_rng(seed).choice(len(x), count, replace=False)]
    whole = [
        np.asarray(Image.fromarray(one).convert("L").resize((64, 64), Image.Resampling.BICUBIC))
        for one in x
    ]
    first = (64 - size) // 2
    cut = np.stack(whole)[:, first : first + size, first : first + size, None]
    return cut.astype(np.float32) / 255


def noisy(clean: Any, seed: int) -> Any:
    noise = np.random.default_rng(seed).normal(0, SIGMA, clean.shape)
    return clean + noise.astype(np.float32)


def psnr(model: Any, clean: Any) -> float:
    """Return the mean over the pictures, in dB."""
    found = model.predict(noisy(clean, 99), verbose=0)
    error = np.square(found - clean).mean(axis=(1, 2, 3))
    return float((-10 * np.log10(error)).mean())


def rows(chosen: Any) -> Iterator[list[Any]]:
    import dsconvert as ds

    opened = ds.load(chosen.models / DNCNN)
    test = grey(chosen.data, "x_test", TEST, 0)
    original = psnr(opened.model, test)
    for seed in map(int, chosen.seeds.split(",")):
        x = noisy(grey(chosen.data, "x_train", int(chosen.pictures), seed, 32), seed)
        for limit in chosen.limits.split(","):
            planned = ds.plan(
                opened,
                calibration=x,
                goals=ds.Goals(latency=limit),
                target=ds.Target(chosen.runtime),
                options=ds.PlanOptions(seed=seed),
            )
            options = ds.RewriteOptions(seed=seed)
            how = {"plan": planned, "calibration": x, "options": options}
            fitted = ds.rewrite(opened, refine=0, **how)
            before, started = psnr(fitted.model, test), time.process_time()
            refined = ds.rewrite(opened, refine=f"{chosen.steps}steps", **how)
            done, timed = refined.record.refined, planned.timed
            assert timed is not None
            yield [
                chosen.pictures,
                seed,
                limit,
                f"{timed.after / timed.before:.2f} ({timed.ratio_low:.2f}–{timed.ratio_high:.2f})",
                f"{len(planned.plan.chosen)} of {len(planned.plan.layers)}",
                f"{original:.2f}",
                f"{before:.2f}",
                f"{psnr(refined.model, test):.2f}" if done and done.kept else "not kept",
                chosen.steps,
                f"{time.process_time() - started:.0f}",
            ]


if __name__ == "__main__":
    main()
