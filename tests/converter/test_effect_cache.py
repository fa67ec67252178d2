"""The effects that are kept between runs."""

import logging
from pathlib import Path

import pytest

from dsconvert.base.cache_folder import cache_folder
from dsconvert.converter.core.planning.effect_cache import EffectCache
from dsconvert.converter.core.types import Choice, Effect

ONE = Choice(pairs=1, order="depthwise-first")
TWO = Choice(pairs=2, order="pointwise-first")
GENTLE, HARSH = (
    Effect(data_error=0.1, output_error=0.01),
    Effect(data_error=0.5, output_error=1 / 3),
)


def test_what_one_run_recorded_the_next_one_knows(tmp_path):
    first = EffectCache("model", 0, folder=tmp_path)
    assert first.known() == {}
    first.record("a", ONE, HARSH)
    first.record("block/ä\n", TWO, GENTLE)

    second = EffectCache("model", 0, folder=tmp_path)
    assert second.known() == {("a", ONE): HARSH, ("block/ä\n", TWO): GENTLE}
    second.record("a", TWO, GENTLE)
    assert len(first.known()) == 3


def test_the_last_one_counts(tmp_path):
    cache = EffectCache("model", folder=tmp_path)
    cache.record("a", ONE, HARSH)
    cache.record("a", ONE, GENTLE)
    assert cache.known() == {("a", ONE): GENTLE}


@pytest.mark.parametrize("parts", [("other", 0), ("model", 1), ("model",), ("model", 0, 0)])
def test_other_conditions_share_nothing(tmp_path, parts):
    EffectCache("model", 0, folder=tmp_path).record("a", ONE, HARSH)
    assert EffectCache(*parts, folder=tmp_path).known() == {}


def test_a_line_cut_short_is_left_out_and_the_next_one_is_not_lost(tmp_path):
    cache = EffectCache("model", folder=tmp_path)
    cache.record("a", ONE, HARSH)
    cache.record("b", ONE, GENTLE)
    cache.path.write_bytes(cache.path.read_bytes()[:-20])
    assert cache.known() == {("a", ONE): HARSH}

    cache.record("c", TWO, GENTLE)
    assert cache.known() == {("a", ONE): HARSH, ("c", TWO): GENTLE}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"\xff\xfe\x00",
        b'{"layer":"b\xff","choice":{"pairs":1},"effect":{"data_error":0,"harm":0}}',
        b'{"layer":"b","choice":{"pairs":"1"},"effect":{"data_error":0,"harm":0}}',
        b'{"layer":"b","choice":{"pairs":1},"effect":{"data_error":0,"harm":null}}',
    ],
)
def test_a_line_that_cannot_be_read_is_left_out(tmp_path, line):
    cache = EffectCache("model", folder=tmp_path)
    cache.record("a", ONE, HARSH)
    cache.path.write_bytes(line + b"\n" + cache.path.read_bytes())
    assert cache.known() == {("a", ONE): HARSH}


def test_a_folder_that_cannot_be_written_to_is_no_failure(tmp_path, caplog):
    (tmp_path / "effects").write_text("a file where the folder should be")
    cache = EffectCache("model", folder=tmp_path)
    with caplog.at_level(logging.WARNING, logger="dsconvert"):
        for _ in range(3):
            cache.record("a", ONE, HARSH)
    assert cache.known() == {}
    (said,) = caplog.messages  # once, not once per effect
    assert said.startswith("effects cannot be kept for the next run: ")


class TestFolder:
    def test_the_variable_decides(self, monkeypatch, tmp_path):
        monkeypatch.setenv("DSCONVERT_CACHE", str(tmp_path / "mine"))
        assert cache_folder() == tmp_path / "mine"
        cache = EffectCache("model")
        assert not (tmp_path / "mine").exists()  # until there is something to keep
        cache.record("a", ONE, HARSH)
        assert cache.path.is_relative_to(tmp_path / "mine")

    @pytest.mark.parametrize(
        ("platform", "variable", "value", "expected"),
        [
            ("linux", "XDG_CACHE_HOME", "/xdg", "/xdg/dsconvert"),
            ("linux", "XDG_CACHE_HOME", "", "/home/me/.cache/dsconvert"),
            ("darwin", "XDG_CACHE_HOME", "/xdg", "/home/me/Library/Caches/dsconvert"),
            ("win32", "LOCALAPPDATA", "/data", "/data/dsconvert/cache"),
            ("win32", "LOCALAPPDATA", "", "/home/me/AppData/Local/dsconvert/cache"),
        ],
    )
    def test_otherwise_the_platforms_own(self, monkeypatch, platform, variable, value, expected):
        monkeypatch.setenv("DSCONVERT_CACHE", "")
        monkeypatch.setenv(variable, value)
        monkeypatch.setattr("sys.platform", platform)
        monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
        assert cache_folder() == Path(expected)
