"""What a history holds, row by row: of all searches that have written to it, or of some."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, sources
from fnas_jax.spaces import known

# Of a row, in this order
COLUMNS = {
    **dict.fromkeys(("task", "space", "method", "run"), str),
    **dict.fromkeys(("iteration", "position"), int),
    "text": str,
    "arch": list,
    **dict.fromkeys(("trained", "ok"), bool),
    "metric": str,
    **dict.fromkeys(("value", *history.NUMBERS), float),
    **dict.fromkeys(("steps", "stopped", "seed"), int),
    "protocol": str,
    "time": float,
    "space_key": str,  # "": unknown
}
IMPORTED = "imported"  # the method of rows that no search has made


class Asked(NamedTuple):
    """Which rows; "" and 0: all."""

    task: str = ""
    space: str = ""  # its name
    method: str = ""
    # Of each task, protocol and space so many networks, measured in full, each once
    best: int = 0


def rows(connection: sqlite3.Connection, asked: Asked) -> Iterator[dict[str, Any]]:
    """The rows that are `asked` for, as dicts of COLUMNS, None where a number is unknown.

    By task, space and protocol; in these the best first, or in the order of the searches. `value`
    is the metric as the task has it, of a loss the loss; None where it is not known what the
    numbers measure. Raises UserError where none is of the task, space or method, with those that
    there are.
    """
    check(connection, asked)
    given = {"task": asked.task, "space": asked.space, "method": asked.method}
    where = [f"{name} = ?" for name, value in given.items() if value]
    values: list[Any] = [value for value in given.values() if value]
    of = "task, space, coalesce(space_key, ''), coalesce(protocol, '')"
    names = (
        "task, space, coalesce(method, ''), run, iteration, position, decisions, trained, ok,"
        f" {', '.join(history.NUMBERS)}, steps, nullif(stopped, 0), seed,"
        " coalesce(protocol, '') AS protocol, time, coalesce(space_key, '') AS space_key"
    )
    if asked.best:
        where += ["trained", "ok", "accuracy IS NOT NULL", "coalesce(stopped, 0) = 0"]
        order = "ORDER BY accuracy DESC, run, iteration, position"
        once = (
            f"SELECT *, row_number() OVER (PARTITION BY {of}, decisions {order}) AS again"
            f" FROM evaluations WHERE {' AND '.join(where)}"
        )
        ranked = (
            f"SELECT *, row_number() OVER (PARTITION BY {of} {order}) AS place"
            f" FROM ({once}) WHERE again = 1"
        )
        query = f"SELECT {names} FROM ({ranked}) WHERE place <= ? ORDER BY {of}, place"
        values.append(asked.best)
    else:
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        query = f"SELECT {names} FROM evaluations {condition} ORDER BY {of}, time, run, iteration"
        query += ", position"
    texts = history.descriptions(connection)
    described: dict[str, Callable[[list[int]], str]] = {}
    measured: dict[str, Any] = {}
    for row in connection.execute(query, values):
        *start, text, trained, ok = row[:9]
        numbers, (*counts, protocol, when, key) = row[9:-6], row[-6:]
        arch = history.decisions(text)
        if key not in described:
            described[key] = words(texts.get(key, ""))
        if protocol not in measured:
            measured[protocol] = sources.measure_of(texts.get(protocol, ""))
        measure = measured[protocol]
        accuracy = numbers[0]
        unknown = measure is None or not ok or accuracy is None
        found = [
            *(*start, described[key](arch), arch, bool(trained), bool(ok)),
            *(None if measure is None else measure.name, None),
            *(*numbers, *counts, protocol, when, key),
        ]
        line = dict(zip(COLUMNS, found, strict=True))
        yield line | ({} if unknown else {"value": measure.sign * accuracy})


def check(connection: sqlite3.Connection, asked: Asked) -> None:
    """Raises UserError where a name that is asked for is that of no row."""
    for name in ("task", "space", "method"):
        wanted = getattr(asked, name)
        if not wanted:
            continue
        query = f"SELECT DISTINCT {name} FROM evaluations WHERE {name} IS NOT NULL ORDER BY 1"
        there = [str(value) for (value,) in connection.execute(query)]
        if wanted not in there:
            listed = ", ".join(there) or "none"
            raise UserError(
                f"--{name} is {wanted!r}, of which the store has no row; it has"
                f" {listed}{nearest(wanted, there)}"
            )


def words(identity: str) -> Callable[[list[int]], str]:
    """What says an architecture of the space with this identity, as far as that tells it."""
    space = known.alike(identity)
    if space is None:
        return lambda arch: ",".join(map(str, arch))
    return lambda arch: history.words(space, arch)
