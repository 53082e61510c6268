"""Equal rows of a batch."""

from __future__ import annotations

import jax.numpy as jnp

from fnas_jax.core.types import Array


def equal(rows: Array, others: Array) -> Array:
    """[N, C] bool: row of `rows` [N, ..] equals row of `others` [C, ..]; scalars are rows, too."""
    same = rows[:, None] == others
    return jnp.all(same, axis=tuple(range(2, same.ndim)))


def contains(others: Array, rows: Array) -> Array:
    """[N] bool: the row of `rows` [N, ..] stands among `others` [C, ..]."""
    return equal(rows, others).any(axis=1)


def first_of_each(rows: Array, mask: Array | None = None) -> Array:
    """[N] bool: the masked rows of [N, ..] that no earlier masked row equals."""
    first = first_equal(rows, mask) == jnp.arange(len(rows))
    return first if mask is None else first & mask


def first_equal(rows: Array, mask: Array | None = None) -> Array:
    """[N] int32: the first masked row of [N, ..] that equals each; its own where none does."""
    same = equal(rows, rows)
    if mask is None:
        return same.argmax(axis=1)
    same &= mask
    return jnp.where(same.any(axis=1), same.argmax(axis=1), jnp.arange(len(rows)))
