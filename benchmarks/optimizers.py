"""Which optimizer refines best: Adam or SOAP, both with steps that are shares of a tensor's size.

The same fitted networks are refined by each. Images of the training set that nothing was fitted to
judge, so that the choice is not made on the images that `accuracy.py` reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from accuracy import BUDGETS, fitted_network
from common import arguments, machine, table

JUDGES = 4000
"""Images that judge, less those that were fitted to."""


def main() -> None:
    chosen = arguments(__doc__, "resnet8-6.25M", "vgg6-19.84M", seeds="1", rates="2e-3,4e-3")
    print(f"Machine: {machine()}")
    table(
        "The same networks refined by Adam and by SOAP, judged on other images",
        ["network", "seed", "optimizer", "rate", "steps", "output error", "top-1 %", "CPU s"],
        (
            row
            for part in chosen.only.split(",")
            for seed in chosen.seeds.split(",")
            for row in _rows(part, int(seed), chosen.rates.split(","), chosen)
        ),
    )


def _rows(part: str, seed: int, rates: Sequence[str], chosen: Any) -> Iterator[list[Any]]:
    import keras

    from dsconvert.base.fidelity import output_error
    from dsconvert.base.progress import silent
    from dsconvert.converter.backends.keras.graph import as_functional
    from dsconvert.converter.calibration import split
    from dsconvert.models.training.refine import RefineSettings, refine
    from dsconvert.models.training.soap import relative_soap
    from dsconvert.workflows.refine import composed_like

    opened, x, made = fitted_network(BUDGETS[part], 1000, seed, chosen.models, chosen.data)
    teacher, student = as_functional(opened.model), made.model
    unseen, labels = _judges(chosen.data, x)
    expected = teacher.predict(unseen, verbose=0)
    composed, data, begun = composed_like(teacher, student), split([x], seed), student.get_weights()

    def judged(name: str, rate: str, steps: int, spent: float) -> list[Any]:
        found = student.predict(unseen, verbose=0)
        error = output_error([expected], [found])
        right = 100 * np.mean(np.argmax(found, axis=-1) == labels)
        return [part, seed, name, rate, steps, f"{error:.4f}", f"{right:.2f}", f"{spent:.0f}"]

    yield judged("not refined", "", 0, 0.0)
    makers: dict[str, Callable[..., Any]] = {"Adam": relative_adam, "SOAP": relative_soap}
    for rate in rates:
        for name, make in makers.items():
            student.set_weights(begun)
            keras.utils.set_random_seed(seed)
            settings = RefineSettings(
                steps=BUDGETS[part].steps, learning_rate=float(rate), seed=seed
            )
            started = time.process_time()
            with patch("dsconvert.models.training.refine.relative_soap", make):
                refine(
                    composed(student),
                    composed(teacher),
                    data.inputs,
                    data.held_out,
                    settings,
                    progress=silent,
                )
            yield judged(name, rate, BUDGETS[part].steps, time.process_time() - started)


def relative_adam(variables: Sequence[Any]) -> Any:
    """Return Adam (arXiv:1412.6980) whose steps are multiplied by each variable's size."""
    import keras

    from dsconvert.models.training.step_sizes import size_of

    sizes = [size_of(variable) for variable in variables]

    class RelativeAdam(keras.optimizers.Adam):  # type: ignore[misc]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            size = sizes[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * size)

    optimizer = RelativeAdam(0.0)
    optimizer.build(variables)
    return optimizer


def _judges(data: Path, fitted: Any) -> tuple[Any, Any]:
    """Return training images that are not among the fitted ones, and their classes."""
    with np.load(data) as arrays:
        pictures, labels = arrays["x_train"], arrays["y_train"].reshape(-1)
    known = {image.tobytes() for image in fitted}
    index = np.random.default_rng(99).permutation(len(pictures))[:JUDGES]
    chosen = [i for i in index if pictures[i].astype(fitted.dtype).tobytes() not in known]
    return pictures[chosen].astype(fitted.dtype), labels[chosen]


if __name__ == "__main__":
    main()
