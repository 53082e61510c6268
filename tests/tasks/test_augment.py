import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax.tasks.augment import Offsets, apply_offsets, augment, sample_offsets
from fnas_jax.training.minibatches import IGNORE

KEY = jax.random.key(0)


def view(key, images, flip, crop, cutout):
    """What is done to images without masks."""
    found, masks = augment(key, images, flip=flip, crop=crop, cutout=cutout)
    assert masks is None
    return found


JITTED = jax.jit(view, static_argnums=(2, 3, 4))


def batch(shape=(16, 9, 7, 3)):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def reference(images, offsets, flip, crop, cutout):
    """The same with loops over images and slices of numpy arrays."""
    out = np.empty_like(images)
    height, width = images.shape[1:3]
    for i, image in enumerate(images):
        if flip and offsets.flip[i]:
            image = np.fliplr(image)
        row, column = np.asarray(offsets.shift[i])
        padded = np.pad(image, ((crop, crop), (crop, crop), (0, 0)))
        image = padded[row : row + height, column : column + width].copy()
        top, left = np.asarray(offsets.centre[i]) - cutout // 2
        image[max(top, 0) : max(top + cutout, 0), max(left, 0) : max(left + cutout, 0)] = 0
        out[i] = image
    return out


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [0, 1, 4])
@pytest.mark.parametrize("cutout", [0, 1, 4, 5, 20])
def test_augment_equals_a_loop_over_images_with_the_same_offsets(flip, crop, cutout):
    images = batch()
    offsets = sample_offsets(KEY, images.shape[:3], flip, crop)
    want = reference(images, offsets, flip, crop, cutout)
    np.testing.assert_array_equal(apply_offsets(images, offsets, flip, crop, cutout), want)
    np.testing.assert_array_equal(view(KEY, images, flip, crop, cutout), want)


def test_everything_off_is_the_identity():
    images = jnp.asarray(batch())
    assert view(KEY, images, False, 0, 0) is images


@pytest.mark.parametrize(
    ("shape", "crop", "cut"), [((1, 1, 1, 1), 3, 1), ((4, 5, 1, 4), 1, 5), ((2, 9, 8, 1), 2, 2)]
)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_shape_and_dtype_stay_and_every_value_is_an_old_one_or_zero(shape, crop, cut, seed):
    images = batch(shape)
    out = JITTED(jax.random.key(seed), images, True, crop, cut)
    chex.assert_shape(out, shape)
    assert out.dtype == images.dtype
    for old, new in zip(images, np.asarray(out), strict=True):
        assert set(new.ravel().tolist()) <= {*old.ravel().tolist(), 0.0}


def test_flip_is_an_involution_and_mirrors_about_half_of_the_images():
    images = jnp.asarray(batch((1000, 3, 4, 1)))
    once = view(KEY, images, True, 0, 0)
    np.testing.assert_array_equal(view(KEY, once, True, 0, 0), images)
    share = np.mean(np.any(np.asarray(once != images), axis=(1, 2, 3)))
    assert abs(share - 0.5) < 0.06  # 3.8 standard deviations


def test_crop_draws_every_window_and_the_middle_one_is_the_image():
    offsets = sample_offsets(KEY, (2000, 8, 8), False, 2)
    assert {tuple(shift) for shift in np.asarray(offsets.shift).tolist()} == {
        (row, column) for row in range(5) for column in range(5)
    }
    images = jnp.asarray(batch())
    middle = Offsets(jnp.zeros(16, bool), jnp.full((16, 2), 2), jnp.zeros((16, 2), int))
    np.testing.assert_array_equal(apply_offsets(images, middle, False, 2, 0), images)


def test_cutout_reaches_every_pixel_and_removes_the_whole_square_inside():
    images = jnp.ones((3000, 6, 5, 1))
    out = np.asarray(view(KEY, images, False, 0, 3))[..., 0]
    assert (out.min(axis=0) == 0).all()
    removed = (out == 0).sum(axis=(1, 2))
    assert set(removed.tolist()) == {4, 6, 9}  # corner, border, inside
    inside = (6 - 2) * (5 - 2) / (6 * 5)
    assert abs(np.mean(removed == 9) - inside) < 0.04


def test_images_get_different_offsets_and_keys_decide():
    offsets = sample_offsets(KEY, (64, 32, 32), True, 4)
    assert len({tuple(row) for row in np.asarray(offsets.centre).tolist()}) > 50
    again = sample_offsets(KEY, (64, 32, 32), True, 4)
    chex.assert_trees_all_equal(offsets, again)
    other = sample_offsets(jax.random.key(1), (64, 32, 32), True, 4)
    assert not np.array_equal(offsets.centre, other.centre)


def test_jit_and_vmap_over_children_equal_eager():
    images = jnp.asarray(batch())
    np.testing.assert_array_equal(JITTED(KEY, images, True, 2, 3), view(KEY, images, True, 2, 3))
    keys = jax.random.split(KEY, 3)
    many = jax.vmap(lambda key: view(key, images, True, 2, 3))(keys)
    for key, one in zip(keys, many, strict=True):
        np.testing.assert_array_equal(one, view(key, images, True, 2, 3))


def test_images_without_a_channel_axis_are_refused():
    with pytest.raises(AssertionError):
        view(KEY, jnp.zeros((4, 8, 8)), True, 0, 0)


@pytest.mark.parametrize(("flip", "crop"), [(True, 0), (False, 3), (True, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_a_mask_goes_exactly_where_the_image_goes_that_it_is_painted_into(flip, crop, dtype):
    masks = np.random.default_rng(1).integers(1, 21, (32, 9, 7)).astype(dtype)
    images = np.stack([masks, batch((32, 9, 7))], axis=-1).astype(np.float32)
    seen, moved = augment(KEY, images, masks, flip=flip, crop=crop, cutout=0)
    assert moved.dtype == dtype
    painted = np.asarray(seen[..., 0])
    np.testing.assert_array_equal(moved, np.where(painted == 0, IGNORE, painted))
    assert (crop > 0) == (np.asarray(moved) == IGNORE).any()
    assert not np.array_equal(moved, masks)


def test_cutout_hides_pixels_that_keep_their_classes():
    masks = np.full((4, 9, 7), 3, np.uint8)
    images = batch((4, 9, 7, 3))
    seen, same = augment(KEY, images, masks, flip=False, crop=0, cutout=4)
    assert (np.asarray(seen) != images).any()
    np.testing.assert_array_equal(same, masks)


def test_masks_change_nothing_of_their_images():
    images, masks = batch(), np.zeros((16, 9, 7), np.uint8)
    seen, _ = augment(KEY, images, masks, flip=True, crop=2, cutout=3)
    np.testing.assert_array_equal(seen, view(KEY, images, True, 2, 3))
