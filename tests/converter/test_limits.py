"""Goals as people write them."""

import pytest

from dsconvert.base.errors import InputError
from dsconvert.base.units import short
from dsconvert.converter.core.planning.limits import parse_limit


@pytest.mark.parametrize(
    ("text", "resource", "amount"),
    [
        ("3ms", "latency", 3.0),
        ("250us", "latency", 0.25),
        ("250 µs", "latency", 0.25),
        ("1.5s", "latency", 1500.0),
        ("200KB", "size", 200_000),
        ("200KiB", "size", 204_800),
        ("1.5 MiB", "size", 1_572_864),
        ("64b", "size", 64),
        ("6.25M", "macs", 6_250_000),
        ("6.25m", "macs", 6_250_000),
        ("1e6", "macs", 1_000_000),
        ("2.5e-1G", "macs", 250_000_000),
        ("12345", "params", 12_345),
        (" 50k ", "params", 50_000),
    ],
)
def test_amounts_do_not_depend_on_the_original(text, resource, amount):
    limit = parse_limit(text, resource)
    assert not limit.relative
    assert limit.of(7.0) == limit.of(1e9) == pytest.approx(amount, rel=1e-12)
    assert limit.text == text


@pytest.mark.parametrize("resource", ["latency", "macs", "params", "size"])
@pytest.mark.parametrize("text", ["0.4x", ".4X", "0.4×", "40%", "40 %"])
def test_shares_are_of_the_original(text, resource):
    limit = parse_limit(text, resource)
    assert limit.relative
    assert limit.of(500.0) == pytest.approx(200.0)


@pytest.mark.parametrize(
    ("text", "resource", "example"),
    [
        ("3", "latency", "3ms"),  # of what?
        ("3MB", "latency", "3ms"),
        ("0ms", "latency", "3ms"),
        ("200", "size", "200KB"),
        ("3ms", "size", "200KB"),
        ("-1M", "macs", "6.25M"),
        ("", "macs", "6.25M"),
        (".", "macs", "6.25M"),
        ("1.2.3", "macs", "6.25M"),
        ("nan", "macs", "6.25M"),
        ("1e999", "macs", "6.25M"),
        ("1e999x", "params", "6.25M"),
        ("0x", "params", "6.25M"),
        ("half", "params", "6.25M"),
    ],
)
def test_what_is_no_limit(text, resource, example):
    with pytest.raises(InputError) as caught:
        parse_limit(text, resource)
    assert caught.value.message == f"{text!r} is no target for {resource}."
    assert example in caught.value.hint
    assert "0.5x" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.012345, "0.0123"),
        (999.4, "999"),
        (999.6, "1 k"),
        (1234567, "1.23 M"),
        (999_999, "1 M"),
        (-2_477_000, "-2.48 M"),
        (12.5e9, "12.5 G"),
    ],
)
def test_amounts_as_people_read_them(value, text):
    assert short(value) == text


def test_units_stand_behind_the_prefix():
    assert (short(2.5e6, "B"), short(12, "B")) == ("2.5 MB", "12 B")
