"""Files that are whole or not there, and one sentence where a disk refuses them.

A file is written as the draft `.NAME.PID` beside it, which takes its name when it is safe. Drafts
that killed processes have left are removed by the next one that writes there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from typing import IO, Any

from fnas_jax.core.types import Failed, UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
BROKEN = (errno.EIO, errno.ESTALE, errno.ENODEV)
# What SQLite says, by its primary code.
OF_SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
}
_ONCE = "the same command goes on once there is room"
LEAST_FREE = 64 * 1024  # bytes
ABANDONED = 60.0  # seconds after which a draft is nobody's: one is written in a moment


class Refused(Failed, OSError):
    """A disk has refused what was to be written; what it says tells where and why."""


@contextlib.contextmanager
def at(place: str | pathlib.Path, texts: bool = False) -> Iterator[None]:
    """Raises `Refused` where writing inside fails by the disk of `place`; other errors as ever.

    `texts`: also where only an error's text says so, as of libraries in other languages.
    """
    try:
        yield
    except Exception as error:
        refused = refusal(error, place, writing=True, texts=texts)
        if refused is None or isinstance(error, Failed):
            raise
        raise refused from error


def refusal(
    error: BaseException,
    place: str | pathlib.Path = "",
    writing: bool = False,
    texts: bool = False,
) -> Refused | None:
    """What to tell of `error`, where a disk is at the root of it; None where none is.

    `writing`: what failed did nothing else. `texts`: as `at` has it.
    """
    for cause in _chain(error):
        if isinstance(cause, Refused):
            return cause
    for cause in _chain(error, handled=writing):
        number = _number(cause, texts)
        if number is not None:
            named = getattr(cause, "filename", None)
            where = named if isinstance(named, str) else os.fspath(place)
            if number == errno.EIO and _is_full(where):
                number = errno.ENOSPC
            refused = Refused(_sentence(number, where))
            refused.errno = number
            return refused
    return None


def unusable(what: str, error: OSError) -> Failed | UserError:
    """What to raise of what was to be used first: wrong input, unless its disk is full.

    `what` says what cannot be done, as "workdir 'w' cannot be written".
    """
    number = next((n for n in map(_number, _chain(error, handled=False)) if n in FULL), None)
    if number is None:
        return UserError(f"{what}: {error.strerror or error}")
    return Refused(f"{what}: {os.strerror(number)}; {_ONCE}")


@contextlib.contextmanager
def replacing(path: pathlib.Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that becomes `path` when the context ends well: readers see the old or the new one.

    Texts are UTF-8, whatever the locale. Raises `Refused` where its disk does not take it; then,
    too, no draft is left.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with at(path):
        try:
            for old in drafts(path.parent, path.name):
                if age(old) > ABANDONED:
                    old.unlink(missing_ok=True)
            with draft.open(mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def drafts(folder: pathlib.Path, name: str = "") -> list[pathlib.Path]:
    """The drafts in `folder`, of the file `name` or of all, which may be files of others, too."""
    pattern = re.compile(rf"\.{re.escape(name) or '.+'}\.\d+")
    return [path for path in folder.glob(".*") if pattern.fullmatch(path.name)]


def age(path: pathlib.Path) -> float:
    """Seconds since a file, or the list of a folder, was changed; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def sweep(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Removes the drafts of the files `names`, which nobody else writes in this folder."""
    for path in (draft for name in names for draft in drafts(folder, name)):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _sentence(number: int, place: str) -> str:
    what = repr(place) if place else "what was to be written"
    if number in FULL:
        full = "is full" if number == errno.ENOSPC else "has no room left in its quota"
        return f"the disk of {what} {full}; {_ONCE}"
    if number == errno.EROFS:
        return f"the disk of {what} is read-only; the same command goes on once it can be written"
    if number == errno.EBUSY:
        return f"{what} is kept locked by another process; the same command goes on once it is not"
    reason = os.strerror(number)
    return f"{what} cannot be written or read: {reason}; the same command goes on once it can be"


def _chain(error: BaseException | None, handled: bool = True) -> Iterator[BaseException]:
    """`error`, those that it comes from, and those that it is a group of.

    `handled`: also those in whose handling another one was raised, which may be a bug there; of
    disks and databases it is the next call that fails, in any case.
    """
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        found = waiting.pop(0)
        if found is None or any(found is one for one in seen):
            continue
        seen.append(found)
        yield found
        waiting += [found.__cause__, *getattr(found, "exceptions", ())]
        followed = handled or isinstance(found, OSError | sqlite3.Error)
        if followed and not found.__suppress_context__:
            waiting.append(found.__context__)


def _number(error: BaseException, texts: bool = False) -> int | None:
    """The number of what a disk says by `error`; None where it is of something else."""
    known = (*FULL, *CLOSED, *BROKEN)
    if isinstance(error, OSError):
        return error.errno if error.errno in known else None
    if isinstance(error, sqlite3.Error):
        return OF_SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    if not texts:
        return None
    return next((number for number in known if os.strerror(number) in str(error)), None)


def _is_full(place: str) -> bool:
    """Whether there is next to no room, which SQLite takes for a fault of the disk."""
    try:
        found = os.statvfs(os.path.dirname(place) or ".")
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < LEAST_FREE
