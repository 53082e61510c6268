"""Random brightness, contrast, saturation and hue, by dm-pix, of normalised images.

Changes of colour mean something for pixels in [0, 1]: images are taken there, changed, clipped, and
normalised again. Before crop and cutout, so that what these fill in stays the mean colour.
"""

from __future__ import annotations

from typing import NamedTuple

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.tasks import data
from fnas_jax.tasks.data import Dataset


class Pixels(NamedTuple):
    """How normalised images become numbers in [0, 1], and back."""

    scale: np.ndarray  # [C]; (normalised - offset) * scale
    offset: np.ndarray  # [C]


class Jitter(NamedTuple):
    """How much each of them changes at most, in either direction; 0: not at all."""

    brightness: float = 0.0  # added to pixels in [0, 1]
    contrast: float = 0.0  # relative; so is the next
    saturation: float = 0.0
    hue: float = 0.0  # of a turn


def pixels_of(dataset: Dataset) -> Pixels:
    """Of 0 to 255 where images are uint8, else of the smallest to the largest training pixel."""
    low, high = data.pixel_range(dataset.train_images, dataset.val_images)
    scale = dataset.std / max(high - low, 1e-6)
    return Pixels(scale, (low - dataset.mean) / dataset.std)


def jitter(
    pixels: Pixels, most: Jitter, key: Array, images: Array, masks: Array | None = None
) -> tuple[Array, Array | None]:
    """Normalised images [B, H, W, C], each with changes of its own, uniform up to `most`.

    Brightness and contrast take any number of channels; saturation and hue take 3. Masks are
    returned as they are.
    """
    keys = jax.random.split(key, len(images))
    return jax.vmap(_changed, (None, None, 0, 0))(pixels, most, keys, images), masks


def _changed(pixels: Pixels, most: Jitter, key: Array, image: Array) -> Array:
    """`jitter` of one image [H, W, C]; what is 0 in `most` costs nothing."""
    brightness, contrast, saturation, hue = jax.random.split(key, 4)
    shown = (image - pixels.offset) * pixels.scale
    if most.brightness:
        shown = pix.random_brightness(brightness, shown, most.brightness)
    if most.contrast:
        shown = pix.random_contrast(contrast, shown, 1 - most.contrast, 1 + most.contrast)
    shown = jnp.clip(shown, 0, 1)  # what saturation and hue are defined for
    if most.saturation:
        factors = (1 - most.saturation, 1 + most.saturation)
        shown = pix.random_saturation(saturation, shown, *factors)
    if most.hue:
        shown = pix.random_hue(hue, shown, most.hue)
    return (jnp.clip(shown, 0, 1) / pixels.scale + pixels.offset).astype(image.dtype)
