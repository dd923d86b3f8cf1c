import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_course.data import frame_digits, resize_images, rotate_images


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
