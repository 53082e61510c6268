"""What a network says: of an image as a whole, or of each of its pixels.

Dense: a 1x1 convolution of the last output of each resolution of the backbone, enlarged to the size
of the image and added up (the skips of fully convolutional networks, Long et al., CVPR 2015,
arXiv 1411.4038).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.layers import ops


class Dense(NamedTuple):
    """Numbers for every pixel: logits [B, H, W, outputs], with H and W of the image."""

    outputs: int


Outputs = int | Dense  # an int: logits [B, outputs] of images


def count(outputs: Outputs) -> int:
    """How many numbers there are, of an image or of a pixel."""
    return outputs.outputs if isinstance(outputs, Dense) else outputs


def of(numbers: int, every_pixel: bool) -> Outputs:
    """So many numbers of an image, or of each of its pixels."""
    return Dense(numbers) if every_pixel else numbers


def total(scores: Sequence[Array], size: tuple[int, ...]) -> Array:
    """Scores, each [B, h, w, C] of its own h and w, enlarged to `size` and added: [B, H, W, C].

    Of the type of sums over them (`ops.sum_type`).
    """
    largest = [enlarged(score.astype(ops.sum_type(score)), size) for score in scores]
    return sum(largest[1:], largest[0])


def enlarged(x: Array, size: tuple[int, ...]) -> Array:
    """Bilinear, by the centres of pixels: [B, h, w, C] -> [B, H, W, C]."""
    # As `jax.image.resize`, but for any number of images where that is a symbol (exports).
    scale = jnp.asarray([large / small for large, small in zip(size, x.shape[1:3], strict=True)])
    return jax.image.scale_and_translate(
        x,
        (x.shape[0], *size, x.shape[3]),
        spatial_dims=(1, 2),
        scale=scale,
        translation=jnp.zeros(2),
        method="bilinear",
        antialias=False,  # nothing is made smaller
    )
