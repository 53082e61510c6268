"""The tables of the history, and how files of earlier versions get what they lack.

Every column was there from the first version on, or may be NULL: unknown.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator

from fnas_jax.core import disk

# In the order in which they are made; an index comes after the columns that it needs.
TABLES = {
    "evaluations": """
CREATE TABLE IF NOT EXISTS evaluations (
    run TEXT NOT NULL,            -- id of the search that made the row
    iteration INTEGER NOT NULL,
    position INTEGER NOT NULL,    -- index within the proposals of the iteration
    space TEXT NOT NULL,          -- its name
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
) WITHOUT ROWID""",
    "tasks": """
CREATE TABLE IF NOT EXISTS tasks (
    task TEXT PRIMARY KEY,        -- task_data.data_key
    statistics TEXT NOT NULL      -- JSON object of numbers that describe its data
) WITHOUT ROWID""",
    "samples": """
CREATE TABLE IF NOT EXISTS samples (
    task TEXT PRIMARY KEY,        -- task_data.data_key
    shape TEXT NOT NULL,          -- JSON list: classes, images of each, height, width, channels
    images BLOB NOT NULL          -- uint8, in that order
)""",
    "descriptions": """
CREATE TABLE IF NOT EXISTS descriptions (
    digest TEXT PRIMARY KEY,      -- evaluations.space_key or evaluations.protocol
    text TEXT NOT NULL            -- canonical JSON of which it is the digest
) WITHOUT ROWID""",
}
# Columns of `evaluations` that the first version did not have, and what they hold.
ADDED = {
    "space_key": "TEXT",  # digest of the full description of the space
    "protocol": "TEXT",  # digest of all that makes the numbers of a task comparable
    "method": "TEXT",  # its name, "imported" of rows that no search has made
    "stopped": "INTEGER",  # steps after which a child was stopped early; NULL or 0: it was not
}
# Of the file (PRAGMA user_version), which earlier versions left at 0; to be counted up with a
# change that they would misread. A column more is none: they name those that they write.
FORMAT = 1
INDICES = ("CREATE INDEX IF NOT EXISTS evaluations_by_task ON evaluations (space, task)",)


def prepare(connection: sqlite3.Connection) -> None:
    """Makes what is missing, in one transaction, so that others see all of it or nothing.

    Processes that open a file at once take turns: whoever comes second finds it done. Rows stay as
    they are. The connection must have `isolation_level` None. Raises OSError for a file of a later
    version, which stays as it is.
    """
    if refuse_later(connection) == FORMAT and _complete(connection):
        return
    with transaction(connection):
        for statement in (*TABLES.values(), *INDICES):
            connection.execute(statement)
        for column in missing(connection):
            connection.execute(f"ALTER TABLE evaluations ADD COLUMN {column} {ADDED[column]}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def refuse_later(connection: sqlite3.Connection) -> int:
    """The format of the file. Raises OSError for that of a later version."""
    format_ = connection.execute("PRAGMA user_version").fetchone()[0]
    if format_ > FORMAT:
        raise OSError(
            f"it was written by a later version of fnas_jax (format {format_} there, {FORMAT} here)"
        )
    return format_


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside, or nothing; `isolation_level` of the connection is None.

    Raises `disk.Refused` where the disk of its file does not take it.
    """
    with disk.at(connection.execute("PRAGMA database_list").fetchone()[2]):
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("COMMIT")
        except BaseException:
            # On a full disk SQLite has rolled back itself; interrupted, it may not have begun.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def copy(source: sqlite3.Connection, target: sqlite3.Connection, tables: Iterable[str]) -> None:
    """Writes the rows of these `tables` of `source` into `target`, in place of equal keys."""
    with transaction(target):
        for table in tables:
            for row in source.execute(f"SELECT * FROM {table}"):
                places = ", ".join("?" * len(row))
                target.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", row)


def missing(connection: sqlite3.Connection) -> list[str]:
    """Columns of `ADDED` that the file does not have yet."""
    found = {row[1] for row in connection.execute("PRAGMA table_info(evaluations)")}
    return [column for column in ADDED if column not in found]


def _complete(connection: sqlite3.Connection) -> bool:
    query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'index')"
    names = {name for (name,) in connection.execute(query)}
    return names >= {*TABLES, "evaluations_by_task"} and not missing(connection)
