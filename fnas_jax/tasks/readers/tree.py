"""Folders of a user's files: what is gone through, what is hidden, and links that lead back up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from fnas_jax.tasks.readers.examples import Tally

_SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"}
UP = "link to a folder above it"  # how tallies call it


def visible(name: str) -> bool:
    """Whether a file or folder of this name is a user's, not hidden nor an operating system's."""
    return not name.startswith(".") and name.lower() not in _SYSTEM


def leads_up(path: Path) -> bool:
    """Whether `path` is a link to a folder that it was come through, or to one above that.

    What lies there is no part of what `path` is in: all of a set would be in one of its classes.
    """
    if not path.is_symlink():
        return False
    target = path.resolve()
    # Not only where it lies: one that is come to by another link may lead above that.
    return any(passed.resolve().is_relative_to(target) for passed in path.absolute().parents)


def elsewhere(top: Path, paths: Iterable[Path]) -> list[Path]:
    """Those of `paths`, all below `top`, that links lead out of it."""
    real, known = top.resolve(), dict[Path, bool]()
    found = []
    for path in paths:
        if path.parent not in known:
            known[path.parent] = path.parent.resolve().is_relative_to(real)
        if path.is_symlink():
            if not path.resolve().is_relative_to(real):
                found.append(path)
        elif not known[path.parent]:
            found.append(path)
    return found


def folders(top: Path) -> Iterator[tuple[Path, list[str], list[str], list[str]]]:
    """(folder, sub-folders, files, links that lead up) of `top` and all below it, in order.

    Links to other folders are followed, each folder once. Sub-folders that the caller takes out of
    the list are not gone into.
    """
    seen = set()
    for place, inside, files in os.walk(top, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            inside.clear()
            continue
        seen.add(real)
        up = sorted(name for name in inside if leads_up(Path(place, name)))
        inside[:] = sorted(set(inside).difference(up))
        yield Path(place), inside, sorted(files), up


def walk(folder: Path, left: Tally) -> Iterator[Path]:
    """Visible files at any depth below `folder`, in order.

    Hidden entries and links that lead up are counted in `left`.
    """
    for place, inside, files, up in folders(folder):
        for name in (*inside, *files, *up):
            if not visible(name):
                left.add("hidden", place / name)
            elif name in up:
                left.add(UP, place / name)
        inside[:] = filter(visible, inside)
        yield from (place / name for name in files if visible(name))
