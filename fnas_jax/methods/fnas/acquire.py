"""Which of the best predicted architectures are trained: an acquisition function is maximised."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import contains, first_of_each
from fnas_jax.core.types import Array
from fnas_jax.methods import candidates
from fnas_jax.methods.fnas import replay
from fnas_jax.methods.fnas.config import Fnas
from fnas_jax.methods.fnas.uac import Prediction
from fnas_jax.spaces.base import Space

ELITE = 8  # parents of candidates: so many trained ones, and so many predicted ones


def choose(
    space: Space,
    config: Fnas,
    key: Array,
    predict: Callable[[Array], Prediction],
    buffer: replay.Buffer,
    elite: Array,
    sampled: Array,
) -> tuple[Array, Array]:
    """The `verify` candidates [v, T] of the highest optimistic score, and the next elite.

    Candidates are `sampled` [m, T] from the controller, random ones, and relatives of the best
    trained ones and of the `elite` [ELITE, T], which are the best predicted ones of last time. So
    the search for the critic's optimum goes on from iteration to iteration. Each pick adds an
    exponentially distributed multiple of U: now greedy, now curious (ours).
    """
    key_draw, key_optimism = jax.random.split(key)
    mask = replay.filled(buffer)
    _, top = jax.lax.top_k(jnp.where(mask, buffer.reward, -jnp.inf), ELITE)
    parents = jnp.where(mask[top][:, None], buffer.canonical[top], elite)
    near = candidates.draw(space, key_draw, jnp.concatenate([parents, elite]), config.pool)
    archs = jnp.concatenate([space.canonical(sampled), near, elite])
    prediction = predict(archs)
    new = ~contains(buffer.canonical, archs) & first_of_each(archs)
    score = jnp.where(new, prediction.score, -jnp.inf)
    _, best = jax.lax.top_k(score, ELITE)
    optimism = config.optimism * jax.random.exponential(key_optimism, (config.verify,))

    def pick(score: Array, weight: Array) -> tuple[Array, Array]:
        i = jnp.argmax(score + weight * prediction.width)
        return score.at[i].set(-jnp.inf), i

    _, picks = jax.lax.scan(pick, score, optimism)
    return archs[picks], archs[best]
