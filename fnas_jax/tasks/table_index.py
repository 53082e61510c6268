"""Where a table holds an architecture.

Small spaces have an entry for every decision vector. In large ones the rows of the table are sorted
and searched by halves: [N, T] numbers at once and about log2(rows) steps, whatever the table's
size, where comparing all with all would take N times rows times T.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.spaces.base import Space, enumerate_all, place_values
from fnas_jax.tasks.tables import Table

DENSE = 2**20  # spaces up to this size get a direct index; of larger ones, the rows are searched


class Index(NamedTuple):
    """Where the table holds an architecture; both functions are pure and jittable."""

    row_of: Callable[[Array], Array]  # [N, T] -> [N] int32; -1: not in the table
    network_of: Callable[[Array], Array]  # [N, T] -> [N] int32 in 0..networks; `networks`: none
    networks: int  # number of distinct networks that the index tells apart
    complete: bool  # the table holds every network of its space


def of(table: Table) -> Index:
    """The index of a table. A form that the table lacks gets the row of an equal network.

    In spaces of more than 2^20 decision vectors only the forms that stand in the table are found,
    and each is a network of its own.
    """
    if table.space.size > DENSE:
        row_of, size = _searched(table.archs), len(table.archs)
        return Index(row_of, lambda archs: _otherwise(row_of(archs), size), size, False)
    space, weights = table.space, place_values(table.space.cardinalities)
    canonical = np.asarray(jax.jit(space.canonical)(enumerate_all(space, DENSE)))
    representatives, network = np.unique(canonical @ weights, return_inverse=True)
    row = np.full(space.size, -1, np.int32)
    row[table.archs @ weights] = np.arange(len(table.archs))
    any_row = np.full(len(representatives), -1, np.int32)
    any_row[network[table.archs @ weights]] = np.arange(len(table.archs))
    row = np.where(row < 0, any_row[network], row)
    known = functools.partial(_dense, space, weights)
    return Index(
        functools.partial(known, jnp.asarray(row), -1),
        functools.partial(known, jnp.asarray(network, jnp.int32), len(representatives)),
        len(representatives),
        bool((row >= 0).all()),
    )


def _searched(archs: np.ndarray) -> Callable[[Array], Array]:
    """`Index.row_of` for the rows `archs` [R, T]; of equal ones the first."""
    order = np.lexsort(archs.T[::-1])
    return functools.partial(
        search, jnp.asarray(archs[order], jnp.int32), jnp.asarray(order, jnp.int32)
    )


def search(rows: Array, numbers: Array, archs: Array) -> Array:
    """[N] int32: the number of the row of `rows` [R, T] that is each of `archs` [N, T]; -1: none.

    The `rows` are in lexicographic order, `numbers` [R] int32 are theirs. Exact in spaces of any
    size: vectors are compared, and no keys of so many bits.
    """
    size = len(rows)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        below = _less(rows[jnp.minimum(middle, size - 1)], archs) & (low < high)
        return jnp.where(below, middle + 1, low), jnp.where(below, high, middle)

    bounds = (jnp.zeros(len(archs), jnp.int32), jnp.full(len(archs), size, jnp.int32))
    low, _ = jax.lax.fori_loop(0, size.bit_length(), halve, bounds)
    place = jnp.minimum(low, size - 1)
    return jnp.where(jnp.all(rows[place] == archs, axis=-1), numbers[place], -1)


def _less(a: Array, b: Array) -> Array:
    """[N] bool: each of a [N, T] comes before that of b [N, T] in lexicographic order."""
    first = jnp.argmax(a != b, axis=-1, keepdims=True)
    return (jnp.take_along_axis(a, first, -1) < jnp.take_along_axis(b, first, -1))[:, 0]


def _otherwise(rows: Array, otherwise: int) -> Array:
    return jnp.where(rows < 0, otherwise, rows)


def _dense(space: Space, weights: np.ndarray, values: Array, otherwise: int, archs: Array) -> Array:
    """`values` [space.size] at each of `archs` [N, T]; `otherwise` where that is no vector."""
    return jnp.where(space.validate(archs), values[archs @ weights], otherwise)
