"""A history that is read and left as it is: nothing in its folder is made, changed or removed.

SQLite's own ways would leave files of its own there, or, where it may make none, pass over the rows
that stand in the log of a store (`-wal`) only, as the newest ones of a search that runs.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator

from fnas_jax.knowledge import history, schema

TRIES = 10  # to copy a history between two moments at which it is the same
# How a history can be read.
ALONE = "mode=ro&immutable=1"  # its log is empty; without locks
SHARED = "mode=ro"  # beside others, by locks in files of theirs
APART = ""  # a copy elsewhere, with its log, whose locks are gone: somebody has moved it


@contextlib.contextmanager
def opened(folder: pathlib.Path) -> Iterator[sqlite3.Connection]:
    """The history in `folder`, for queries alone; where it is written to, they may fail.

    Raises what `sqlite3` and files raise, and OSError for a history of a later version.
    """
    path = _path(folder)
    with _connected(path, _way(path)) as connection:
        schema.refuse_later(connection)
        yield connection


@contextlib.contextmanager
def copied(folder: pathlib.Path) -> Iterator[sqlite3.Connection]:
    """A temporary copy of the history in `folder`, as today's format has it. Raises as `opened`."""
    path = _path(folder)
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as copy:
        if not any(_copy(path, copy) for _ in range(TRIES)):
            raise OSError("others write to it all the time")
        schema.prepare(copy)
        yield copy


def _copy(path: pathlib.Path, copy: sqlite3.Connection) -> bool:
    """Whether `copy` is what the history is now; False where others have changed it meanwhile."""
    before, way = _stamps(path), _way(path)
    try:
        with _connected(path, way) as source:
            source.backup(copy)
    except (sqlite3.DatabaseError, OSError):
        if _stamps(path) == before:
            raise
        return False
    return way == SHARED or _stamps(path) == before


def _path(folder: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(os.path.realpath(folder / history.FILE))  # its log is beside it


def _beside(path: pathlib.Path, what: str) -> pathlib.Path:
    return path.with_name(f"{path.name}-{what}")


def _way(path: pathlib.Path) -> str:
    log = _stamps(path)[1]
    if _beside(path, "journal").exists():
        return SHARED
    if log is None or not log[0]:
        return ALONE
    return SHARED if _beside(path, "shm").exists() else APART


def _stamps(path: pathlib.Path) -> list[tuple[int, int] | None]:
    """(bytes, time of the last change) of the history and its log; None: not there."""
    found: list[tuple[int, int] | None] = []
    for file in (path, _beside(path, "wal")):
        try:
            about = file.stat()
        except OSError:
            found.append(None)
        else:
            found.append((about.st_size, about.st_mtime_ns))
    return found


@contextlib.contextmanager
def _connected(path: pathlib.Path, way: str) -> Iterator[sqlite3.Connection]:
    with contextlib.ExitStack() as stack:
        if way == APART:
            place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for file in (path, _beside(path, "wal")):
                shutil.copyfile(file, place / file.name)
            path = place / path.name
        address = f"{path.as_uri()}?{way}"
        yield stack.enter_context(contextlib.closing(sqlite3.connect(address, uri=True)))
