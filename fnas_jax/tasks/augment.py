"""Random flip, crop and cutout of a batch: flip and crop by dm-pix, on one image at a time.

Meant for normalised images, where 0 is the mean colour. Masks move with their images.
"""

from __future__ import annotations

import chex
import dm_pix as pix
import jax
import jax.numpy as jnp

from fnas_jax.core.types import IGNORE, Array


def augment(
    key: Array,
    images: Array,
    masks: Array | None = None,
    *,
    flip: bool,
    crop: int,
    cutout: int,
) -> tuple[Array, Array | None]:
    """A random view of every image: flip, then crop, then cutout. Pure; jit it with the rest.

    What is off costs nothing.

    Args:
      key: PRNG key.
      images: [B, H, W, C] floating point, normalised.
      masks: [B, H, W] classes of the pixels, or None. Flipped and cropped alike, `IGNORE` in the
        padding; what cutout hides keeps its class, as with torchvision's RandomErasing.
      flip: mirror each image left to right with probability 1/2.
      crop: pixels of zeros padded on every side, before a window of the old size is cut out at
        random; 0 is off.
      cutout: side in pixels of a square set to zero around a random pixel, clipped at the borders
        (arXiv 1708.04552); 0 is off.

    Returns:
      (images [B, H, W, C] of the same dtype, masks [B, H, W] of the same dtype or None).
    """
    chex.assert_rank(images, 4)
    key_move, key_cut = jax.random.split(key)
    if flip or crop:
        keys = jax.random.split(key_move, len(images))
        move = jax.vmap(_moved, (0, 0, None, None, None))
        images = move(keys, images, flip, crop, 0)
        if masks is not None:  # the same keys, and so the same moves
            masks = move(keys, masks[..., None], flip, crop, IGNORE)[..., 0]
    if cutout:
        keys = jax.random.split(key_cut, len(images))
        images = jax.vmap(_cut, (0, 0, None))(keys, images, cutout)
    return images, masks


def _moved(key: Array, image: Array, flip: bool, crop: int, fill: int) -> Array:
    """[H, W, C] perhaps flipped, then cut out of itself with `crop` pixels of `fill` around it."""
    key_flip, key_crop = jax.random.split(key)
    if flip:
        image = pix.random_flip_left_right(key_flip, image)
    if crop:
        height, width = (side + 2 * crop for side in image.shape[:2])
        padded = pix.pad_to_size(image, height, width, pad_kwargs={"constant_values": fill})
        image = pix.random_crop(key_crop, padded, image.shape)
    return image


def _cut(key: Array, image: Array, side: int) -> Array:
    """[H, W, C] with a square of zeros around a random pixel; dm-pix has no such operation."""
    height, width = image.shape[:2]
    first = jax.random.randint(key, (2,), 0, jnp.array([height, width])) - side // 2
    rows = jnp.arange(height)[:, None] - first[0]
    columns = jnp.arange(width)[None, :] - first[1]
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return jnp.where(inside[..., None], 0, image)
