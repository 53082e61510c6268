"""Which of the best predicted architectures are trained: an acquisition function is maximised."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import contains
from fnas_jax.core.types import Array
from fnas_jax.methods import candidates
from fnas_jax.methods.fnas import replay
from fnas_jax.methods.fnas.config import Fnas
from fnas_jax.spaces.base import Space, place_values

NUMBERED = 2**20  # larger spaces, of which few architectures exist, are compared row by row


def choose(
    space: Space,
    config: Fnas,
    key: Array,
    pick: Callable[[Array, Array, Array], tuple[Array, Array]],
    buffer: replay.Buffer,
    elite: Array,
    sampled: Array,
    everything: Array | None = None,
    existing: Array | None = None,
) -> tuple[Array, Array]:
    """The `verify` candidates [v, T] that `pick` takes, and the next elite.

    `pick` is given a key, the candidates and which of them are new, and says the places of both
    (`uac.pick`). Candidates are `everything` [M, T] of a space that is listed. Else they are
    `sampled` [m, T] from the controller, random ones, and relatives of the best trained ones and of
    the `elite` [ELITE, T], which are the most promising ones of last time, so that the search for
    the best goes on from iteration to iteration. `existing`: `Task.existing`.
    """
    key_draw, key_pick = jax.random.split(key)
    if everything is not None:
        archs = everything
        new = unknown(space, buffer, everything)
    else:
        mask = replay.filled(buffer)
        _, top = jax.lax.top_k(jnp.where(mask, buffer.reward, -jnp.inf), replay.ELITE)
        parents = jnp.where(mask[top][:, None], buffer.canonical[top], elite)
        wanted = jnp.concatenate([parents, elite])
        near = candidates.draw(space, key_draw, wanted, config.pool, existing)
        archs = jnp.concatenate([space.canonical(sampled), near, elite])
        new = ~contains(buffer.canonical, archs)
    picks, best = pick(key_pick, archs, new)
    return archs[picks], archs[best]


def unknown(space: Space, buffer: replay.Buffer, everything: Array) -> Array:
    """[M] bool: networks of `everything` [M, T] that the buffer lacks, by their number in space."""
    if space.size > NUMBERED:
        return ~contains(buffer.canonical, everything)
    weights = place_values(space.cardinalities)
    places = jnp.where(replay.filled(buffer), buffer.canonical @ weights, space.size)
    taken = jnp.zeros(space.size, bool).at[places].set(True, mode="drop")
    return ~taken[everything @ weights]
