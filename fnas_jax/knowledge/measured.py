"""The measured rows of a space that other searches may learn from, of stores of millions of rows.

All rows of an iteration are of one task, protocol, space and moment (`history.record`). These are
read once an iteration, and of a row only what is its own: texts of each row would take more time
and memory than all that is learnt from it.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core.types import COSTS
from fnas_jax.knowledge import columns, history
from fnas_jax.knowledge.columns import Texts
from fnas_jax.spaces.base import Space

# What is read of an iteration.
ITERATION = {
    "task": str,
    "protocol": str,
    "steps": np.int64,
    "space": str,
    "known": bool,
    "time": float,
    "measured": np.int64,  # rows
    "taken": np.int64,  # of these, of the space that is asked for
}


class Group(NamedTuple):
    """What rows are of: numbers of one group are comparable."""

    task: str
    protocol: str  # digest, "" where unknown
    steps: int  # of the training of a child


class Measured(NamedTuple):
    """R rows, in the order in which they were written."""

    decisions: np.ndarray  # [R, T] int32
    ok: np.ndarray  # [R] bool
    accuracy: np.ndarray  # [R] float64, NaN where unknown
    costs: dict[str, np.ndarray]  # [R] float64 by names of `COSTS`; NaN where not asked for
    known: np.ndarray  # [R] bool: the row says which space it is of, not only its name
    group: np.ndarray  # [R] int64 in 0..G-1
    groups: list[Group]  # [G]
    others: dict[str, int]  # measured rows of other spaces by the names of these


def read(
    connection: sqlite3.Connection,
    space: Space,
    costs: Sequence[str] = COSTS,
    until: float = math.inf,
) -> Measured:
    """All of `space` that the store held at `until` (seconds since 1970), with some `costs`.

    Rows that say no more of their space than its name are taken where their decisions are those of
    `space`. Raises UserError where a row is damaged.
    """
    if set(costs) - set(COSTS):
        raise ValueError(f"costs are {costs}; they must be of {COSTS}")
    with _snapshot(connection):
        iterations, found = (
            _iterations(connection, space, until),
            _rows(connection, space, costs, until),
        )
    each = iterations["taken"]
    order = np.argsort(np.repeat(iterations["time"], each), kind="stable")
    archs = found.pop("decisions")
    if len(order):
        fits = np.all((archs >= 0) & (archs < np.asarray(space.cardinalities)), axis=1)
        order = order[fits[order]]
    groups, of_iteration = _grouped(iterations)
    unknown = np.full(len(order), np.nan)
    return Measured(
        decisions=archs[order],
        ok=found["ok"][order],
        accuracy=found["accuracy"][order],
        costs={name: found[name][order] if name in costs else unknown for name in COSTS},
        known=np.repeat(iterations["known"], each)[order],
        group=np.repeat(of_iteration, each)[order],
        groups=groups,
        others=_others(iterations, space, len(order)),
    )


def _iterations(connection: sqlite3.Connection, space: Space, until: float) -> dict[str, Any]:
    """{name of `ITERATION`: [I]} in the order of the primary key."""
    own, values = _is_of(space)
    cursor = connection.execute(
        "SELECT task, protocol, steps, space, space_key IS NOT NULL, time, sum(trained),"
        f" sum(trained AND {own}) FROM evaluations WHERE time <= ?"
        f" GROUP BY {history.ITERATION} ORDER BY {history.ITERATION}",
        (*values, until),
    )
    with history.damage_told():
        return columns.read(cursor, ITERATION)[0]


def _rows(
    connection: sqlite3.Connection, space: Space, costs: Sequence[str], until: float
) -> dict[str, Any]:
    """{name of a column: [R]} in the order of the primary key."""
    own, values = _is_of(space)
    kinds = {"decisions": list, "ok": bool, "accuracy": float, **dict.fromkeys(costs, float)}
    cursor = connection.execute(
        f"SELECT {', '.join(kinds)} FROM evaluations WHERE time <= ? AND trained AND {own}"
        f" ORDER BY {history.ITERATION}, position",
        (until, *values),
    )
    with history.damage_told():
        return columns.read(cursor, kinds)[0]


def _is_of(space: Space) -> tuple[str, tuple[Any, ...]]:
    """What is true in SQL of the rows of `space`, and the values of its question marks."""
    # The rows of a space lie everywhere: the file as a whole is read faster than by an index.
    unknown = "space_key IS NULL AND json_array_length(decisions) = ?"
    values = (space.name, space.key, len(space.cardinalities))
    # IS: what is NULL where a row says nothing of its space could not be summed.
    return f"(+space = ? AND (space_key IS ? OR ({unknown})))", values


@contextlib.contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Whatever other processes write meanwhile, all queries inside see the same."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def _grouped(iterations: dict[str, Any]) -> tuple[list[Group], np.ndarray]:
    """(the G groups, the number [I] of each iteration's)."""
    task, protocol, steps = (iterations[name] for name in ("task", "protocol", "steps"))
    every = np.stack([task.place, protocol.place, steps], axis=1)
    different, number = np.unique(every, axis=0, return_inverse=True)
    groups = [Group(task.different[t], protocol.different[p], s) for t, p, s in different.tolist()]
    return groups, number.reshape(-1)


def _others(iterations: dict[str, Any], space: Space, taken: int) -> dict[str, int]:
    """{name: measured rows of other spaces}, of which one may have the name of `space`."""
    names: Texts = iterations["space"]
    found = {
        name: int(iterations["measured"][names.place == i].sum())
        for i, name in sorted(enumerate(names.different), key=lambda pair: pair[1])
    }
    found[space.name] = found.get(space.name, 0) - taken
    return {name: count for name, count in found.items() if count}
