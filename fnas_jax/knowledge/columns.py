"""What a query of the history finds, as arrays: some rows at a time, so that they fit into memory.

A row as Python has it takes some kilobytes, and a store may have millions.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fnas_jax.core import jsons

CHUNK = 50_000  # rows at a time


def read(cursor: sqlite3.Cursor, kinds: Mapping[str, type]) -> tuple[dict[str, np.ndarray], set]:
    """({name: [R] of its kind}, the numbers of decisions that there are) of the rows of `cursor`.

    `kinds` are in the order of its columns. NULL is NaN, or ''. Of kind list are decisions, JSON
    lists that become [R, T] int32: [0, 0] where there are none or several numbers T of them. Raises
    ValueError, TypeError or OverflowError for values that are none of their kinds.
    """
    chunks = [_arrays(rows, kinds) for rows in itertools.chain([()], _chunks(cursor))]
    sizes: set[int] = set().union(*(found for _, found in chunks))
    arrays = [found for found, _ in chunks]
    whole = {}
    for name, kind in kinds.items():
        columns = [found.pop(name) for found in arrays]  # which are not needed any more then
        if kind is list:
            columns = [c for c in columns if len(c)] if len(sizes) == 1 else columns[:1]
        whole[name] = np.concatenate(columns)
    return whole, sizes


def _chunks(cursor: sqlite3.Cursor) -> Iterator[Sequence[tuple]]:
    while rows := cursor.fetchmany(CHUNK):
        yield rows


def _arrays(
    rows: Sequence[tuple], kinds: Mapping[str, type]
) -> tuple[dict[str, np.ndarray], set[int]]:
    columns = zip(*rows, strict=True) if rows else [()] * len(kinds)
    found, sizes = {}, set()
    for (name, kind), column in zip(kinds.items(), columns, strict=True):
        if kind is list:
            archs = jsons.parse(f"[{','.join(column)}]")  # many short texts would take ten times
            if len(archs) != len(column):
                raise ValueError(f"{len(column)} rows have {len(archs)} lists of decisions")
            sizes = set(map(len, archs))
            found[name] = np.zeros((0, 0), np.int32)
            if len(sizes) == 1:
                found[name] = np.asarray(archs, np.int32)
        elif kind is str:
            found[name] = np.asarray([text or "" for text in column], str)
        else:
            found[name] = np.asarray(column, kind)
    return found, sizes
