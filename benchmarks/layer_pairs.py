"""Does a plan gain by judging layers two by two?

A plan adds up what each rewritten layer alone does to the outputs. Here all candidates of all
layers are fitted once, alone and two at a time they show what they do to the outputs of held-out
images, and all plans are looked at: the one of the least sum within a budget, and the one of the
least sum with what any two layers do to each other added. Both are then judged as a whole, on
pictures that nothing else has seen.

    python benchmarks/layer_pairs.py --models FOLDER --data cifar10.npz [--only resnet8]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from common import arguments, machine, table
from plan_ranking import NETWORKS, pictures

CALIBRATION, JUDGE = 500, 500
CANDIDATES = 6
"""Of each layer at most, evenly spread over their MACs: all plans are looked at."""
SHARES = (0.7, 0.6, 0.5, 0.4, 0.34)
"""Of the network's MACs."""


def main() -> None:
    chosen = arguments(__doc__, *NETWORKS, seed="0")
    print(f"Machine: {machine()}")
    columns = ["network", "MACs", "plans within", "layers differ", "by the sum", "by pairs", "gain"]
    rows = (row for name in chosen.only.split(",") for row in _rows(name, chosen))
    table("Output error on unseen pictures of the plan that each sum takes", columns, rows)


def _rows(name: str, chosen: Any) -> Iterator[list[Any]]:
    import dsconvert as ds

    network = NETWORKS[name]
    opened = ds.load(chosen.models / network.file, trust=True)
    shown = pictures(network, chosen.data, opened.input_shapes[0], CALIBRATION + JUDGE)
    trial = _Trial(opened, shown[:CALIBRATION], shown[CALIBRATION:], int(chosen.seed))
    alone = trial.alone()
    together = trial.two_by_two(alone)
    sizes = [range(len(options)) for options in alone]
    plans = np.array(list(itertools.product(*sizes)))
    sums = sum(np.take(one, plans[:, place]) for place, one in enumerate(alone))
    paired = sums + sum(
        matrix[plans[:, first], plans[:, second]] for (first, second), matrix in together.items()
    )
    macs = trial.fixed + sum(np.take(one, plans[:, i]) for i, one in enumerate(trial.macs))
    for share in SHARES:
        within = np.flatnonzero(macs <= share * trial.total)
        if not len(within):
            yield [name, f"{share:g}", 0, "–", "–", "–", "–"]
            continue
        by_sum, by_pairs = (within[value[within].argmin()] for value in (sums, paired))
        errors = [trial.judged(plans[plan]) for plan in (by_sum, by_pairs)]
        yield [
            name,
            f"{share:g}",
            len(within),
            int((plans[by_sum] != plans[by_pairs]).sum()),
            *(f"{error:.4g}" for error in errors),
            f"{1 - errors[1] / errors[0]:+.1%}" if errors[0] else "–",
        ]


class _Trial:
    """A network whose layers change alone, two by two, or all together.

    Attributes:
        layers: Names of the layers that have candidates.
        stages: The stage that each begins.
        macs: What each option of each layer costs; the first option is the layer as it is.
        fixed: MACs of all else.
        total: MACs of the network.
    """

    def __init__(self, opened: Any, calibration: Any, unseen: Any, seed: int) -> None:
        from dsconvert.converter.calibration import split
        from dsconvert.converter.core.network.fit_state import FitSettings
        from dsconvert.converter.plan import search_space

        space = search_space(opened.model, calibration=calibration, folder=opened.folder, seed=seed)
        self.spaces = [layer for layer in space.layers if layer.candidates]
        self.layers = [layer.name for layer in self.spaces]
        self.options = [_spread(layer.candidates) for layer in self.spaces]
        self.macs = [
            np.array([layer.macs, *(one.macs for one in options)], float)
            for layer, options in zip(self.spaces, self.options, strict=True)
        ]
        self.total = float(space.before.macs or 0)
        self.fixed = self.total - sum(float(one[0]) for one in self.macs)
        self.settings, self.unseen = FitSettings(seed=seed), unseen
        self.opened, self.data = opened, split([calibration], seed)
        self.weights: list[list[Any]] = []
        self.stages: list[int] = []
        self._fit()

    def _fit(self) -> None:
        """Fit every candidate of every layer to the untouched network's values, once."""
        from dsconvert.converter.backends.backend import backend_for
        from dsconvert.converter.core.fitting.styles import block_style
        from dsconvert.converter.core.network.fit_network import placed
        from dsconvert.converter.core.network.fit_state import FitRun
        from dsconvert.converter.core.network.sensitivity import QUICK
        from dsconvert.converter.core.network.stage_runner import StageRunner, room_for

        source = backend_for(self.opened.model, self.opened.folder)
        self.network = source.stages(self.layers, self.data.inputs, refit=False)
        with room_for(self.network, self.settings) as store:
            runner = StageRunner(
                self.network, self.data.inputs, self.data.held_out, self.settings, store
            )
            for index, site in enumerate(self.network.sites):
                if site is not None and site.name in self.layers:
                    run = FitRun(runner.clean.strategy, runner.clean.live)
                    runner.gather(site, [run])
                    data = runner.site_data(site, run, run.moments.pop(site.name))
                    made: list[Any] = [None]
                    for one in self.options[self.layers.index(site.name)]:
                        style = block_style(one.choice.block)
                        factors = style.fit(data, one.choice, QUICK).factors
                        made.append(placed(site, factors, site.norm))
                    self.weights.append(made)
                    self.stages.append(index)
                runner.clean.live = runner.after(index, runner.clean)
        held_out = [array[-self.data.held_out :] for array in self.data.inputs]
        self.held_out = dict(zip(self.network.inputs, held_out, strict=True))
        self.expected = self._outputs(self.held_out, {})

    def alone(self) -> list[Any]:
        """Return the output error of each option of each layer."""
        return [
            np.array([self._held_out_error({i: o}) for o in range(len(self.weights[i]))])
            for i in range(len(self.layers))
        ]

    def two_by_two(self, alone: list[Any]) -> dict[tuple[int, int], Any]:
        """Return what two layers do beyond the sum of what each does alone."""
        found = {}
        for first, second in itertools.combinations(range(len(self.layers)), 2):
            matrix = np.zeros((len(alone[first]), len(alone[second])))
            for i, j in itertools.product(*(range(1, size) for size in matrix.shape)):
                both = self._held_out_error({first: i, second: j})
                matrix[i, j] = both - alone[first][i] - alone[second][j]
            found[first, second] = matrix
        return found

    def judged(self, plan: Any) -> float:
        """Return the output error of a whole plan on pictures that nothing else has seen."""
        from dsconvert.base import fidelity

        inputs = dict(zip(self.network.inputs, [self.unseen], strict=True))
        got = self._outputs(inputs, dict(enumerate(plan)))
        return float(fidelity.output_error(self._outputs(inputs, {}), got))

    def _held_out_error(self, chosen: Mapping[int, int]) -> float:
        from dsconvert.base import fidelity

        return float(fidelity.output_error(self.expected, self._outputs(self.held_out, chosen)))

    def _outputs(self, inputs: Mapping[int, Any], chosen: Mapping[int, int]) -> list[Any]:
        changed = {self.stages[layer]: self.weights[layer][i] for layer, i in chosen.items()}
        live = dict(inputs)
        for stage in range(len(self.network.sites)):
            with self.network.using(stage, changed.get(stage)):
                made = self.network.run(stage, live)
            after = self.network.live_after(stage)
            live = {value: live[value] for value in after if value in live} | dict(made)
        return [live[value] for value in self.network.outputs]


def _spread(candidates: Any) -> list[Any]:
    """Return some candidates, evenly spread over their MACs."""
    ordered = sorted(candidates, key=lambda one: one.macs)
    places = np.linspace(0, len(ordered) - 1, min(CANDIDATES, len(ordered))).round()
    return [ordered[int(place)] for place in places]


if __name__ == "__main__":
    main()
