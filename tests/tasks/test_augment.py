import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax.core.types import IGNORE
from fnas_jax.tasks.augment import augment

KEY = jax.random.key(0)


def view(key, images, flip, crop, cutout):
    """What is done to images without masks."""
    found, masks = augment(key, images, flip=flip, crop=crop, cutout=cutout)
    assert masks is None
    return found


JITTED = jax.jit(view, static_argnums=(2, 3, 4))


def batch(shape=(16, 9, 7, 3)):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def coordinates(shape=(2000, 9, 7)):
    """[B, H, W, 2] images that say of each pixel which one it is, from 1 on."""
    rows, columns = np.meshgrid(*(np.arange(1, side + 1) for side in shape[1:]), indexing="ij")
    return np.broadcast_to(np.stack([rows, columns], -1), (*shape, 2)).astype(np.float32)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [0, 1, 3])
def test_views_are_windows_of_padded_images_and_all_of_them_are_drawn(flip, crop):
    """By numpy: every flip and window, of which each view must be one."""
    images = coordinates()
    _, height, width, _ = images.shape
    known = {}
    for mirrored in (False, True)[: 1 + flip]:
        image = np.fliplr(images[0]) if mirrored else images[0]
        padded = np.pad(image, ((crop, crop), (crop, crop), (0, 0)))
        for row in range(2 * crop + 1):
            for column in range(2 * crop + 1):
                window = padded[row : row + height, column : column + width]
                known[window.tobytes()] = (mirrored, row, column)
    seen = [known[np.asarray(one).tobytes()] for one in JITTED(KEY, images, flip, crop, 0)]
    assert set(seen) == set(known.values())
    if flip:
        assert abs(np.mean([mirrored for mirrored, *_ in seen]) - 0.5) < 0.05  # 4 deviations


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


def test_flips_mirror_about_half_of_the_images_and_move_nothing_else():
    images = batch((1000, 3, 4, 1))
    found = np.asarray(view(KEY, images, True, 0, 0))
    flipped = (found == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (flipped | (found == images).all(axis=(1, 2, 3))).all()
    assert abs(flipped.mean() - 0.5) < 0.06  # 3.8 standard deviations


def test_cutout_reaches_every_pixel_and_removes_the_whole_square_inside():
    images = jnp.ones((3000, 6, 5, 1))
    out = np.asarray(view(KEY, images, False, 0, 3))[..., 0]
    assert (out.min(axis=0) == 0).all()
    removed = (out == 0).sum(axis=(1, 2))
    assert set(removed.tolist()) == {4, 6, 9}  # corner, border, inside
    inside = (6 - 2) * (5 - 2) / (6 * 5)
    assert abs(np.mean(removed == 9) - inside) < 0.04


def test_images_get_views_of_their_own_and_keys_decide():
    images = coordinates((64, 32, 32))
    for options in ((True, 0, 0), (False, 4, 0), (False, 0, 9)):
        found = np.asarray(view(KEY, images, *options))
        assert len(np.unique(found, axis=0)) > (1 if options[0] else 25)
        np.testing.assert_array_equal(found, view(KEY, images, *options))
        assert (found != np.asarray(view(jax.random.key(1), images, *options))).any()


def test_jit_and_vmap_over_children_equal_eager():
    images = jnp.asarray(batch())
    np.testing.assert_array_equal(JITTED(KEY, images, True, 2, 3), view(KEY, images, True, 2, 3))
    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(lambda key: view(key, images, True, 2, 3)))(keys)
    for key, one in zip(keys, many, strict=True):
        np.testing.assert_array_equal(one, JITTED(key, images, True, 2, 3))


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
