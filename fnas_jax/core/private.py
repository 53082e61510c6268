"""Folders whose content is run as code: nobody else may write there.

A cache of libraries or of compiled programs is loaded without a question, so that whoever can put a
file into it runs code as the user who loads it.
"""

from __future__ import annotations

import os
import pathlib
import stat

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class NotPrivate(OSError):
    """A file or folder that others may have written, in one sentence."""


def folder(path: pathlib.Path, links: bool = False) -> None:
    """Makes the folder `path` for its user alone, or checks the one that is there.

    `links`: whether it may be a symbolic link, of which the target is checked. Raises NotPrivate
    where others own it or may write there, and OSError where it cannot be made.
    """
    for part in reversed((path, *path.parents)):  # `parents=True` makes these by the umask
        if not part.exists():
            part.mkdir(mode=0o700, exist_ok=True)
    found = os.stat(path) if links else os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise NotPrivate(f"{path} is a symbolic link")
    check(found, path)


def check(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Raises NotPrivate unless what `found` is of is this user's, and no one else's to write.

    `path` is what the error calls it.
    """
    if found.st_uid != os.getuid():
        raise NotPrivate(f"{path} belongs to another user (number {found.st_uid})")
    if found.st_mode & _OTHERS:
        raise NotPrivate(f"others may write to {path}: chmod go-w takes that away")
