"""JAX's cache of compiled programs, with a digest in front of each: none is taken for another.

JAX itself reads whatever stands under the name of a program. One that was exchanged with another
computes other numbers without a word, and one that was damaged is told at every start and never
written again, or runs. Here it is told once, removed, and compiled and kept anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, Protocol

from fnas_jax.core import disk

LOG = logging.getLogger(__name__)
DIGEST = 32  # bytes in front of a program
NAME = "sealed"  # with which the names of entries begin: other programs of JAX read no such ones
OWN_DRAFT = re.compile(rf"\.{NAME}-.+-cache\.\d+")  # others keep files in such a folder, too


class Cache(Protocol):
    """What JAX asks for entries by their keys."""

    def get(self, key: str) -> bytes | None:
        """The entry, or None."""

    def put(self, key: str, value: bytes) -> None:
        """Keeps an entry."""


class Sealed:
    """The cache `base` of the folder `path`, which gives what was put and nothing else."""

    def __init__(self, base: Cache, path: pathlib.Path, bounded: bool = False):
        """`bounded`: `base` holds so many bytes at most, and writes by itself, under its lock."""
        self._base, self._path, self._bounded = base, path, bounded
        self._told: set[str] = set()

    def get(self, key: str) -> bytes | None:
        """The program `key`; None, and it is gone, where another content stands there."""
        name = f"{NAME}-{key}"
        try:
            stored = self._base.get(name)
        except OSError as error:
            self._tell("cannot be read", error)
            return None
        if stored is None:
            return None
        if stored[:DIGEST] == _digest(key, stored[DIGEST:]):
            return stored[DIGEST:]
        self._tell("are damaged or others, and are compiled anew", f"the first is {name}")
        with contextlib.suppress(OSError):
            _file(self._path, name).unlink(missing_ok=True)
        return None

    def put(self, key: str, value: bytes) -> None:
        """Keeps the program `key`, whole or not at all; what cannot be kept is told once."""
        name, content = f"{NAME}-{key}", _digest(key, value) + value
        try:
            if self._bounded:
                self._base.put(name, content)
            else:
                _write(_file(self._path, name), content)
        except OSError as error:
            self._tell("cannot be kept", error)

    def _tell(self, what: str, why: object) -> None:
        """Once, however many programs there are."""
        if what not in self._told:
            self._told.add(what)
            LOG.warning("compiled programs in %s %s (%s)", self._path, what, why)


def seal(path: pathlib.Path) -> bool:
    """Lets JAX keep programs in `path` as `Sealed` has them; False where this JAX cannot.

    A process has one cache: from here on it is this one, whichever JAX has used before.
    """
    try:
        from jax._src import compilation_cache as of_jax

        known = of_jax._cache
        if isinstance(known, Sealed) and known._path == path:
            return True
        if known is not None:
            of_jax.reset_cache()
        of_jax._initialize_cache()
        base: Any = of_jax._cache
        if type(base).__name__ == "LRUCache":  # the other kind compiles all anew, to compare
            of_jax._cache = Sealed(base, path, base.eviction_enabled)  # type: ignore[assignment]
    except (ImportError, AttributeError) as error:
        LOG.debug("no access to the cache of compiled programs: %s", error)
        return False
    for draft in disk.drafts(path):  # of processes that were killed
        if OWN_DRAFT.fullmatch(draft.name) and disk.age(draft) > disk.ABANDONED:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def unkept() -> Iterator[None]:
    """What this thread compiles inside is not kept on disk, where this JAX can do so."""
    try:
        from jax._src.config import persistent_cache_min_compile_time_secs as least

        off = least(math.inf)
    except (ImportError, TypeError) as error:
        LOG.warning("the program of each child is kept on disk, too: %s", error)
        off = contextlib.nullcontext()
    with off:
        yield


def _file(path: pathlib.Path, name: str) -> pathlib.Path:
    """Where JAX looks for an entry."""
    return path / f"{name}-cache"


def _write(path: pathlib.Path, content: bytes) -> None:
    """Whole or not at all for readers; what a crash of the system damages is known by its digest.

    So that nothing waits for the disk, of hundreds of small programs. Raises OSError.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _digest(key: str, program: bytes) -> bytes:
    return hashlib.blake2b(key.encode() + b"\0" + program, digest_size=DIGEST).digest()
