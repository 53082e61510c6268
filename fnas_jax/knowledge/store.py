"""The history in a folder, opened for as long as it is needed, with one sentence where it cannot.

A search that has not begun leaves none: until then it works on what is there, or on an empty
history in memory.
"""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterator

from fnas_jax.core import disk
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, schema


@contextlib.contextmanager
def opened(folder: pathlib.Path) -> Iterator[sqlite3.Connection]:
    """The history in `folder`, created where it is missing. Raises UserError."""
    try:
        connection = history.open_(folder)
    except OSError as error:
        raise disk.unusable(f"knowledge folder {str(folder)!r} cannot be used", error) from None
    with contextlib.closing(connection):
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            raise UserError(
                f"the history {str(folder / history.FILE)!r} is damaged ({error}): put a copy of"
                " before in its place, or move it away and start a new search"
            ) from None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether it is of the file's content: a full disk and the like have classes of their own.

    Texts that are no UTF-8 or no JSON, and columns of other names, share theirs with wrong SQL.
    """
    texts = ("Could not decode to UTF-8", "malformed JSON")
    names = ("no such column", "no such table", "table evaluations has no column")
    return type(error) is sqlite3.DatabaseError or str(error).startswith((*texts, *names))


@contextlib.contextmanager
def existing(folder: pathlib.Path) -> Iterator[sqlite3.Connection]:
    """The history in `folder`, where nothing is created. Raises UserError where there is none."""
    if not exists(folder):
        raise UserError(f"there is no knowledge store in {str(folder)!r}: it has no {history.FILE}")
    with opened(folder) as connection:
        yield connection


@contextlib.contextmanager
def tentative(folder: pathlib.Path) -> Iterator[sqlite3.Connection]:
    """The history in `folder`, or an empty one in memory where there is none. Raises UserError."""
    if exists(folder):
        with opened(folder) as connection:
            yield connection
        return
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.prepare(connection)
        yield connection


@contextlib.contextmanager
def settled(before: sqlite3.Connection, folder: pathlib.Path) -> Iterator[sqlite3.Connection]:
    """The history in `folder` on disk, with what `before`, a `tentative` one, was told of tasks."""
    if before.execute("PRAGMA database_list").fetchone()[2]:  # the path of its file
        yield before
        return
    with opened(folder) as connection:
        schema.copy(before, connection, ("tasks", "samples"))
        yield connection


def exists(folder: pathlib.Path) -> bool:
    """Whether there is a history in `folder`."""
    return (folder / history.FILE).exists()
