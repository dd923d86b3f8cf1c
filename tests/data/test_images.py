import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_course.data import frame_digits, resize_images, rotate_images, vary_digits


def test_a_whole_factor_is_a_block_mean():
    X = np.random.default_rng(0).random((5, 12, 8))
    blocks = X.reshape(5, 4, 3, 4, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(resize_images(X, (4, 4)), blocks, atol=1e-12)


def test_a_broken_factor_shares_pixels_by_area():
    X = np.array([[[0.0, 1.0, 0.5]]])  # each new pixel covers one and a half old ones
    np.testing.assert_allclose(
        resize_images(X, (1, 2)), [[[(0 + 1 / 2) / 1.5, (1 / 2 + 0.5) / 1.5]]], atol=1e-12
    )


@settings(derandomize=True, max_examples=50, deadline=None)
@given(*[st.integers(1, 12)] * 4, st.sampled_from([(), (3,)]))
def test_brightness_shape_and_dtype_are_kept(h, w, new_h, new_w, channels):
    X = np.random.default_rng(h * w).random((2, h, w, *channels)).astype(np.float32)
    resized = resize_images(X, (new_h, new_w))
    assert resized.shape == (2, new_h, new_w, *channels)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized.mean(axis=(1, 2)), X.mean(axis=(1, 2)), atol=1e-6)


def test_the_same_size_changes_nothing():
    X = np.random.default_rng(0).random((2, 7, 5))
    np.testing.assert_allclose(resize_images(X, (7, 5)), X, atol=1e-12)


@pytest.mark.parametrize(
    ("X", "size", "kind", "message"),
    [
        (np.zeros((2, 3)), (2, 2), ValueError, "images"),
        (np.zeros((2, 3, 3), dtype=np.uint8), (2, 2), ValueError, "divide by 255"),
        (np.full((2, 3, 3), 2.0), (2, 2), ValueError, r"expected \[0, 1\]"),
        (np.zeros((2, 3, 3)), 8, TypeError, "size must be"),
        (np.zeros((2, 3, 3)), (0, 8), ValueError, "size"),
    ],
)
def test_resize_names_what_is_wrong(X, size, kind, message):
    with pytest.raises(kind, match=message):
        resize_images(X, size)


def test_framed_digits_do_not_know_where_and_how_large_they_were_drawn():
    digit = np.zeros((1, 28, 28), np.float32)
    digit[0, 4:20, 6:10] = 0.9  # a bar of 16 x 4 pixels
    moved = np.zeros_like(digit)
    moved[0, 10:26, 20:24] = 0.6
    small = np.zeros((1, 20, 20), np.float32)
    small[0, 2:10, 3:5] = 1.0
    expected = np.zeros((8, 8))
    expected[:, 3:5] = 1.0
    for X in (digit, moved, small):
        np.testing.assert_allclose(frame_digits(X, (8, 8)), expected[None], atol=1e-6)


def test_an_image_without_ink_stays_empty():
    assert not frame_digits(np.zeros((1, 9, 9)), (8, 8)).any()


def bar():
    """A standing bar of 16 x 4 pixels."""
    X = np.zeros((1, 28, 28), np.float32)
    X[0, 6:22, 12:16] = 1.0
    return X


def test_a_digit_that_nothing_varies_is_framed():
    rng = np.random.default_rng(0)
    expected = np.zeros((8, 8))
    expected[:, 3:5] = 1.0
    np.testing.assert_allclose(vary_digits(bar(), (8, 8), rng)[0], expected, atol=0.02)
    assert not vary_digits(np.zeros((2, 9, 9)), (8, 8), rng, 0.2, 1.0, (0.5, 0.9)).any()


@pytest.mark.parametrize("width", [0.25, 0.5, 1.0])
def test_the_box_of_the_ink_gets_the_width_that_is_asked_for(width):
    found = vary_digits(bar(), (8, 8), np.random.default_rng(0), aspect=(width, width))[0]
    np.testing.assert_allclose(found.sum(axis=1), 8 * width, rtol=1e-6)  # ink in each row
    np.testing.assert_allclose(found, found[:, ::-1], atol=1e-6)  # in the middle


def test_strokes_grow_and_slants_lean_both_ways():
    X = np.repeat(bar(), 200, axis=0)
    thick = vary_digits(X, (28, 28), np.random.default_rng(0), stroke=2.0)
    widths = (thick[:, 14] > 0.5).sum(axis=1) / 28 * 20  # the frame holds 16 + 2 · 2 rows
    assert widths.min() >= 3.5
    assert 7.0 < widths.max() <= 9.5
    assert np.corrcoef(widths, thick.mean(axis=(1, 2)))[0, 1] > 0.9
    leaning = vary_digits(X, (28, 28), np.random.default_rng(0), slant=0.3)
    columns = np.arange(28)
    top, bottom = ((leaning[:, r] * columns).sum(1) / leaning[:, r].sum(1) for r in (2, 25))
    slope = (top - bottom) / 23
    assert slope.min() < -0.25
    assert slope.max() > 0.25
    assert abs(np.median(slope)) < 0.05


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 0.5), st.floats(0, 2), st.booleans())
def test_varied_digits_are_images_that_depend_on_the_seed_alone(seed, slant, stroke, narrow):
    X = np.random.default_rng(seed).random((3, 9, 9)) > 0.7
    X = X.astype(np.float32)
    settings = ((6, 6), np.random.default_rng(seed), slant, stroke, (0.4, 0.8) if narrow else None)
    found = vary_digits(X, *settings)
    assert found.shape == (3, 6, 6)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    again = vary_digits(X, (6, 6), np.random.default_rng(seed), *settings[2:])
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"aspect": (0.9, 0.5)}, ValueError, r"aspect\[1\]"),
        ({"aspect": (0.0, 0.5)}, ValueError, r"aspect\[0\]"),
        ({"aspect": (0.5, 1.5)}, ValueError, r"aspect\[1\]"),
        ({"aspect": 0.5}, TypeError, "aspect"),
        ({"slant": -0.1}, ValueError, "slant"),
        ({"stroke": float("nan")}, ValueError, "stroke"),
        ({"X": np.zeros((2, 4, 4, 3))}, ValueError, "grey images"),
    ],
)
def test_variation_names_what_is_wrong(settings, kind, message):
    arguments = {"X": bar(), "size": (8, 8), "rng": np.random.default_rng(0)} | settings
    with pytest.raises(kind, match=message):
        vary_digits(**arguments)


def test_rotation_is_counter_clockwise_about_the_centre():
    X = np.random.default_rng(0).random((3, 5, 5))
    np.testing.assert_allclose(rotate_images(X, 90), np.rot90(X, axes=(1, 2)), atol=1e-12)
    np.testing.assert_allclose(rotate_images(X, 0), X, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frame_digits(np.zeros((2, 4, 4, 3)), (8, 8)), "grey images"),
        (lambda: frame_digits(np.zeros((2, 4)), (8, 8)), "images"),
        (lambda: rotate_images(np.zeros((2, 4)), 30), "images"),
        (lambda: rotate_images(np.zeros((2, 4, 4)), np.nan), "degrees"),
    ],
)
def test_bad_input_of_framing_and_rotation_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
