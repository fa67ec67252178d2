"""Networks as a plan sees them, by hand: layers, candidates and what they come to."""

from itertools import product

import msgspec
from hypothesis import strategies as st

from dsconvert.converter.core.planning.candidates import Candidate, LayerCandidates
from dsconvert.converter.core.planning.goals import Goals
from dsconvert.converter.core.planning.limits import parse_limit
from dsconvert.converter.core.planning.search_space import SearchSpace
from dsconvert.converter.core.types import Choice, ConvSpec, Effect, Figure, Plan, Reason, Totals

ELSEWHERE = Totals(macs=1000, params=300, bytes=0, cost=0.5)
"""What the network has besides its convolutions."""
SLACK = 2e-6
"""The solver lets a limit be passed by 1e-6 of the largest figure."""


def candidate(pairs, output_error, macs, params, ms=None):
    return Candidate(
        choice=Choice(pairs=pairs, order="depthwise-first"),
        effect=Effect(data_error=0.1 * pairs, output_error=output_error),
        macs=macs,
        params=params,
        cost=None if ms is None else Figure(value=ms, ratio_low=0.4, ratio_high=0.6, faster=True),
    )


def layer(name, macs, params, candidates=(), ms=None, reason=None):
    return LayerCandidates(
        name=name,
        spec=ConvSpec(name=name, kernel_size=(3, 3), in_channels=8, out_channels=8),
        macs=macs,
        params=params,
        cost=None if ms is None else Figure(value=ms),
        reason=reason,
        candidates=tuple(candidates),
    )


def search_space(layers, *, width=4, measured=True, free=False, unit="ms", notes=()):
    """A network of these layers and what is `ELSEWHERE`."""
    params = ELSEWHERE.params + sum(each.params for each in layers)
    cost = ELSEWHERE.cost + sum(each.cost.value for each in layers if each.cost)
    macs = ELSEWHERE.macs + sum(each.macs or 0 for each in layers)
    before = Totals(
        macs=None if free else macs,
        params=params,
        bytes=params * width,
        cost=cost if measured else None,
    )
    return SearchSpace(
        layers=tuple(layers),
        before=before,
        bytes_per_weight=width,
        target="a clock" if measured else "",
        unit=unit if measured else "",
        notes=notes,
    )


def two_layers(**options):
    """12.5 M MACs and 10 ms in all; the first layer is costly and easy, the second one is not."""
    first = [candidate(t, 0.1 / t, 800_000 * t, 100 * t, 0.5 * t) for t in (1, 2, 3)]
    second = [candidate(t, 2.0 / t, 600_000 * t, 1000 * t, 0.25 * t) for t in (1, 2, 3)]
    layers = [
        layer("first", 8_000_000, 900, first, ms=7.0),
        layer("kept", 1_000_000, 99, ms=0.5, reason=Reason(code="no-gain", text="nothing")),
        layer("second", 3_499_000, 8000, second, ms=2.0),
    ]
    if not options.get("measured", True):
        layers = [
            msgspec.structs.replace(
                each,
                cost=None,
                candidates=tuple(msgspec.structs.replace(c, cost=None) for c in each.candidates),
            )
            for each in layers
        ]
    return search_space(layers, **options)


def limits(**texts):
    return Goals(**{name: parse_limit(text, name) for name, text in texts.items()})


def everything(found):
    """The totals of all plans there are, by the options picked: 0 leaves a layer alone."""
    opened = [each for each in found.layers if each.candidates]
    for picks in product(*(range(len(each.candidates) + 1) for each in opened)):
        taken = [
            (each, each.candidates[pick - 1])
            for each, pick in zip(opened, picks, strict=True)
            if pick
        ]
        params = found.before.params - sum(each.params - c.params for each, c in taken)
        yield {
            "macs": found.before.macs - sum(each.macs - c.macs for each, c in taken),
            "params": params,
            "size": params * found.bytes_per_weight,
            "latency": found.before.cost - sum(each.cost.value - c.cost.value for each, c in taken),
            "output_error": sum(c.effect.output_error for _, c in taken),
        }


def as_totals(plan: Plan):
    after = plan.after
    return {
        "macs": after.macs,
        "params": after.params,
        "size": after.bytes,
        "latency": after.cost,
        "output_error": after.output_error,
    }


candidates = st.builds(
    candidate,
    pairs=st.integers(1, 4),
    output_error=st.floats(0, 4, width=32),
    macs=st.integers(1, 10**6),
    params=st.integers(1, 10**4),
    ms=st.floats(0.015625, 8, width=32),
)
networks = st.lists(
    st.builds(
        lambda macs, params, ms, options: layer(
            "?", macs, params, options, ms, None if options else Reason(code="no-gain", text="no")
        ),
        st.integers(1, 10**6),
        st.integers(1, 10**4),
        st.floats(0.015625, 8, width=32),
        st.lists(candidates, max_size=3, unique_by=lambda one: one.choice),
    ),
    max_size=3,
).map(
    lambda layers: search_space(
        [msgspec.structs.replace(each, name=f"l{i}") for i, each in enumerate(layers)], width=1
    )
)
shares = st.none() | st.floats(0.05, 1.2)


def a_limit(found, resource, share, relative):
    """A share of the original, written as one or as the amount that it comes to."""
    if share is None:
        return None
    if relative:
        return parse_limit(f"{share!r}x", resource)
    before = found.before
    whole = {
        "macs": before.macs,
        "params": before.params,
        "size": before.bytes,
        "latency": before.cost,
    }
    unit = {"latency": "ms", "size": "B"}.get(resource, "")
    return parse_limit(f"{share * whole[resource]!r}{unit}", resource)
