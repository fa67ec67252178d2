"""Patches are what a convolution sees."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numerics import convolve

from dsconvert.converter.core.fitting.patches import gather, output_size, sample_positions
from dsconvert.converter.core.types import ConvSpec

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.one_of(
    st.sampled_from(["same", "valid"]),
    st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
)


@st.composite
def convolutions(draw):
    """A geometry and the size (H, W) of an image that it has at least one output for."""
    spec = ConvSpec(
        name="conv",
        kernel_size=draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        strides=draw(pairs),
        dilation=draw(pairs),
        padding=draw(paddings),
        in_channels=3,
        out_channels=2,
    )
    size = draw(st.tuples(st.integers(3, 9), st.integers(3, 9)))
    assume(min(output_size(spec, size)) > 0)
    return spec, size


def everywhere(images, size):
    return tuple(axis.ravel() for axis in np.indices((images, *size)))


def naive_patch(x, spec, image, row, column):
    """(C, k²) by asking for each tap where it lies, zero outside the image."""
    patch = np.zeros((x.shape[3], *spec.kernel_size), np.float32)
    starts = []
    for axis in (0, 1):
        size, reach = x.shape[axis + 1], (spec.kernel_size[axis] - 1) * spec.dilation[axis] + 1
        if spec.padding == "same":
            outputs = np.ceil(size / spec.strides[axis])
            starts.append(max((outputs - 1) * spec.strides[axis] + reach - size, 0) // 2)
        else:
            starts.append(0 if spec.padding == "valid" else spec.padding[axis][0])
    for a in range(spec.kernel_size[0]):
        for b in range(spec.kernel_size[1]):
            y = int(row * spec.strides[0] + a * spec.dilation[0] - starts[0])
            z = int(column * spec.strides[1] + b * spec.dilation[1] - starts[1])
            if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                patch[:, a, b] = x[image, y, z]
    return patch.reshape(x.shape[3], -1)


@given(convolutions())
def test_patches_equal_a_naive_loop(convolution):
    spec, size = convolution
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    where = everywhere(2, output_size(spec, size))
    patches = gather(x, spec, where)

    assert patches.dtype == np.float32
    expected = [naive_patch(x, spec, *position) for position in zip(*where, strict=True)]
    np.testing.assert_array_equal(patches, expected)


@given(convolutions())
def test_patches_times_kernel_is_the_convolution(convolution):
    spec, size = convolution
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    kernel = rng.normal(size=(*spec.kernel_size, 3, 2))
    expected = convolve(x, kernel, spec)
    patches = gather(x, spec, everywhere(2, output_size(spec, size)))
    flat = kernel.transpose(2, 0, 1, 3).reshape(-1, 2)  # channel by channel, as in the moments

    assert expected.shape[1:3] == output_size(spec, size)
    np.testing.assert_allclose(
        patches.reshape(len(patches), -1) @ flat, expected.reshape(-1, 2), atol=1e-12
    )


def test_too_small_an_image_has_no_output():
    spec = ConvSpec(name="conv", kernel_size=(5, 3), in_channels=1, out_channels=1)

    assert output_size(spec, (4, 4)) == (0, 2)


@given(st.integers(1, 4), st.tuples(st.integers(1, 5), st.integers(1, 5)), st.integers(1, 30))
def test_positions_are_distinct_and_inside(images, size, per_image):
    image, row, column = sample_positions(np.random.default_rng(0), images, size, per_image)
    each = min(per_image, size[0] * size[1])

    np.testing.assert_array_equal(np.bincount(image, minlength=images), np.full(images, each))
    assert len(set(zip(image, row, column, strict=True))) == images * each
    assert row.min() >= 0
    assert row.max() < size[0]
    assert column.min() >= 0
    assert column.max() < size[1]


def test_positions_cover_the_image_evenly():
    _, row, column = sample_positions(np.random.default_rng(0), 4000, (3, 2), 1)
    counts = np.bincount(row * 2 + column, minlength=6)

    # Multinomial: 4000/6 each, four standard deviations are 4·sqrt(4000·(1/6)·(5/6)) ≈ 94.
    assert np.abs(counts - 4000 / 6).max() < 94
