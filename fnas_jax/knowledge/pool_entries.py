"""The blocks that a pool holds for one place of the network, and what happens where they are full.

Entries are told apart by their descriptor and by their number of parameters, which differs with
the channels that come in (ours).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.knowledge.similarity import cosine


class Entries(NamedTuple):
    """M blocks of one place."""

    params: Array  # [M, P] float32, the block's tensors one after another
    arch: Array  # [M, T] int32 of the child that trained the block; -1: none, freshly initialised
    descriptor: Array  # [M, F] float32
    size: Array  # [M] int32 parameters that were trained
    updates: Array  # [M] int32 children that trained the block
    accuracy: Array  # [M] float32 of the last of them
    owner: Array  # [M] uint32 the run that they were of
    valid: Array  # [M] bool


def insert(entries: Entries, news: Entries, weights: Array, add: bool) -> Entries:
    """`entries` [M] with the valid ones of `news` [N], one after another.

    A block that is there already is replaced: always, with its updates summed (`add`), or where
    the new one was updated more often. Others take a free place, or else that of the least updated
    among the quarter of the entries that are most like another one (ours). `weights` [F] are those
    of the similarity.
    """
    capacity = len(entries.valid)

    def step(carry: tuple[Entries, Array], new: Entries) -> tuple[tuple[Entries, Array], None]:
        entries, written = carry
        same = entries.valid & jnp.all(entries.descriptor == new.descriptor, axis=1)
        same &= entries.size == new.size
        known = same.any()
        slot = jnp.where(known, same.argmax(), _place(entries, written, weights))
        old = entries.updates[slot]
        if add:
            new = new._replace(updates=new.updates + jnp.where(known, old, 0))
        use = new.valid & (~known | (new.updates > old))
        slot = jnp.where(use, slot, capacity)
        entries = jax.tree.map(lambda e, n: e.at[slot].set(n, mode="drop"), entries, new)
        return (entries, written.at[slot].set(True, mode="drop")), None

    return jax.lax.scan(step, (entries, jnp.zeros(capacity, bool)), news)[0][0]


def _place(entries: Entries, written: Array, weights: Array) -> Array:
    """[] where a new entry goes; those `written` [M] just now go last."""
    capacity = len(entries.valid)
    similarity = cosine(entries.descriptor, entries.descriptor, weights)
    similarity = jnp.where(entries.valid & ~jnp.eye(capacity, dtype=bool), similarity, -1.0).max(
        axis=1
    )
    similarity = jnp.where(written, -2.0, similarity)
    redundant = similarity >= jnp.sort(similarity)[-max(1, capacity // 4)]
    updates = jnp.where(redundant & ~written, entries.updates, jnp.iinfo(jnp.int32).max)
    return jnp.where(entries.valid.all(), updates.argmin(), entries.valid.argmin())


def resize(entries: Entries, capacity: int) -> Entries:
    """`entries` in another number of places; the most often updated ones stay. Numpy arrays."""
    priority = np.where(entries.valid, -np.asarray(entries.updates), 1)
    order = np.sort(np.argsort(priority, kind="stable")[:capacity])

    def fit(leaf: Any) -> np.ndarray:
        kept = np.asarray(leaf)[order]
        return np.pad(kept, [(0, capacity - len(kept)), *[(0, 0)] * (kept.ndim - 1)])

    return jax.tree.map(fit, entries)
