"""Images are prepared by one formula, and numbers are read as they are written."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.models.data.preprocess import Preprocessing, parse_number


class TestPreprocessing:
    def test_formula(self, rng):
        x = rng.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
        mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
        y = Preprocessing(scale=1 / 255, mean=mean, std=std).apply(x)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, (x / 255 - mean) / std, atol=1e-5)

    def test_channels_first_comes_last(self, rng):
        x = rng.random((2, 6, 5, 3))
        mean = (1.0, 2.0, 3.0)
        y = Preprocessing(mean=mean, channels_first=True).apply(x)
        np.testing.assert_allclose(y, (x - mean).transpose(0, 3, 1, 2), atol=1e-6)

    def test_does_not_change_its_input(self):
        x = np.ones((2, 3), np.float32)
        Preprocessing(scale=2.0).apply(x)
        assert (x == 1).all()

    def test_wrong_number_of_channels(self):
        with pytest.raises(InputError, match=r"3 numbers for mean.*4 channels"):
            Preprocessing(mean=(1.0, 2.0, 3.0)).apply(np.zeros((2, 5, 5, 4)))

    @pytest.mark.parametrize("values", [{"scale": 0.0}, {"std": (1.0, 0.0)}, {"mean": ()}])
    def test_refuses(self, values):
        with pytest.raises(InputError, match=next(iter(values))):
            Preprocessing(**values)

    def test_json_round_trip(self):
        before = Preprocessing(scale=1 / 255, mean=(0.5,), channels_first=True)
        assert msgspec.json.decode(msgspec.json.encode(before), type=Preprocessing) == before

    @pytest.mark.parametrize(
        ("text", "value"), [("1/255", 1 / 255), ("0.00392", 0.00392), ("127.5", 127.5), ("-2", -2)]
    )
    def test_parse_number(self, text, value):
        assert parse_number(text) == value

    @pytest.mark.parametrize("text", ["", "a", "1/0", "1/", "1/2/3", "nan", "inf"])
    def test_parse_number_refuses(self, text):
        with refuses("not-a-number"):
            parse_number(text)
