"""Architectures that a model of the rewards is asked about before it is decided what to train."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import budget
from fnas_jax.core.types import Array, UserError
from fnas_jax.methods import existing as rows_lib
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.enumerate import enumerate_networks

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Task


LOG = logging.getLogger(__name__)
MOST = 4096  # places of a method where networks are refused; [C, C] float32 are 64 MiB then
Allowed = Callable[[Array], Array]  # `Task.allowed`


def listed(
    space: Space, most: int, allowed: Allowed | None = None, existing: Array | None = None
) -> Array | None:
    """[M, T] int32: all networks of a space of at most `most` decision vectors; None for others.

    Or of the `existing` ones (`Task.existing`), where these are no more. But for those that are not
    `allowed`. Raises UserError where none is.
    """
    if (space.size if existing is None else len(existing)) > most:
        return None
    networks = forms(space, existing)
    if allowed is None:
        return jnp.asarray(networks)
    kept = networks[np.asarray(allowed(jnp.asarray(networks)))]
    if not len(kept):
        raise UserError(f"no network of space {space.name} keeps all limits")
    LOG.info("%d of the %d networks can be asked for", len(kept), len(networks))
    return jnp.asarray(kept)


def forms(space: Space, existing: Array | None) -> np.ndarray:
    """[M, T] int32: the canonical forms of all networks, or of the `existing` ones, each once."""
    if existing is None:
        return enumerate_networks(space)
    return np.unique(np.asarray(space.canonical(existing)), axis=0)


def forbidden(allowed: Allowed | None, archs: Array) -> Array | bool:
    """[M] bool: which of the candidates [M, T] are not to be proposed; False: none of them."""
    return False if allowed is None else ~allowed(archs)


def places(config: Any, task: Task) -> int:
    """For how many networks a method needs room that learns from all that it proposes.

    Those that the task refuses though they were `allowed` are among them, but no more than MOST in
    all, or than the budget needs: a process keeps [C, C] numbers in every checkpoint. What is
    proposed beyond is not learnt from.
    """
    learnt = budget.places(config.search, refused=False)
    return min(budget.places(config.search, task.refuses), max(learnt, MOST))


def draw(space: Space, key: Array, parents: Array, n: int, existing: Array | None = None) -> Array:
    """[n, T] int32 canonical forms: a third random, a third parents [P, T] changed in one
    decision, and a third changed in two (or one, where both changes hit the same).

    Of `existing` ones (`Task.existing`), a third random and the nearest to the parents.
    """
    if existing is not None:
        return space.canonical(rows_lib.around(existing, key, parents, n))
    key_random, key_change = jax.random.split(key)
    cards = jnp.asarray(space.cardinalities)
    free = np.flatnonzero(np.asarray(space.cardinalities) > 1)
    if not len(free):
        return space.canonical(space.sample(key, n))
    rows, twice = n - n // 3, jnp.arange(n - n // 3) >= n // 3
    # One drawing for all: every separate one costs more to compile than this whole function.
    uniform = jax.random.uniform(key_change, (2, 2, rows))
    changed = parents[jnp.arange(rows) % len(parents)]
    for place, move, apply in ((*uniform[0], jnp.ones(rows, bool)), (*uniform[1], twice)):
        t = jnp.asarray(free)[jnp.floor(place * len(free)).astype(jnp.int32)]
        k = cards[t]
        step = 1 + jnp.floor(move * (k - 1)).astype(jnp.int32)
        value = (changed[jnp.arange(rows), t] + jnp.where(apply, step, 0)) % k
        changed = changed.at[jnp.arange(rows), t].set(value)
    return space.canonical(jnp.concatenate([space.sample(key_random, n // 3), changed]))
