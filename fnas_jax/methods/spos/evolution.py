"""The evolutionary stage of SPOS: children of the best networks that were judged so far.

Source: arXiv 1904.00420, Algorithm 1. Half of the children are crossovers of two of the best, half
are mutations of one. Ours: a generation is what is asked for at once, so the best are those of now.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import contains, first_of_each
from fnas_jax.core.types import Array
from fnas_jax.methods.candidates import Allowed, forbidden
from fnas_jax.methods.oneshot.ranking import Ranking
from fnas_jax.spaces.base import Space

CANDIDATES = 8  # draws for each child, of which those that are new are taken first


def children(
    space: Space, best: Ranking, mutation: float, key: Array, n: int, allowed: Allowed | None
) -> Array:
    """[n, T] int32 canonical forms: half crossovers and half mutations of the networks of `best`.

    None is one of these again, comes twice, or is not `allowed`, as far as draws suffice: then
    uniform networks stand in, as in the paper.
    """
    keys, draws = jax.random.split(key, 3), CANDIDATES * n
    uniform = space.sample(keys[0], 2 * draws)
    crossed = crossovers(best, keys[1], draws)
    mutated = mutations(space, best, mutation, keys[2], draws)
    networks = space.canonical(
        jnp.concatenate([crossed, uniform[:draws], mutated, uniform[draws:]])
    )
    new = first_of_each(networks) & ~contains(best.canonical, networks)
    new &= ~forbidden(allowed, networks)
    halves = zip(jnp.split(networks, 2), jnp.split(new, 2), (n - n // 2, n // 2), strict=True)
    return jnp.concatenate([_first(*half) for half in halves])


def crossovers(best: Ranking, key: Array, n: int) -> Array:
    """[n, T] int32: each decision that of one of two parents, with equal probability."""
    key_parents, key_decisions = jax.random.split(key)
    parents = _parents(best, key_parents, (2, n))
    heads = jax.random.bernoulli(key_decisions, shape=parents.shape[1:])
    return jnp.where(heads, parents[0], parents[1])


def mutations(space: Space, best: Ranking, probability: float, key: Array, n: int) -> Array:
    """[n, T] int32: parents in which each decision is drawn anew with this probability."""
    key_parents, key_decisions, key_values = jax.random.split(key, 3)
    parents = _parents(best, key_parents, (n,))
    anew = jax.random.bernoulli(key_decisions, probability, parents.shape)
    return jnp.where(anew, space.sample(key_values, n), parents)


def _parents(best: Ranking, key: Array, shape: tuple[int, ...]) -> Array:
    """[*shape, T] of the networks that the ranking holds, each as likely as another."""
    places = jnp.where(best.rewards > -jnp.inf, 0.0, -jnp.inf)
    return best.canonical[jax.random.categorical(key, places, shape=shape)]


def _first(networks: Array, wanted: Array, n: int) -> Array:
    """[n, T]: the first of the networks [M, T] that are `wanted` [M], then any others."""
    return networks[jnp.argsort(~wanted, stable=True)[:n]]
