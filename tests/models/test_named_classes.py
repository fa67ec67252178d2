"""Classes that a user names are found by their module."""

from __future__ import annotations

import sys

import pytest

from dsconvert.base.errors import InputError
from dsconvert.models.loading import resolve_custom_objects


class TestResolving:
    @pytest.fixture(autouse=True)
    def module(self, tmp_path, monkeypatch):
        text = "class Mine: pass\nTABLE = {'other': Mine}\nNUMBER = 3\n"
        (tmp_path / "their_layers.py").write_text(text)
        (tmp_path / "broken_layers.py").write_text("import not_installed_anywhere")
        monkeypatch.chdir(tmp_path)
        yield
        sys.modules.pop("their_layers", None)

    def test_a_class_and_a_dict_from_the_current_directory(self):
        path = list(sys.path)
        mine = resolve_custom_objects("their_layers:Mine")
        assert mine["Mine"].__name__ == "Mine"
        assert resolve_custom_objects("their_layers:TABLE") == {"other": mine["Mine"]}
        assert sys.path == path

    def test_installed_packages(self):
        assert resolve_custom_objects("math:sqrt")["sqrt"](9) == 3

    @pytest.mark.parametrize(
        ("spec", "match"),
        [
            ("their_layers", "expected package.module:name"),
            (":Mine", "expected package.module:name"),
            ("their_layers:Nobody", "AttributeError.*Nobody"),
            ("nowhere:Mine", "ModuleNotFoundError.*nowhere"),
            ("broken_layers:Mine", "not_installed_anywhere"),
            ("their_layers:NUMBER", "is a int, expected a dict, a class or a function"),
        ],
    )
    def test_what_cannot_be_resolved(self, spec, match):
        with pytest.raises(InputError, match=match) as refusal:
            resolve_custom_objects(spec)
        assert refusal.value.hint
