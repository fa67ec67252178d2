from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.base.number_words import whole_number
from dsconvert.deploy.runtimes.registry import RUNTIMES

from . import next_command, options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.measured import MeasuredFile
    from dsconvert.workflows.results.shown import Results


_MOST_CPUS = 4095
"""The highest number that a Linux kernel gives a core."""


class Cpus(click.ParamType[tuple[int, ...]]):
    """Cores by number, as the kernel lists them: 4-7 or 0,2,4."""

    name = "cores"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse a list of numbers and ranges."""
        if isinstance(value, tuple):
            return value
        found: set[int] = set()
        for part in value.split(","):
            low, dash, high = part.partition("-")
            first, last = whole_number(low), whole_number(high if dash else low)
            if first is None or last is None or not first <= last <= _MOST_CPUS:
                self.fail(f"{value!r} names no cores; write them as 4-7 or 0,2,4.", param, ctx)
            found |= set(range(first, last + 1))
        return tuple(sorted(found))


@click.command(
    epilog=terms.explained("p50, p90, p99", "load", "against", "MACs", "arena", "cycles")
)
@click.argument("files", nargs=-1, required=True, type=options.MODEL, metavar="FILE...")
@click.option(
    "--device",
    "devices",
    default=("host",),
    multiple=True,
    show_default=True,
    metavar="NAME",
    help="host, ssh:[USER@]HOST[:PORT], adb[:SERIAL] or a name that you gave one (see devices); "
    "by estimate: mcu, ethos-u55-128 …. Several boards and phones run side by side.",
)
@click.option(
    "--benchmark-binary",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TFLite's benchmark_model, built for the phone or the board.",
)
@click.option(
    "--runtime",
    "runtimes",
    type=click.Choice(list(RUNTIMES)),
    multiple=True,
    help="Fail unless it runs every file; by default each format's own. Given several times, each "
    "file is measured in each, in turns.",
)
@options.threads
@click.option("--cpus", type=Cpus(), default=(), metavar="N-M|N,N…", help="Run on these cores.")
@click.option(
    "--runs",
    type=options.Count(1, 10**6),
    default=200,
    show_default=True,
    help="Timed runs of each file, at least.",
)
@click.option(
    "--warmup",
    type=options.Count(0, 10**6),
    default=10,
    show_default=True,
    help="Runs before these that are not counted.",
)
@click.option(
    "--min-seconds",
    type=options.Finite(0, 86400),
    default=0.5,
    show_default=True,
    help="Go on timing each file for so long.",
)
@click.option("--per-op", is_flag=True, help="Time each operator too, in runs of their own.")
@click.option("--data", metavar="DATA", help="Real inputs to run on; random ones otherwise.")
@options.input_size
@options.preprocessing
@options.common
@terminal.speaks(next_command.after_profile)
def profile(
    files: tuple[Path, ...],
    devices: tuple[str, ...],
    runtimes: tuple[str, ...],
    data: str | None,
    seed: int,
    scale: str | None,
    mean: str | None,
    std: str | None,
    channels_first: bool,
    **how: Any,
) -> Results[MeasuredFile]:
    """Measure size, memory and latency of .tflite and .onnx FILEs.

    All are timed in turns in one run, since machines drift.

    \b
    They run on this machine, a board or a phone, or an accelerator is estimated:
      dsconvert profile a.tflite b.tflite --cpus 2,3 --threads 2 --per-op
      dsconvert profile a.tflite b.tflite --device ssh:pi@board --json > pi.json
      dsconvert profile a.tflite --device ethos-u55-128
      dsconvert profile a.onnx --runtime ort --runtime openvino
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.workflows.profile import ProfileOptions
    from dsconvert.workflows.profile import profile as run

    return run(
        files,
        device=devices,
        options=ProfileOptions(runtime=runtimes, seed=seed, **how),
        data=data,
        preprocessing=options.as_preprocessing(scale, mean, std, channels_first),
        progress=terminal.progress,
    )
