"""Sizes as people write them, and the shapes that they become."""

from __future__ import annotations

import pytest

from dsconvert.base.errors import InputError
from dsconvert.base.input_size import as_sizes, fixed_shapes, parse_size, size_words


class TestWords:
    @pytest.mark.parametrize(
        ("words", "sizes"),
        [
            ("256x320", (("", (256, 320)),)),
            ("256×320X3", (("", (256, 320, 3)),)),
            ("16000", (("", (16000,)),)),
            ((256, 320), (("", (256, 320)),)),
            ("image=64x32", (("image", (64, 32)),)),
            (("a=64x32", "b=8"), (("a", (64, 32)), ("b", (8,)))),
            ({"a:0": (64, 32), "b": "8x9"}, (("a:0", (64, 32)), ("b", (8, 9)))),
            (None, ()),
            ((), ()),
        ],
    )
    def test_every_form(self, words, sizes):
        assert as_sizes(words) == sizes

    @pytest.mark.parametrize("word", ["", "x", "0x4", "-1x4", "4x", "=4x4", "4*4"])
    def test_what_is_no_size_is_refused(self, word):
        with pytest.raises(InputError) as error:
            as_sizes(word)
        assert error.value.code == "bad-size"

    def test_a_size_is_read_back(self):
        sizes = as_sizes(("image=64x32", "8x9x3"))
        assert as_sizes(size_words(sizes)) == sizes
        assert parse_size("8X9") == (8, 9)

    def test_an_input_is_named_once(self):
        with pytest.raises(InputError) as error:
            as_sizes(("4x4", "5x5"))
        assert error.value.code == "size-twice"


NHWC, NCHW = (None, None, None, 3), (None, 3, None, None)


class TestShapes:
    @pytest.mark.parametrize("first", [False, True])
    @pytest.mark.parametrize(
        ("shape", "size", "found"),
        [
            (NHWC, "8x9", (None, 8, 9, 3)),
            (NCHW, "8x9", (None, 3, 8, 9)),
            ((1, 3, 8, None), "8x9", (1, 3, 8, 9)),
            (NCHW, "8x9x3", (None, 3, 8, 9)),
            ((None, None), "16000", (None, 16000)),
            ((1, None, 80), "100", (1, 100, 80)),
            ((None, 8, 9, 3), "8x9", (None, 8, 9, 3)),
        ],
    )
    def test_height_and_width_find_their_axes(self, shape, size, found, first):
        assert fixed_shapes("x", (shape,), as_sizes(size), channels_first=first) == (found,)

    def test_where_all_is_free_the_order_of_the_framework_counts(self):
        shapes = ((None,) * 4,)
        for first, found in ((True, (None, 3, 8, 9)), (False, (None, 8, 9, 3))):
            assert fixed_shapes("x", shapes, as_sizes("8x9x3"), channels_first=first) == (found,)

    @pytest.mark.parametrize(
        ("shape", "size", "code"),
        [
            ((None, 32, 32, 3), "8x9", "size-is-fixed"),
            (NHWC, "8", "size-does-not-fit"),
            ((None,) * 4, "8x9", "size-does-not-fit"),  # the channels are free still
            ((1, 3, 4, None), "8x9", "size-does-not-fit"),
            (NHWC, "y=8x9", "unknown-input"),
        ],
    )
    def test_what_does_not_fit_is_told(self, shape, size, code):
        with pytest.raises(InputError) as error:
            fixed_shapes("x", (shape,), as_sizes(size), channels_first=False)
        assert error.value.code == code

    def test_named_inputs_get_theirs(self):
        sizes = as_sizes(("a=8x9", "b=4x5"))
        found = fixed_shapes("ab", (NHWC, NHWC), sizes, channels_first=False)
        assert found == ((None, 8, 9, 3), (None, 4, 5, 3))

    def test_a_size_without_a_name_is_for_those_that_have_none(self):
        shapes = (NHWC, (None, 4, 4, 1), (None, 10))
        found = fixed_shapes("abc", shapes, as_sizes("8x9"), channels_first=False)
        assert found == ((None, 8, 9, 3), (None, 4, 4, 1), (None, 10))
