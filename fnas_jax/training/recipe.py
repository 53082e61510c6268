"""What a final training may add to that of children: mixed images, and averaged weights.

All of it is off in `Recipe()`, and then costs nothing and changes no number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnas_jax.core.types import Array
from fnas_jax.training.config import Recipe


class Others(NamedTuple):
    """What was mixed into a minibatch."""

    labels: Array  # [B, ..]
    share: Array  # [] in [0, 1], of these labels in the targets


class Batch(NamedTuple):
    """A minibatch, of which each target may be shared by those of two images."""

    images: Array  # [B, H, W, C]
    labels: Array  # [B, ..]
    others: Others | None = None  # None: nothing was mixed in


def mix(recipe: Recipe, key: Array, step: Array, images: Array, labels: Array) -> Batch:
    """Each image [B, H, W, C] mixed with the one before it, by mixup or cutmix.

    Where both are on, a fair coin decides for each batch. Minibatches are in random order, so the
    one before is any other. `key` is that of the whole training, `step` [] int32 that of the batch.
    """
    ways: list[tuple[Callable[..., tuple[Array, Array, Array]], float]] = []
    ways += [(mixup, recipe.mixup)] if recipe.mixup else []
    ways += [(cutmix, recipe.cutmix)] if recipe.cutmix else []
    if not ways:
        return Batch(images, labels)
    key_way, *keys = jax.random.split(jax.random.fold_in(key, step), 1 + len(ways))
    mixed = [way(own, alpha, images, labels) for own, (way, alpha) in zip(keys, ways, strict=True)]
    found, own_labels, share = mixed[0]
    if len(mixed) == 2:
        first = jax.random.bernoulli(key_way)
        found, own_labels, share = (jnp.where(first, a, b) for a, b in zip(*mixed, strict=True))
    return Batch(found, own_labels, Others(jnp.roll(labels, 1, axis=0), 1 - share))


def mixup(key: Array, alpha: float, images: Array, labels: Array) -> tuple[Array, Array, Array]:
    """(share x image + (1 - share) x the one before it [B, H, W, C], labels, share []).

    Zhang et al., ICLR 2018 (arXiv 1710.09412). The share is from Beta(alpha, alpha), one for a
    batch, as in their code.
    """
    share = jax.random.beta(key, alpha, alpha)
    return share * images + (1 - share) * jnp.roll(images, 1, axis=0), labels, share


def cutmix(key: Array, alpha: float, images: Array, labels: Array) -> tuple[Array, Array, Array]:
    """(images [B, H, W, C] with a box of the one before, labels, the share [] of what stayed).

    Masks [B, H, W] get the box of the one before, too, so that all of them is their own: share 1.

    Yun et al., ICCV 2019 (arXiv 1905.04899): of a box around a random pixel, 1 - Beta(alpha, alpha)
    of the area, what is inside the image; the same box for a batch.
    """
    key_share, key_centre = jax.random.split(key)
    height, width = images.shape[1:3]
    side = jnp.sqrt(1 - jax.random.beta(key_share, alpha, alpha))
    centre = jax.random.randint(key_centre, (2,), 0, jnp.array([height, width]))
    half = (side * jnp.array([height, width])).astype(jnp.int32) // 2
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= centre[0] - half[0]) & (rows < centre[0] + half[0])
    inside &= (columns >= centre[1] - half[1]) & (columns < centre[1] + half[1])
    mixed = jnp.where(inside[..., None], jnp.roll(images, 1, axis=0), images)
    if labels.ndim == 3:
        return mixed, jnp.where(inside, jnp.roll(labels, 1, axis=0), labels), jnp.float32(1)
    return mixed, labels, 1 - inside.mean(dtype=jnp.float32)


def averaged(recipe: Recipe, step: Array, average: Array, vector: Array) -> Array:
    """The exponential moving average [P] of parameters after `step` [] int32 has made `vector` [P].

    Its decay is `recipe.ema`, and less in the first steps, min(ema, (1 + step) / (10 + step)), so
    that a short training does not remember how it began: that of TensorFlow's
    ExponentialMovingAverage with `num_updates`.
    """
    decay = jnp.minimum(recipe.ema, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(vector, average, 1 - decay)
