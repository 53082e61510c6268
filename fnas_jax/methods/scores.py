"""Rewards as Gaussian scores of their ranks: the standardisation that all models here learn on.

A score does not care about the unit of the reward nor how far below the rest a failure lies.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.stats import norm

from fnas_jax.core.types import Array

LEAST_STD = 0.3  # of aligned scores, in standard deviations of source tasks


class Scale(NamedTuple):
    """An increasing, piecewise linear map between rewards and scores, by its knots."""

    rewards: Array  # [C + 1] float32, not decreasing
    scores: Array  # [C + 1] float32, not decreasing


def rank_scores(values: Array, mask: Array) -> Array:
    """[n] float32: Phi^-1((rank - 1/2) / m) among the m masked `values` [n]; 0 elsewhere.

    Equal values share the mean of their ranks. Masked values are numbers, no NaN.
    """
    # Sorted, because comparing all with all of a full buffer took longer than fitting a critic.
    count = mask.sum()
    ordered = jnp.sort(jnp.where(mask, values, jnp.inf))
    below = jnp.searchsorted(ordered, values)
    equal = jnp.minimum(jnp.searchsorted(ordered, values, side="right"), count) - below
    share = (below + 0.5 * equal) / jnp.maximum(count, 1)
    return jnp.where(mask, norm.ppf(jnp.where(mask, share, 0.5)), 0.0)


def align(scores: Array, source_prediction: Array, mask: Array) -> tuple[Array, Array]:
    """Own `scores` [n] on the scale of source tasks, 0 where not masked, and their std [] there.

    By mean and standard deviation of the masked `source_prediction` [n], which knowledge of the
    source tasks says of the same rows. The first own samples are what the source tasks think
    best: without this, their middle would be taken for the middle of the space.
    """
    count = jnp.maximum(mask.sum(), 1)
    mean = jnp.sum(jnp.where(mask, source_prediction, 0.0)) / count
    variance = jnp.sum(jnp.where(mask, (source_prediction - mean) ** 2, 0.0)) / count
    std = jnp.maximum(jnp.sqrt(variance), LEAST_STD)
    return jnp.where(mask, mean + std * scores, 0.0), std


def scale(rewards: Array, scores: Array, mask: Array) -> Scale:
    """The map through the masked pairs [n]; beyond the best with the slope of the best quarter.

    Below the worst it is flat. Without any pair it is the identity on [0, n].
    """
    n, count = rewards.shape[0], mask.sum()
    order = jnp.argsort(jnp.where(mask, rewards, jnp.inf))
    r, z = rewards[order], scores[order]
    last, quarter = jnp.maximum(count - 1, 0), (3 * count) // 4
    slope = (r[last] - r[quarter]) / jnp.maximum(z[last] - z[quarter], 1e-3)
    slope = jnp.where(count > 1, jnp.maximum(slope, 1e-6), 1.0)
    i = jnp.arange(n + 1)
    beyond = (i - last) * (i >= count)
    r = jnp.append(r, 0.0)
    z = jnp.append(z, 0.0)
    start_r, start_z = (jnp.where(count > 0, x[last], 0.0) for x in (r, z))
    return Scale(
        jnp.where(i < count, r, start_r + slope * beyond),
        jnp.where(i < count, z, start_z + beyond),
    )


def to_reward(scale: Scale, scores: Array) -> Array:
    """Rewards of `scores` of any shape."""
    return jnp.interp(scores, scale.scores, scale.rewards)


def to_score(scale: Scale, rewards: Array) -> Array:
    """Scores of `rewards` of any shape."""
    return jnp.interp(rewards, scale.rewards, scale.scores)


def kendall(a: Array, b: Array, mask: Array) -> Array:
    """[] float32: Kendall's tau-a between the masked entries of a, b [n]; 0 below two of them."""
    pairs = mask[:, None] & mask & ~jnp.eye(len(a), dtype=bool)
    signs = jnp.sign(a[:, None] - a) * jnp.sign(b[:, None] - b)
    return jnp.sum(jnp.where(pairs, signs, 0.0)) / jnp.maximum(pairs.sum(), 1)
