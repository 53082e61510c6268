"""A large part of a run's state, which stands beside its checkpoints and is on disk once.

`FOLDER/STEP/VERSION` is the part that the checkpoint of step STEP names by VERSION. Where a store
that outlives the run has just been given the same, its files are linked and take no room: however
many other runs write to the store and whatever they delete there, a link stays what it is. Each is
complete or not there, and written before the checkpoint that names it, so that a process killed in
between leaves the pair before.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from fnas_jax.core import checkpoint, disk

T = TypeVar("T")
LOG = logging.getLogger(__name__)
NONE = -1  # version of a part that is not on disk
OWN = 0  # and of one that no store has; those of stores begin with 1


def link(version: pathlib.Path, into: pathlib.Path) -> bool:
    """Whether the files of the folder `version` could be linked, whole, as `into`/VERSION."""
    try:
        with _complete(into) as folder:
            shutil.copytree(version, folder / version.name, copy_function=os.link)
    except OSError as error:  # another disk, or one without links
        # Of many files, the reason of the first one.
        reason = error.args[0][0][-1] if isinstance(error, shutil.Error) else error
        _warn(str(into.parent), str(version.parent), str(reason))
        return False
    return True


def write(folder: pathlib.Path, step: int, part: Any) -> int:
    """Stores `part` for the checkpoint of `step`; its version."""
    with (
        _complete(folder / str(step)) as place,
        contextlib.closing(checkpoint.open_(place)) as manager,
    ):
        checkpoint.save(manager, OWN, part)
    return OWN


def version_of(folder: pathlib.Path, step: int) -> int:
    """The version that stands there for `step`, or NONE."""
    found = [int(path.name) for path in (folder / str(step)).glob("[0-9]*")]
    return max(found, default=NONE)


def read(folder: pathlib.Path, step: int, version: int, template: T) -> T:
    """The part that the checkpoint of `step` names. Raises an error where it is not there whole."""
    if version_of(folder, step) != version:
        raise FileNotFoundError(f"version {version} is not in {str(folder / str(step))!r}")
    with contextlib.closing(checkpoint.open_(folder / str(step))) as manager:
        found = checkpoint.restore(manager, template)
    assert found is not None
    return found[1]


def prune(folder: pathlib.Path, steps: Sequence[int]) -> None:
    """Removes what belongs to no checkpoint of `steps`."""
    if not folder.exists():
        return
    names = {str(step) for step in steps}
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _complete(place: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder that becomes `place` when the context ends well."""
    part = place.with_name(f"{place.name}.part")
    for old in (part, place):
        shutil.rmtree(old, ignore_errors=True)
    try:
        with disk.at(place):
            part.mkdir(parents=True)
            yield part
            part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@functools.cache
def _warn(folder: str, store: str, reason: str) -> None:
    """Once a process, although every checkpoint meets the same disk."""
    LOG.warning(
        "%r cannot have links to files of %r (%s), so what is there is written once more",
        folder,
        store,
        reason,
    )
