"""Random flip, crop and cutout of a batch: the offsets are drawn first, then applied.

Meant for normalised images, where 0 is the mean colour. Masks move with their images.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.training.minibatches import IGNORE


class Offsets(NamedTuple):
    """What happens to each of B images; fields of an augmentation that is off are neutral."""

    flip: Array  # [B] bool, mirror left to right
    shift: Array  # [B, 2] int32 in 0..2*crop, row and column of the window in the padded image
    centre: Array  # [B, 2] int32, row and column of the cutout's centre in the image


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
    batch, height, width, _ = images.shape
    offsets = sample_offsets(key, (batch, height, width), flip, crop)
    moved = None if masks is None else move_masks(masks, offsets, flip, crop)
    return apply_offsets(images, offsets, flip, crop, cutout), moved


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
    images = _moved(images, offsets, flip, crop, 0)
    if cutout:
        images = jax.vmap(_cut, (0, 0, None))(images, offsets.centre, cutout)
    return images


def move_masks(masks: Array, offsets: Offsets, flip: bool, crop: int) -> Array:
    """Masks [B, H, W] where `apply_offsets` moves their images; `IGNORE` in the padding."""
    return _moved(masks[..., None], offsets, flip, crop, IGNORE)[..., 0]


def _moved(images: Array, offsets: Offsets, flip: bool, crop: int, fill: int) -> Array:
    """[B, H, W, C] flipped, then cut out of images with `crop` pixels of `fill` on every side."""
    if flip:
        images = jnp.where(offsets.flip[:, None, None, None], images[:, :, ::-1], images)
    if crop:
        images = jax.vmap(_window, (0, 0, None, None))(images, offsets.shift, crop, fill)
    return images


def _window(image: Array, shift: Array, crop: int, fill: int) -> Array:
    padded = jnp.pad(image, ((crop, crop), (crop, crop), (0, 0)), constant_values=fill)
    return jax.lax.dynamic_slice(padded, (shift[0], shift[1], 0), image.shape)


def _cut(image: Array, centre: Array, side: int) -> Array:
    first = centre - side // 2
    rows = jnp.arange(image.shape[0])[:, None] - first[0]
    columns = jnp.arange(image.shape[1])[None, :] - first[1]
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return jnp.where(inside[..., None], 0, image)
