"""The reference networks: every published count, from the built graph and from its ONNX file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.converter.core.fitting.cost import conv_macs, conv_params, pair_macs, pair_params
from dsconvert.converter.core.types import ConvSpec
from dsconvert.converter.inspect import Inspection, inspect
from dsconvert.models.reference import REFERENCES, BuildSettings, Published, build, reference

PRINTED = [(one.name, figure) for one in REFERENCES for figure in one.published]


def told(value: Any) -> str:
    """A test's name: which figure of which network."""
    if not isinstance(value, Published):
        return str(value)
    chosen = value.settings
    form = "separable" if chosen.separable else "standard"
    size = f"{chosen.alpha}-{chosen.input_shape[0]}{'-shallow' * chosen.shallow}"
    return f"{form}-{size}-{value.quantity}"


def count(found: Inspection, figure: Published) -> int:
    assert found.macs is not None
    assert found.dense_macs is not None
    assert found.kernels is not None
    return {
        "parameters": found.params,
        "kernels": found.kernels,
        "macs": found.macs,
        "macs-without-dense": found.macs - found.dense_macs,
    }[figure.quantity]


@pytest.mark.parametrize(("name", "figure"), PRINTED, ids=told)
def test_the_published_count_is_that_of_the_built_graph(name: str, figure: Published) -> None:
    found = inspect(build(name, figure.settings))
    assert figure.agrees(count(found, figure)), (count(found, figure), figure.text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "figure"),
    [(name, figure) for name, figure in PRINTED if figure.quantity != "parameters"],
    ids=told,
)
def test_the_published_count_is_that_of_the_onnx_file(
    name: str, figure: Published, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = inspect(exported(name, figure.settings, tmp_path_factory))
    assert figure.agrees(count(found, figure)), (count(found, figure), figure.text)


EXPORTED: dict[tuple[str, BuildSettings], Any] = {}


def exported(name: str, settings: BuildSettings, folders: pytest.TempPathFactory) -> Any:
    """The network as an ONNX graph; two figures of one network share it."""
    import onnx

    from dsconvert.deploy.exporting.export import export

    if (name, settings) not in EXPORTED:
        path = folders.mktemp("zoo") / "model.onnx"
        model = build(name, settings)
        rng = np.random.default_rng(0)
        for weight in model.weights:
            if weight.path.endswith("bias"):  # exporters leave out zeros and merge what is equal
                weight.assign(rng.uniform(0.1, 0.2, weight.shape))
        export(model, path, gate=False)
        EXPORTED[name, settings] = onnx.load(path)
    return EXPORTED[name, settings]


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("name", ["vgg-block", "mnist-753"])
def test_published_parameters_stay_what_they_are_in_onnx(
    name: str, separable: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """They have no norms, so that nothing is folded; the two constants of the rescaling remain."""
    (figure,) = (one for one in reference(name).published if one.settings.separable is separable)
    settings = reference(name).settings(separable=separable)
    found = inspect(exported(name, settings, tmp_path_factory))
    assert found.kernels == inspect(build(name, settings)).kernels
    assert found.macs == inspect(build(name, settings)).macs
    assert 0 <= found.params - figure.value <= 2


LAYERS = [
    # Zhe Ming Chng: one layer, 3 → 64; 286 has a bias on both halves, Keras counts one.
    ("first layer", 3, 64, 3, 32, (1_792, 283), None),
    # Sumant Hegde: 32 kernels of 3×3 on 7×7×3 without padding, in multiplications.
    ("counting example", 3, 32, 3, 7, None, (21_600, 3_075)),
    # Howard et al., Table 3: an inner layer of MobileNet, M = N = 512 on 14×14.
    ("table 3", 512, 512, 3, 14, (2.36e6, 0.27e6), (462e6, 52.3e6)),
    ("table 3, α = 0.75", 384, 384, 3, 14, (None, 0.15e6), (None, 29.6e6)),
    ("table 3, ρ = 0.714", 384, 384, 3, 10, (None, 0.15e6), (None, 15.1e6)),
]


@pytest.mark.parametrize(
    ("name", "channels", "filters", "kernel", "size", "parameters", "macs"),
    LAYERS,
    ids=[row[0] for row in LAYERS],
)
def test_published_layers(
    name: str,
    channels: int,
    filters: int,
    kernel: int,
    size: int,
    parameters: tuple[float | None, float | None] | None,
    macs: tuple[float | None, float | None] | None,
) -> None:
    spec = ConvSpec(
        name="layer",
        kernel_size=(kernel, kernel),
        in_channels=channels,
        out_channels=filters,
        padding="valid" if name == "counting example" else "same",
        use_bias=name == "first layer",
        input_sizes=((size, size),),
    )
    pair = pair_params(spec, "depthwise-first", 1, bias=spec.use_bias)
    for printed, ours in zip(
        (*(parameters or (None, None)), *(macs or (None, None))),
        (
            conv_params(spec),
            pair,
            conv_macs(spec),
            pair_macs(spec, "depthwise-first", 1),
        ),
        strict=True,
    ):
        if printed is not None:
            assert ours is not None
            assert as_printed(ours, printed) == printed
    if name == "first layer":
        assert pair + channels == 286
    if name.startswith("table 3"):  # 1/N + 1/k²
        ratio = (pair_macs(spec, "depthwise-first", 1) or 0) / (conv_macs(spec) or 1)
        assert ratio == pytest.approx(1 / filters + 1 / kernel**2, rel=1e-12)


SHARES = {
    # Howard et al., Table 2, in % of the Mult-Adds and of the parameters. For 3×3 convolutions it
    # prints 1.19 % of the Mult-Adds: all four would add up to 99.29, with 1.91 they are 100.01.
    "1×1": (94.86, 74.59),
    "depthwise": (3.06, 1.06),
    "3×3": (1.91, 0.02),
    "dense": (0.18, 24.33),
}


def test_where_mobilenets_cost_is() -> None:
    found = inspect(build("mobilenet", reference("mobilenet").settings(separable=True)))
    assert found.macs is not None
    assert found.kernels is not None
    assert found.dense_macs is not None
    ours = {"1×1": [0, 0], "3×3": [0, 0], "dense": [found.dense_macs, 1024 * 1000]}
    for row in found.convolutions:
        if row.spec is not None:
            kind = ours["1×1" if row.spec.taps == 1 else "3×3"]
            kind[0] += conv_macs(row.spec) or 0
            kind[1] += conv_params(row.spec)
    whole = (found.macs, found.kernels)
    ours["depthwise"] = [whole[i] - sum(own[i] for own in ours.values()) for i in (0, 1)]
    for kind, printed in SHARES.items():
        shares = tuple(
            round(100 * own / all_, 2) for own, all_ in zip(ours[kind], whole, strict=True)
        )
        assert shares == printed, kind


def as_printed(ours: float, printed: float) -> float:
    """Rounded to the digits that are printed: three significant ones above 100,000, else two."""
    if printed < 1e5:
        return ours
    digits = 2 if printed < 1e6 else 3
    return float(f"{ours:.{digits - 1}e}")


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("name", [one.name for one in REFERENCES])
def test_any_input_and_number_of_classes(name: str, separable: bool) -> None:
    settings = BuildSettings(separable=separable, input_shape=(24, 20, 2), classes=7)
    model = build(name, settings)
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 20, 2)).astype(np.float32)
    scores = np.asarray(model(images))
    assert scores.shape == (2, 7)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_what_a_network_does_not_know_is_refused() -> None:
    settings = BuildSettings(separable=True, input_shape=(32, 32, 3), classes=10, alpha=0.5)
    with refuses("option-not-applicable"):
        build("vgg-block", settings)
    with pytest.raises(InputError, match="allowed: above 0, at most 4"):
        BuildSettings(separable=True, input_shape=(32, 32, 3), classes=10, alpha=-1)
    with pytest.raises(InputError, match=r"input 4×9 is too small, allowed: 8×8 or more"):
        build("vgg-block", BuildSettings(separable=True, input_shape=(4, 9, 3), classes=10))
    with pytest.raises(InputError, match="there are vgg-block, mnist-753"):
        reference("vgg16")


def test_shared_kernels_are_counted_once() -> None:
    """What `inspect` counts beside the MACs: kernels, and the dense layers' share."""
    import keras
    from keras import layers

    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    image = keras.Input((8, 8, 3))
    value = layers.BatchNormalization()(shared(shared(image)))
    model = keras.Model(image, layers.Dense(4)(layers.Flatten()(value)))
    found = inspect(model)
    assert found.kernels == 9 * 3 * 3 + 192 * 4
    assert found.dense_macs == 192 * 4
    assert found.macs == 2 * 64 * 81 + 192 * 4


def zoo(arguments: str, *paths: Path) -> Result:
    return CliRunner().invoke(main, ["zoo", *arguments.split(), *map(str, paths)])


def test_the_list(tmp_path: Path) -> None:
    result = zoo("--json")
    assert result.exit_code == 0, result.output
    networks = {one["name"]: one for one in json.loads(result.stdout)["networks"]}
    assert set(networks) == {one.name for one in REFERENCES}
    assert networks["vgg-block"]["standard"]["params"] == 1_186_378
    assert networks["mobilenet"]["separable"]["macs"] == 568_740_352
    assert "Zhe Ming Chng" in networks["vgg-block"]["source"]


def test_a_network_is_written_once(tmp_path: Path) -> None:
    import keras

    file = tmp_path / "model.keras"
    result = zoo("mobilenet --separable --input 32x40 --classes 5 --alpha 0.25 --json -o", file)
    assert result.exit_code == 0, result.output
    written = json.loads(result.stdout)
    assert written["trained"] is False
    assert written["settings"]["input_shape"] == [32, 40, 3]
    model = keras.saving.load_model(file)
    assert model.count_params() == written["counts"]["params"]
    assert model.output_shape == (None, 5)
    again = zoo("mobilenet -o", file)
    assert again.exit_code == 2
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("nothing -o x.keras", "there is no network 'nothing'"),
        ("vgg-block", "-o vgg-block.keras"),
        ("vgg-block -o x.onnx", "allowed: .keras or .h5"),
        ("vgg-block -o x.keras --input 32", "Write it as 32x32x3"),
        ("vgg-block -o nowhere/x.keras", "does not exist"),
        ("--separable", "there is no NAME"),
    ],
)
def test_a_mistake_is_told(
    arguments: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = zoo(arguments)
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_people_are_told_that_it_is_untrained(tmp_path: Path) -> None:
    result = zoo("mnist-753 -o", tmp_path / "m.h5")
    assert result.exit_code == 0, result.output
    assert "8,586 parameters" in result.stdout
    assert "Untrained" in result.stdout


def test_help_imports_no_framework() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from dsconvert.cli import main;"
        "CliRunner().invoke(main, ['zoo', '--help'], catch_exceptions=False);"
        "print(sorted({'keras', 'tensorflow', 'numpy', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
