"""Random flip, crop and cutout of a batch: the offsets are drawn first, then applied.

Meant for normalised images, where 0 is the mean colour.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array


class Offsets(NamedTuple):
    """What happens to each of B images; fields of an augmentation that is off are neutral."""

    flip: Array  # [B] bool, mirror left to right
    shift: Array  # [B, 2] int32 in 0..2*crop, row and column of the window in the padded image
    centre: Array  # [B, 2] int32, row and column of the cutout's centre in the image


def augment(key: Array, images: Array, flip: bool, crop: int, cutout: int) -> Array:
    """A random view of every image: flip, then crop, then cutout. Pure; jit it with the rest.

    Args:
      key: PRNG key.
      images: [B, H, W, C] floating point, normalised.
      flip: mirror each image left to right with probability 1/2.
      crop: pixels of zeros padded on every side, before a window of the old size is cut out at
        random; 0 is off.
      cutout: side in pixels of a square set to zero around a random pixel, clipped at the borders
        (arXiv 1708.04552); 0 is off.

    Returns:
      [B, H, W, C] of the same dtype.
    """
    chex.assert_rank(images, 4)
    batch, height, width, _ = images.shape
    offsets = sample_offsets(key, (batch, height, width), flip, crop)
    return apply_offsets(images, offsets, flip, crop, cutout)


def sample_offsets(key: Array, shape: tuple[int, int, int], flip: bool, crop: int) -> Offsets:
    """Independent offsets for images of `shape` (B, H, W), uniform over their ranges."""
    batch, height, width = shape
    key_flip, key_shift, key_centre = jax.random.split(key, 3)
    return Offsets(
        flip=jax.random.bernoulli(key_flip, 0.5, (batch,)) & flip,
        shift=jax.random.randint(key_shift, (batch, 2), 0, 2 * crop + 1),
        centre=jax.random.randint(key_centre, (batch, 2), 0, jnp.array([height, width])),
    )


def apply_offsets(images: Array, offsets: Offsets, flip: bool, crop: int, cutout: int) -> Array:
    """Applies given offsets to [B, H, W, C]; what is off costs nothing."""
    if flip:
        images = jnp.where(offsets.flip[:, None, None, None], images[:, :, ::-1], images)
    if crop:
        images = jax.vmap(_window, (0, 0, None))(images, offsets.shift, crop)
    if cutout:
        images = jax.vmap(_cut, (0, 0, None))(images, offsets.centre, cutout)
    return images


def _window(image: Array, shift: Array, crop: int) -> Array:
    padded = jnp.pad(image, ((crop, crop), (crop, crop), (0, 0)))
    return jax.lax.dynamic_slice(padded, (shift[0], shift[1], 0), image.shape)


def _cut(image: Array, centre: Array, side: int) -> Array:
    first = centre - side // 2
    rows = jnp.arange(image.shape[0])[:, None] - first[0]
    columns = jnp.arange(image.shape[1])[None, :] - first[1]
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return jnp.where(inside[..., None], 0, image)
