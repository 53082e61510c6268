"""Every evaluation that any search has made, in one SQLite file that processes may share.

A row is an architecture on a task: measured (`trained` 1) or predicted by a critic (`trained` 0).
A run writes the rows of an iteration in one transaction before its checkpoint of that iteration,
and on resume trims what lies beyond the checkpoint: each evaluation stands exactly once.
"""

from __future__ import annotations

import json
import math
import pathlib
import sqlite3
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fnas_jax.spaces.base import Space

SCHEMA = """
CREATE TABLE IF NOT EXISTS evaluations (
    run TEXT NOT NULL,            -- id of the search that made the row
    iteration INTEGER NOT NULL,
    position INTEGER NOT NULL,    -- index within the proposals of the iteration
    space TEXT NOT NULL,
    task TEXT NOT NULL,
    decisions TEXT NOT NULL,      -- JSON list of T whole numbers
    trained INTEGER NOT NULL,     -- 1: measured; 0: predicted
    ok INTEGER NOT NULL,          -- 0: training failed, or a table has no such entry
    accuracy REAL, reward REAL, latency_ms REAL, mflops REAL, params_m REAL,  -- NULL: unknown
    seconds REAL,
    steps INTEGER NOT NULL,       -- training steps of a child
    seed INTEGER NOT NULL,
    versions TEXT NOT NULL,       -- JSON object
    time REAL NOT NULL,           -- seconds since 1970
    PRIMARY KEY (run, iteration, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS evaluations_by_task ON evaluations (space, task);
CREATE TABLE IF NOT EXISTS tasks (
    task TEXT PRIMARY KEY,
    statistics TEXT NOT NULL      -- JSON object of numbers that describe its data
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (
    task TEXT PRIMARY KEY,
    shape TEXT NOT NULL,          -- JSON list: classes, images of each, height, width, channels
    images BLOB NOT NULL          -- uint8, in that order
);
"""

MIN_ROWS = 20  # fewer rows of other tasks teach nothing
NUMBERS = ("accuracy", "reward", "latency_ms", "mflops", "params_m", "seconds")


class Run(NamedTuple):
    """What is the same for all rows of a search."""

    id: str
    space: str
    task: str
    steps: int
    seed: int
    versions: dict[str, str]


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


def open_(folder: str | pathlib.Path) -> sqlite3.Connection:
    """The store in `folder`/history.sqlite, created where it is missing. Raises OSError."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # isolation_level None: transactions are exactly the BEGINs below. A writer waits for others
        # for up to a minute.
        connection = sqlite3.connect(folder / "history.sqlite", timeout=60, isolation_level=None)
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
        connection.executescript(SCHEMA)
    except sqlite3.DatabaseError as error:
        raise OSError(f"{folder / 'history.sqlite'}: {error}") from error
    return connection


def record(connection: sqlite3.Connection, run: Run, iteration: int, rows: Sequence[Row]) -> None:
    """Writes the rows of one iteration in one transaction; rows already there are replaced."""
    versions, now = json.dumps(run.versions, sort_keys=True), time.time()
    values = []
    for row in rows:
        arch = json.dumps([int(d) for d in row.decisions])
        key = (run.id, iteration, row.position, run.space, run.task, arch)
        numbers = (_null(getattr(row, name)) for name in NUMBERS)
        flags = (int(row.trained), int(row.ok))
        values.append((*key, *flags, *numbers, run.steps, run.seed, versions, now))
    marks = ", ".join("?" * 18)
    _transact(connection, f"INSERT OR REPLACE INTO evaluations VALUES ({marks})", values)


def trim(connection: sqlite3.Connection, run_id: str, iteration: int) -> None:
    """Deletes the rows of run `run_id` from `iteration` on."""
    statement = "DELETE FROM evaluations WHERE run = ? AND iteration >= ?"
    _transact(connection, statement, [(run_id, iteration)])


def rows(
    connection: sqlite3.Connection,
    space: str,
    task: str | None = None,
    trained: bool | None = True,
    run_id: str | None = None,
    until: float = math.inf,
    decisions: int | None = None,
) -> Rows:
    """The rows of `space`, by default the measured ones; None for a filter takes all.

    `until` (seconds since 1970) leaves out what was written later, `decisions` takes rows of that
    many only: spaces of one name may differ in it, and the rows must be of one length.
    """
    where: list[str] = ["space = ?", "time <= ?"]
    values: list[str | float] = [space, until]
    for name, value in (("task", task), ("trained", trained), ("run", run_id)):
        if value is not None:
            where.append(f"{name} = ?")
            values.append(value)
    if decisions is not None:
        where.append("json_array_length(decisions) = ?")
        values.append(decisions)
    fields = ("decisions", "trained", "ok", *NUMBERS, "task", "run")
    found = connection.execute(
        f"SELECT {', '.join(fields)} FROM evaluations WHERE {' AND '.join(where)}"
        " ORDER BY time, run, iteration, position",
        values,
    ).fetchall()
    columns = dict(zip(fields, zip(*found, strict=True), strict=True)) if found else {}
    archs = [json.loads(entry) for entry in columns.get("decisions", ())]
    numbers = {name: np.asarray(columns.get(name, ()), float) for name in NUMBERS}  # None -> NaN
    return Rows(
        decisions=np.asarray(archs, np.int32).reshape(len(found), -1 if found else 0),
        trained=np.asarray(columns.get("trained", ()), bool),
        ok=np.asarray(columns.get("ok", ()), bool),
        **numbers,
        task=np.asarray(columns.get("task", ()), str),
        run=np.asarray(columns.get("run", ()), str),
    )


def source_rows(
    connection: sqlite3.Connection, space: Space, task: str, until: float = math.inf
) -> Rows | None:
    """The measured, finite rows of other tasks than `task` whose architectures are of `space`.

    None where there are fewer than `MIN_ROWS`. A space of the same name may have been made with
    other options, so decisions that `space` does not have are left out.
    """
    found = rows(connection, space.name, until=until, decisions=len(space.cardinalities))
    decisions = found.decisions
    if not len(decisions):
        return None
    use = (found.task != task) & found.ok & np.isfinite(found.reward)
    use &= np.all((decisions >= 0) & (decisions < np.asarray(space.cardinalities)), axis=1)
    if use.sum() < MIN_ROWS:
        return None
    return Rows(*(column[use] for column in found))


def record_task(connection: sqlite3.Connection, task: str, statistics: dict[str, float]) -> None:
    """Writes the numbers that describe the data of a task, in place of those that were there."""
    values = [(task, json.dumps(statistics, sort_keys=True))]
    _transact(connection, "INSERT OR REPLACE INTO tasks VALUES (?, ?)", values)


def task_statistics(connection: sqlite3.Connection) -> dict[str, dict[str, float]]:
    """The numbers of every task that the store was told of."""
    found = connection.execute("SELECT task, statistics FROM tasks").fetchall()
    return {task: json.loads(text) for task, text in found}


def record_images(connection: sqlite3.Connection, task: str, images: np.ndarray) -> None:
    """Writes the sample uint8 [C, n, H, W, channels] of a task's training images."""
    values = [(task, json.dumps(images.shape), np.ascontiguousarray(images, np.uint8).tobytes())]
    _transact(connection, "INSERT OR REPLACE INTO samples VALUES (?, ?, ?)", values)


def task_images(connection: sqlite3.Connection) -> dict[str, np.ndarray]:
    """The samples of images of every task that the store was told of."""
    found = connection.execute("SELECT task, shape, images FROM samples").fetchall()
    return {
        task: np.frombuffer(images, np.uint8).reshape(json.loads(shape))
        for task, shape, images in found
    }


def _transact(connection: sqlite3.Connection, statement: str, values: list) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(statement, values)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _null(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
