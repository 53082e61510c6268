"""Searching where only some of a space's architectures exist, as in a table with gaps.

Methods that draw or change decisions freely would ask for what nobody has trained. Where
`Task.existing` lists what there is, they take the architecture of that list which is nearest to
the one that they wanted, by Hamming distance, and none twice; those that choose among candidates
choose among the list (`candidates.py`), and policies give choices that lead to none of them no
probability (`rl/policy.py`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array

Existing = Array  # [M, T] int32, different: `Task.existing`


def nothing_asked(existing: Existing | None) -> Array | None:
    """[M] bool, all False; None where all of the space exists and nobody keeps a list."""
    return None if existing is None else jnp.zeros(len(existing), bool)


def unasked(existing: Existing, asked: Array, key: Array, n: int) -> tuple[Array, Array]:
    """(n architectures [n, T], `asked` [M] with them): uniform, without replacement.

    What was `asked` for before comes after the others; where there are fewer than n in all, some
    come twice.
    """
    order = jax.random.uniform(key, asked.shape) + asked
    _, places = jax.lax.top_k(-order, min(n, len(asked)))
    places = places[jnp.arange(n) % len(places)]
    return existing[places], asked.at[places].set(True)


def nearest(existing: Existing, asked: Array, key: Array, archs: Array) -> tuple[Array, Array]:
    """(the nearest [N, T] to each of `archs` [N, T], `asked` [M] with them), none twice.

    Of equally near ones a random one; what was `asked` for before comes after all others.
    """
    decisions = archs.shape[1]

    def take(asked: Array, wanted: tuple[Array, Array]) -> tuple[Array, Array]:
        arch, key = wanted
        distance = jnp.sum(existing != arch, axis=1) + jax.random.uniform(key, asked.shape)
        place = jnp.argmin(distance + (decisions + 1) * asked)
        return asked.at[place].set(True), place

    asked, places = jax.lax.scan(take, asked, (archs, jax.random.split(key, len(archs))))
    return existing[places], asked


def nearest_of_each(existing: Existing, key: Array, archs: Array) -> Array:
    """[N, T]: the nearest to each of `archs` [N, T], of equally near ones a random one."""

    def of_one(wanted: tuple[Array, Array]) -> Array:
        arch, key = wanted
        distance = jnp.sum(existing != arch, axis=1) + jax.random.uniform(key, (len(existing),))
        return existing[jnp.argmin(distance)]

    return jax.lax.map(of_one, (archs, jax.random.split(key, len(archs))))


def around(existing: Existing, key: Array, parents: Array, n: int) -> Array:
    """[n, T]: a third random, the rest the nearest ones of each of the `parents` [P, T] in turn."""
    key_random, key_near = jax.random.split(key)
    rest = n - n // 3
    random = existing[jax.random.randint(key_random, (n // 3,), 0, len(existing))]
    distance = jnp.sum(parents[:, None] != existing, axis=2, dtype=jnp.float32)
    distance += jax.random.uniform(key_near, distance.shape)
    each = min(-(-rest // len(parents)), len(existing))
    _, places = jax.lax.top_k(-distance, each)  # [P, each]
    i = jnp.arange(rest)
    near = existing[places[i % len(parents), i // len(parents) % each]]
    return jnp.concatenate([random, near])


def choices(existing: Existing, reachable: Array, t: Array, width: int) -> Array:
    """[n, K] bool: which choices of decision t [] lead to one of the `reachable` [n, M].

    These are the architectures that agree with each of n beginnings of K = `width` choices.
    """
    codes = jax.nn.one_hot(existing[:, t], width)
    return reachable.astype(codes.dtype) @ codes > 0


def reach(existing: Existing, reachable: Array, t: Array, chosen: Array) -> Array:
    """[n, M] bool: what is still reachable when decision t [] is `chosen` [n]."""
    return reachable & (existing[:, t] == chosen[:, None])
