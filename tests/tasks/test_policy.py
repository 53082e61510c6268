"""RandAugment's operations against SciPy and numpy, and who gets which."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from fnas_jax.core.types import IGNORE, UserError
from fnas_jax.tasks import colour, policy
from fnas_jax.tasks.policy import OPERATIONS
from fnas_jax.training.config import Recipe

SHAPE = (9, 12, 3)
STD, MEAN = np.float32([50, 60, 70]), np.float32([100, 110, 120])  # of pixels in 0..255
PIXELS = colour.Pixels(STD / 255, -MEAN / STD)
SHOWN = np.random.default_rng(0).uniform(0.05, 0.95, SHAPE).astype(np.float32)
IMAGE = ((255 * SHOWN - MEAN) / STD).astype(np.float32)


@pytest.fixture(scope="module")
def operate():
    return jax.jit(functools.partial(policy.operate, PIXELS))


def moved(matrix, shift=(0.0, 0.0)):
    """By SciPy: around the centre, zeros where nothing was."""
    centre = (np.array(SHAPE[:2]) - 1) / 2
    offset = centre - np.asarray(matrix) @ centre + shift
    planes = [
        scipy.ndimage.affine_transform(IMAGE[..., c], matrix, offset, order=1, mode="constant")
        for c in range(SHAPE[2])
    ]
    return np.stack(planes, axis=-1)


def coloured(shown):
    return (255 * np.clip(shown, 0, 1) - MEAN) / STD


def expected(name, s):
    cos, sin = np.cos(np.deg2rad(30) * s), np.sin(np.deg2rad(30) * s)
    mean = SHOWN.mean(axis=(0, 1))
    gray = SHOWN.max(axis=-1, keepdims=True)  # what a saturation of 0 leaves is the largest channel
    return {
        "identity": lambda: IMAGE,
        "rotate": lambda: moved([[cos, -sin], [sin, cos]]),
        "shear_x": lambda: moved([[1, 0], [0.3 * s, 1]]),
        "shear_y": lambda: moved([[1, 0.3 * s], [0, 1]]),
        "translate_x": lambda: moved(np.eye(2), (0, s * 150 / 331 * SHAPE[1])),
        "translate_y": lambda: moved(np.eye(2), (s * 150 / 331 * SHAPE[0], 0)),
        "brightness": lambda: coloured(SHOWN + 0.9 * s),
        "contrast": lambda: coloured(mean + (1 + 0.9 * s) * (SHOWN - mean)),
        "solarize": lambda: coloured(np.where(1 - abs(s) > SHOWN, SHOWN, 1 - SHOWN)),
        # Distances to the largest channel grow as the saturation does, where it stays below 1.
        "saturation": lambda: coloured(gray - (1 + 0.9 * s) * (gray - SHOWN)),
    }[name]()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("signed", [-0.7, 0.4])
def test_operations_equal_other_implementations(operate, name, signed):
    found = operate(jnp.int32(OPERATIONS.index(name)), jnp.float32(signed), IMAGE)
    wanted = expected(name, signed)
    assert (name == "identity") == np.array_equal(found, IMAGE)
    if name == "saturation":
        saturation = 1 - SHOWN.min(axis=-1) / SHOWN.max(axis=-1)
        kept = (1 + 0.9 * signed) * saturation < 1
        assert kept.mean() > 0.2
        found, wanted = found[kept], wanted[kept]
    if name in ("rotate", "shear_x", "shear_y"):
        # A position on the very border may count as inside or outside.
        differ = np.abs(found - wanted).max(axis=-1) > 1e-3
        assert differ.mean() < 0.05
        found, wanted = found[~differ], wanted[~differ]
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_every_image_gets_operations_of_its_own_and_keys_decide():
    for channels, known in ((3, len(OPERATIONS)), (1, len(OPERATIONS) - 1)):
        pixels = colour.Pixels(PIXELS.scale[:channels], PIXELS.offset[:channels])
        run = jax.jit(lambda key, images, own=pixels: policy.apply(own, 1, 0.5, key, images)[0])
        images = jnp.broadcast_to(IMAGE[..., :channels], (200, *SHAPE[:2], channels))
        found = np.asarray(run(jax.random.key(0), images))
        assert found.shape == images.shape and found.dtype == np.float32
        assert np.isfinite(found).all()
        # Both directions of all but identity and solarize.
        assert len(np.unique(found.round(3), axis=0)) == 2 * known - 2
        np.testing.assert_array_equal(found, run(jax.random.key(0), images))
        assert (found != np.asarray(run(jax.random.key(1), images))).any()


def test_layers_follow_one_another(operate):
    images, key = jnp.broadcast_to(IMAGE, (6, *SHAPE)), jax.random.key(5)
    both, _ = jax.jit(functools.partial(policy.apply, PIXELS, 2, 0.5))(key, images)
    for i, found in enumerate(both):
        image = IMAGE
        for own in jax.random.split(key, 2):
            key_op, key_sign = jax.random.split(own)
            chosen = jax.random.randint(key_op, (6,), 0, len(OPERATIONS))[i]
            sign = jax.random.rademacher(key_sign, (6,), jnp.float32)[i]
            image = operate(chosen, 0.5 * sign, image)
        np.testing.assert_allclose(found, image, atol=1e-3)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_masks_move_with_their_images_by_the_nearest_pixel(name, dtype):
    mask = np.random.default_rng(2).integers(0, 21, SHAPE[:2]).astype(dtype)
    chosen, signed = jnp.int32(OPERATIONS.index(name)), jnp.float32(-0.7)
    found = np.asarray(policy.move_mask(chosen, signed, mask))
    assert found.dtype == dtype
    where = np.moveaxis(np.asarray(policy.positions(chosen, signed, *SHAPE[:2])), 0, -1)
    row, column = np.moveaxis(np.round(where).astype(int), -1, 0)
    inside = (row >= 0) & (row < SHAPE[0]) & (column >= 0) & (column < SHAPE[1])
    wanted = np.full(SHAPE[:2], IGNORE)
    wanted[inside] = mask[row[inside], column[inside]]
    sure = (np.abs(where - np.floor(where) - 0.5) > 1e-3).all(axis=-1)
    assert sure.mean() > 0.8
    np.testing.assert_array_equal(found[sure], wanted[sure])
    moves = OPERATIONS.index("rotate") <= OPERATIONS.index(name) < OPERATIONS.index("brightness")
    assert moves == (not np.array_equal(found, mask))


def test_a_policy_moves_masks_and_changes_nothing_of_their_images():
    images, key = jnp.broadcast_to(IMAGE, (40, *SHAPE)), jax.random.key(5)
    masks = jnp.broadcast_to(jnp.arange(SHAPE[1], dtype=jnp.uint8), (40, *SHAPE[:2]))
    run = jax.jit(functools.partial(policy.apply, PIXELS, 2, 0.5))
    seen, moved = run(key, images, masks)
    np.testing.assert_allclose(seen, run(key, images)[0], atol=1e-5)
    assert moved.shape == masks.shape and moved.dtype == masks.dtype
    assert len(np.unique(np.asarray(moved), axis=0)) > 3


def test_numbers_of_a_policy_that_is_off_are_refused():
    policy.check(Recipe())
    with pytest.raises(UserError, match=r"winner.policy_magnitude is 5 beside winner.policy=none"):
        policy.check(Recipe(policy_magnitude=5))
