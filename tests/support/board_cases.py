"""Small files to measure on boards, and what this machine says of them."""

from __future__ import annotations

from pathlib import Path

import block_form

from dsconvert.base.progress import silent
from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.deploy.devices.device import Case
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.deploy.runtimes.samples import random_inputs

BLOCK = Block(
    input_size=(8, 8), in_channels=8, out_channels=8, kernel_size=(3, 3), activation="relu"
)


def save_block(path: Path, runtime: str, precision: str = "float32") -> Path:
    """A convolution as a file."""
    suffix = ".tflite" if runtime == "litert" else ".onnx"
    return block_form.save_block(path.with_name(f"{path.name}{suffix}"), BLOCK, None, precision)


def case_of(path: Path, seed: int = 0) -> Case:
    """A file with random inputs."""
    runtime = open_runtime(path)
    return Case(
        path=path,
        runtime="litert" if path.suffix == ".tflite" else "ort",
        inputs=tuple(random_inputs(runtime.inputs, 1, seed)),
        input_infos=runtime.inputs,
        output_infos=runtime.outputs,
    )


def expected(case: Case):
    """The file's outputs on this machine."""
    prepared = open_runtime(case.path).prepare(case.inputs)
    prepared.run()
    return prepared.read()


def measured(device, job, progress=silent):
    """What a device reports of one job."""
    (report,) = device.measure_all([job], progress)
    return report
