"""How much of a small space an evaluator that remembers its networks has not evaluated yet."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.enumerate import enumerate_networks
from fnas_jax.tasks.cache import EvaluationCache

COUNTED = 20_000  # decision vectors of the largest spaces whose networks are counted
Allowed = Callable[[Array], Array]  # `Task.allowed`


def of(space: Space, allowed: Allowed | None = None) -> Callable[[EvaluationCache], Array] | None:
    """What `Evaluator.left` is of a cache: networks that are `allowed`, and not in it.

    None for spaces of more than COUNTED decision vectors, which no search uses up.
    """
    if space.size > COUNTED:
        return None

    @functools.cache
    def in_all() -> int:
        networks = enumerate_networks(space)
        return len(networks) if allowed is None else int(np.sum(allowed(jnp.asarray(networks))))

    def left(cached: EvaluationCache) -> Array:
        taken = jnp.arange(len(cached.canonical)) < cached.size
        if allowed is not None:  # what is not is remembered, too, where it was asked for
            taken &= allowed(jnp.maximum(cached.canonical, 0))
        return jnp.int32(in_all()) - jnp.sum(taken, dtype=jnp.int32)

    return left
