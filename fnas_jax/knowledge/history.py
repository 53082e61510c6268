"""Every evaluation that any search has made, in one SQLite file that processes may share.

A row is an architecture on a task: measured (`trained` 1) or predicted by a critic (`trained` 0).
It says which space its decisions are of (`Space.key`) and by which protocol it was measured
(`Evaluator.protocol`): numbers of one task by two protocols are not comparable. Rows of earlier
versions know neither. Which rows other searches may learn from is the matter of `sources`.

A run writes the rows of an iteration in one transaction before its checkpoint of that iteration,
and on resume trims what lies beyond the checkpoint: each evaluation stands exactly once.
"""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core import disk, identity, jsons
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import columns, schema
from fnas_jax.spaces.base import Space

FILE = "history.sqlite"  # in the knowledge folder
NUMBERS = ("accuracy", "reward", "latency_ms", "mflops", "params_m", "seconds")
# What is read of the columns of a row, as `columns.read` has it
KINDS = {
    "decisions": list,
    "trained": bool,
    "ok": bool,
    **dict.fromkeys(NUMBERS, float),
    "task": str,
    "run": str,
    "protocol": str,
    "steps": np.int64,
    "stopped": np.int64,
}

# The rows of an iteration are of one task, space and moment (`record`), and stand in one place: by
# iterations first, little has to be sorted.
ITERATION = "run, iteration"


class Run(NamedTuple):
    """What is the same for all rows of a search."""

    id: str
    space: str
    task: str
    steps: int
    seed: int
    versions: dict[str, str]
    space_identity: str = ""  # `Space.identity`; "": unknown
    protocol: str = ""  # `Evaluator.protocol`; "": unknown
    method: str = ""  # its name; "": unknown


class Row(NamedTuple):
    """One evaluation; unknown numbers are NaN."""

    position: int
    decisions: Sequence[int]
    trained: bool
    ok: bool
    accuracy: float
    reward: float
    latency_ms: float
    mflops: float
    params_m: float
    seconds: float
    stopped: int = 0  # as `Metrics.stopped`


class Rows(NamedTuple):
    """R rows as arrays, in the order in which they were written."""

    decisions: np.ndarray  # [R, T] int32
    trained: np.ndarray  # [R] bool
    ok: np.ndarray  # [R] bool
    accuracy: np.ndarray  # [R] float64, and so the next five; NaN where unknown
    reward: np.ndarray
    latency_ms: np.ndarray
    mflops: np.ndarray
    params_m: np.ndarray
    seconds: np.ndarray
    task: np.ndarray  # [R] str
    run: np.ndarray  # [R] str
    protocol: np.ndarray  # [R] str digest of it, "" where unknown
    steps: np.ndarray  # [R] int64 training steps of a child
    stopped: np.ndarray  # [R] int64 steps after which it was stopped early; 0: it was not
    known: np.ndarray  # [R] bool: the row says which space it is of, not only its name


class Group(NamedTuple):
    """The rows of one task, protocol and space."""

    task: str
    protocol: str  # digest, "" where unknown
    settings: str  # canonical JSON of which it is the digest
    space: str  # name
    space_key: str  # "" where unknown
    measured: int
    failed: int  # of these
    predicted: int
    runs: int  # that made them


def open_(folder: str | pathlib.Path) -> sqlite3.Connection:
    """The store in `folder`/FILE, created where it is missing. Raises OSError."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # isolation_level None: transactions are exactly the BEGINs below. A writer waits for others
        # for up to a minute.
        connection = sqlite3.connect(folder / FILE, timeout=60, isolation_level=None)
        connection.execute("PRAGMA busy_timeout = 60000")
        # Switching to WAL can meet a lock that no timeout covers: another process switching.
        for attempt in range(100):
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                if attempt == 99:
                    raise
                time.sleep(0.05)
        connection.execute("PRAGMA synchronous = FULL")
        schema.prepare(connection)
    except UnicodeDecodeError:  # what Python makes of SQLite's message that quotes such a text
        raise OSError(f"{folder / FILE}: a text in it is no UTF-8") from None
    except sqlite3.DatabaseError as error:
        raise disk.refusal(error, folder / FILE) or OSError(f"{folder / FILE}: {error}") from error
    return connection


def record(connection: sqlite3.Connection, run: Run, iteration: int, rows: Sequence[Row]) -> None:
    """Writes the rows of one iteration in one transaction; rows already there are replaced."""
    same = {
        "run": run.id,
        "iteration": iteration,
        "space": run.space,
        "task": run.task,
        "steps": run.steps,
        "seed": run.seed,
        "versions": json.dumps(run.versions, sort_keys=True),
        "time": time.time(),
        "space_key": _digest(run.space_identity),
        "protocol": _digest(run.protocol),
        "method": run.method or None,
    }
    own = ("position", "decisions", "trained", "ok", *NUMBERS, "stopped")
    values = []
    for row in rows:
        arch = json.dumps([int(d) for d in row.decisions])
        numbers = (_null(getattr(row, name)) for name in NUMBERS)
        flags = int(row.trained), int(row.ok)
        values.append((*same.values(), row.position, arch, *flags, *numbers, row.stopped or None))
    names = (*same, *own)
    described = [(_digest(t), t) for t in (run.space_identity, run.protocol) if t]
    insert = (
        f"INSERT OR REPLACE INTO evaluations ({', '.join(names)})"
        f" VALUES ({', '.join('?' * len(names))})"
    )
    with schema.transaction(connection):
        connection.executemany("INSERT OR IGNORE INTO descriptions VALUES (?, ?)", described)
        connection.executemany(insert, values)


def trim(connection: sqlite3.Connection, run_id: str, iteration: int) -> None:
    """Deletes the rows of run `run_id` from `iteration` on."""
    statement = "DELETE FROM evaluations WHERE run = ? AND iteration >= ?"
    with schema.transaction(connection):
        connection.execute(statement, (run_id, iteration))


def rows(
    connection: sqlite3.Connection,
    space: Space | str,
    task: str | None = None,
    trained: bool | None = True,
    run_id: str | None = None,
    until: float = math.inf,
) -> Rows:
    """The rows of `space`, by default the measured ones; None for a filter takes all.

    `until` (seconds since 1970) leaves out what was written later. Rows that say no more of their
    space than its name are taken where their decisions are those of `space`. Raises UserError for
    the name of a space where the rows of that name are of several numbers of decisions.
    """
    # The rows of a space lie everywhere: the file as a whole is read faster than by an index.
    where: list[str] = ["space = ?" if task is not None else "+space = ?", "time <= ?"]
    values: list[str | float] = [space if isinstance(space, str) else space.name, until]
    for name, value in (("task", task), ("trained", trained), ("run", run_id)):
        if value is not None:
            where.append(f"{name} = ?")
            values.append(value)
    if not isinstance(space, str):
        unknown = "space_key IS NULL AND json_array_length(decisions) = ?"
        where.append(f"(space_key = ? OR ({unknown}))")
        values += [space.key, len(space.cardinalities)]
    kept = ("coalesce(stopped, 0)" if name == "stopped" else name for name in KINDS)
    fields = (*kept, "space_key IS NOT NULL", "time")
    # In the order of the primary key, which costs nothing; times are nearly in order then.
    cursor = connection.execute(
        f"SELECT {', '.join(fields)} FROM evaluations WHERE {' AND '.join(where)}"
        " ORDER BY run, iteration, position",
        values,
    )
    with damage_told():
        found, lengths = columns.read(cursor, KINDS | {"known": bool, "time": float})
    if len(lengths) > 1:
        raise UserError(
            f"the history holds rows of several spaces named {values[0]!r}, with"
            f" {', '.join(map(str, sorted(lengths)))} decisions; ask for those of one space"
        )
    order = np.argsort(found.pop("time"), kind="stable")
    if not isinstance(space, str) and len(order):
        archs = found["decisions"]
        fits = np.all((archs >= 0) & (archs < np.asarray(space.cardinalities)), axis=1)
        order = order[fits[order]]
    texts = {name: found[name].whole() for name, kind in KINDS.items() if kind is str}
    return Rows(**{name: (found | texts)[name][order] for name in Rows._fields})


@contextlib.contextmanager
def damage_told() -> Iterator[None]:
    """Values that `columns.read` cannot read inside are a UserError: damage of the file."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:  # SQLite keeps any value anywhere
        raise UserError(f"a row of the history is damaged: {error}") from error


def identity_of(connection: sqlite3.Connection, run_id: str) -> str:
    """`Space.identity` of the space that run `run_id` searches; "" where it has written no row."""
    query = (
        "SELECT digest, text FROM evaluations JOIN descriptions ON digest = space_key"
        " WHERE run = ? LIMIT 1"
    )
    found = connection.execute(query, (run_id,)).fetchone()
    return _described(*found) if found else ""


def space_of(connection: sqlite3.Connection, run_id: str) -> str | None:
    """The name of the space that run `run_id` searches; None where it has written no row."""
    query = "SELECT space FROM evaluations WHERE run = ? LIMIT 1"
    found = connection.execute(query, (run_id,)).fetchone()
    return found[0] if found else None


def best(connection: sqlite3.Connection, run_id: str) -> list[int] | None:
    """The decisions of the measured row of highest reward of run `run_id`; None where none is."""
    query = (
        "SELECT decisions FROM evaluations WHERE run = ? AND trained AND ok AND reward IS NOT NULL"
        " AND coalesce(stopped, 0) = 0"
        " ORDER BY reward DESC, iteration, position LIMIT 1"
    )
    found = connection.execute(query, (run_id,)).fetchone()
    return None if found is None else decisions(found[0])


def decisions(text: Any) -> list[int]:
    """Those of a row, as it has them. Raises UserError where they are none."""
    try:
        found = jsons.parse(text)
    except (ValueError, TypeError) as error:
        raise UserError(f"a row of the history is damaged: {error}") from None
    if not jsons.fits(found, [int]):
        raise UserError(f"a row of the history is damaged: its decisions are {text!r:.80}")
    return found


def words(space: Space, arch: Sequence[int]) -> str:
    """The architecture of a row as `space` tells it. Raises UserError where it has no such one."""
    most = space.cardinalities
    if len(arch) != len(most) or not all(0 <= a < n for a, n in zip(arch, most, strict=True)):
        raise UserError(f"a row of the history is damaged: its decisions are {list(arch)!r:.80}")
    return space.describe(arch)["text"]


def count_trained(connection: sqlite3.Connection, run_id: str) -> int:
    """How many architectures run `run_id` has measured."""
    query = "SELECT count(*) FROM evaluations WHERE run = ? AND trained"
    return connection.execute(query, (run_id,)).fetchone()[0]


def seconds(connection: sqlite3.Connection, run_id: str) -> float:
    """How many seconds the rows that run `run_id` has measured took, as far as that is known."""
    query = "SELECT seconds FROM evaluations WHERE run = ? AND trained AND seconds IS NOT NULL"
    with damage_told():
        return math.fsum(value for (value,) in connection.execute(query, (run_id,)))


def count(connection: sqlite3.Connection, run_id: str) -> int:
    """How many rows run `run_id` has written, measured and predicted ones."""
    query = "SELECT count(*) FROM evaluations WHERE run = ?"
    return connection.execute(query, (run_id,)).fetchone()[0]


def groups(connection: sqlite3.Connection) -> list[Group]:
    """What the store holds, by task, protocol and space."""
    iterations = (
        "SELECT run, task, protocol, space, space_key, min(time) AS time, sum(trained) AS measured,"
        " sum(trained AND NOT ok) AS failed, sum(NOT trained) AS predicted"
        f" FROM evaluations GROUP BY {ITERATION}"
    )
    query = (
        "SELECT task, coalesce(protocol, ''), coalesce(text, ''), space, coalesce(space_key, ''),"
        " sum(measured), sum(failed), sum(predicted), count(DISTINCT run)"
        f" FROM ({iterations}) LEFT JOIN descriptions ON digest = protocol"
        " GROUP BY task, protocol, space, space_key ORDER BY task, space, min(time)"
    )
    found = [Group(*row) for row in connection.execute(query)]
    for group in found:
        if not all(isinstance(text, str) for text in group[:5]):
            raise sqlite3.DatabaseError(f"the names of a row are {group[:5]}")
        if group.settings:
            _described(group.protocol, group.settings)
    return found


def descriptions(connection: sqlite3.Connection) -> dict[str, str]:
    """The canonical JSON behind each digest of a space or a protocol."""
    found = connection.execute("SELECT digest, text FROM descriptions").fetchall()
    return {digest: _described(digest, text) for digest, text in found}


def _described(digest: str, text: str) -> str:
    """`text`. Raises what SQLite raises of damage where `digest` is that of another one."""
    if not isinstance(text, str) or _digest(text) != digest:
        raise sqlite3.DatabaseError(f"the text that {digest} stands for is another one")
    return text


def _digest(text: str) -> str | None:
    return identity.digest(text) if text else None


def _null(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
