"""Several stores as one: their histories, each row once. What was trained stays where it is.

Blocks of a pool are means over the children that have trained them; those of two pools that have
once been copies of one would count twice, and nothing in them says so. So pools and meta-learnt
kernels are not merged, which is told.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fnas_jax.core import disk
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, reading, schema, surrogates

OTHERS = ("pool", surrogates.FOLDER)  # beside the history, of which nothing is taken
# What is the same of one row in two copies of a store.
SAME = ("decisions", "trained", "ok", "accuracy", "latency_ms", "mflops", "params_m", "task")


class Merged(NamedTuple):
    """What became of the stores."""

    rows: int  # in the new one
    taken: tuple[int, ...]  # from each
    doubled: int  # that several had
    differing: int  # of these, with other numbers: the first store's stand
    left: tuple[str, ...]  # folders of which nothing was taken


def merge(folders: Sequence[pathlib.Path], out: pathlib.Path) -> Merged:
    """Writes the rows of the stores in `folders` into a new one in `out`, in one step.

    The stores stay as they are, to the last byte; earlier formats are brought up to date in the new
    one. A row is known by its search, iteration and position: of copies of a store each is taken
    once. Raises UserError where one is none, or `out` has one already.
    """
    if (out / history.FILE).exists():
        raise _taken(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out is {str(out)!r}, which is no folder")
    places = [folder.resolve() for folder in folders]
    twice = next(
        (f for f, place in zip(folders, places, strict=True) if places.count(place) > 1), None
    )
    if twice is not None:
        raise UserError(f"the store {str(twice)!r} is given twice")
    new = not out.exists()
    draft = out / f".{history.FILE}.{os.getpid()}"
    try:
        with disk.at(out):
            out.mkdir(parents=True, exist_ok=True)
            for old in disk.drafts(out, history.FILE):
                if disk.age(old) > disk.ABANDONED:
                    old.unlink(missing_ok=True)
            found = _fill(folders, draft)
            os.link(draft, out / history.FILE)  # a store that was made there meanwhile stays
    except FileExistsError:
        raise _taken(out) from None
    finally:
        for path in (draft, draft.with_name(f"{draft.name}-journal")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        if new and not (out / history.FILE).exists():
            with contextlib.suppress(OSError):
                out.rmdir()
    left = [str(f / name) for f in folders for name in OTHERS if (f / name).is_dir()]
    return found._replace(left=tuple(left))


def _taken(out: pathlib.Path) -> UserError:
    return UserError(f"there is a knowledge store in {str(out)!r} already: --out is a new folder")


def _fill(folders: Sequence[pathlib.Path], draft: pathlib.Path) -> Merged:
    taken, there, differing = [], 0, 0
    with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as target:
        schema.prepare(target)
        for folder in folders:
            with modern(folder) as source:
                there += source.execute("SELECT count(*) FROM evaluations").fetchone()[0]
                before = _count(target)
                differing += _add(target, source)
                taken.append(_count(target) - before)
        rows = _count(target)
    return Merged(rows, tuple(taken), there - rows, differing, ())


@contextlib.contextmanager
def modern(folder: pathlib.Path) -> Iterator[sqlite3.Connection]:
    """A copy of the history in `folder` as today's format has it, a temporary one. UserError."""
    path = folder / history.FILE
    if not path.exists():
        raise UserError(f"there is no knowledge store in {str(folder)!r}: it has no {history.FILE}")
    try:
        with reading.copied(folder) as copy:
            yield copy
    except (sqlite3.DatabaseError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, disk.Refused):
            raise
        raise UserError(f"the history {str(path)!r} cannot be read: {error}") from None


def _add(target: sqlite3.Connection, source: sqlite3.Connection) -> int:
    """Writes what `target` lacks of `source`; how many rows that both have differ."""
    columns = [row[1] for row in source.execute("PRAGMA table_info(evaluations)")]
    known = {row[1] for row in target.execute("PRAGMA table_info(evaluations)")}
    names = [name for name in columns if name in known]
    places = [names.index(name) for name in SAME]
    query = f"SELECT {', '.join(SAME)} FROM evaluations WHERE run=? AND iteration=? AND position=?"
    key = [names.index(name) for name in ("run", "iteration", "position")]
    marks = ", ".join("?" * len(names))
    insert = f"INSERT OR IGNORE INTO evaluations ({', '.join(names)}) VALUES ({marks})"
    differing = 0
    with schema.transaction(target):
        for row in source.execute(f"SELECT {', '.join(names)} FROM evaluations"):
            if target.execute(insert, row).rowcount == 0:
                there = target.execute(query, [row[i] for i in key]).fetchone()
                differing += there != tuple(row[i] for i in places)
        for table in ("tasks", "samples", "descriptions"):
            for row in source.execute(f"SELECT * FROM {table}"):
                marks = ", ".join("?" * len(row))
                target.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)
    return differing


def _count(connection: sqlite3.Connection) -> int:
    return connection.execute("SELECT count(*) FROM evaluations").fetchone()[0]
