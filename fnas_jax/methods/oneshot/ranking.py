"""The best few sampled architectures, and for how long they have been the best."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import first_of_each
from fnas_jax.core.types import Array


class Ranking(NamedTuple):
    """The R best distinct networks, best first."""

    archs: Array  # [R, T] int32 architectures, -1 where there is none yet
    rewards: Array  # [R] float32, -inf where there is none yet
    stable: Array  # [] int32 samples in a row that have not changed the above


def empty(size: int, decisions: int) -> Ranking:
    """Before the first sample."""
    nobody = jnp.full((size, decisions), -1, jnp.int32)
    return Ranking(nobody, jnp.full(size, -jnp.inf, jnp.float32), jnp.int32(0))


def add(ranking: Ranking, archs: Array, rewards: Array) -> Ranking:
    """With N samples: architectures `archs` [N, T] and `rewards` [N], -inf: not to be ranked.

    Ties go to the earlier one. What stands in the ranking does not enter again, but
    counts as a sample that changed nothing.
    """
    networks = jnp.concatenate([ranking.archs, archs])
    all_rewards = jnp.concatenate([ranking.rewards, rewards])
    entering = jnp.where(first_of_each(networks), all_rewards, -jnp.inf)
    best, index = jax.lax.top_k(entering, len(ranking.rewards))
    kept = jnp.where((best > -jnp.inf)[:, None], networks[index], -1)
    changed = jnp.any(kept != ranking.archs)
    return Ranking(kept, best, jnp.where(changed, 0, ranking.stable + len(rewards)))
