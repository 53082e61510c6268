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
    """[n, T] int32: half crossovers and half mutations of the architectures of `best`.

    Of an odd number, one more of either kind by chance. None is a network of `best` again, comes
    twice, or is not `allowed`, as far as draws suffice: then uniform ones stand in, as in the
    paper. `best` holds architectures as they were asked for, because their weights stand there.
    """
    keys, draws = jax.random.split(key, 5), CANDIDATES * n
    kinds = jnp.stack(
        [crossovers(best, keys[0], draws), mutations(space, best, mutation, keys[1], draws)]
    )
    kinds = jnp.where(jax.random.bernoulli(keys[2]), kinds, kinds[::-1])
    known = best.rewards > -jnp.inf
    taken = jnp.where(known[:, None], space.canonical(jnp.maximum(best.archs, 0)), -1)
    found = []
    for some, key_uniform, count in zip(kinds, keys[3:], (n - n // 2, n // 2), strict=True):
        drawn = jnp.concatenate([some, space.sample(key_uniform, draws)])
        networks = space.canonical(drawn)
        new = first_of_each(networks) & ~contains(taken, networks)
        new &= jnp.logical_not(forbidden(allowed, networks))
        chosen = _first(new, count)
        found.append(drawn[chosen])
        taken = jnp.concatenate([taken, networks[chosen]])
    return jnp.concatenate(found)


def starts(space: Space, key: Array, n: int, allowed: Allowed | None) -> Array:
    """[n, T] int32 uniform architectures, those first that are `allowed`."""
    if allowed is None:
        return space.sample(key, n)
    drawn = space.sample(key, CANDIDATES * n)
    return drawn[_first(allowed(space.canonical(drawn)), n)]


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
    """[*shape, T] of the architectures that are ranked, each as likely as another."""
    places = jnp.where(best.rewards > -jnp.inf, 0.0, -jnp.inf)
    return best.archs[jax.random.categorical(key, places, shape=shape)]


def _first(wanted: Array, n: int) -> Array:
    """[n] places of the first that are `wanted` [M], then of any others."""
    return jnp.argsort(jnp.logical_not(wanted), stable=True)[:n]
