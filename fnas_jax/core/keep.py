"""What the outer loop does for long trainings: keeps them on disk, and shows how far they are.

Trainings are named by what they are of, in full: a state that was kept is read by the very same
training only, so that one that was killed goes on where it was, and any other begins anew.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections

from fnas_jax.core import checkpoint, identity
from fnas_jax.core.progress import Progress

LOG = logging.getLogger(__name__)
FULL = "training"  # the folder of it in a workdir
MEASURED = "proxies"  # the name of what was measured before the search
BATCHES = "children"  # with which the names of batches of children begin
LEAST_SECONDS = 30.0  # between two checkpoints of a training, whose states may be large
LINE_SECONDS = 10.0  # between two lines about it, where there is no terminal


class Keep(NamedTuple):
    """What a training may ask for; by default nothing is kept, and nobody is told."""

    # (name, what it is of, its first state) -> the newest state that was kept of it, or the first
    load: Callable[[str, str, Any], Any] = lambda name, of, first: first
    # (name, what it is of, step, state): returns when it is safe
    save: Callable[[str, str, int, Any], object] = lambda name, of, step, state: None
    seconds: float = math.inf  # between two calls of `save`
    # (steps, of which so many are done, name) -> what shows how far it is; None: nothing does
    progress: Callable[[int, int, str], Progress] | None = None
    # Seconds that are left for all trainings together, which have fewer steps where these do not
    # suffice for all; None: no limit
    left: Callable[[], float] | None = None


NOWHERE = Keep()


def on_disk(folder: pathlib.Path, seconds: float) -> Keep:
    """Keeps trainings in `folder`, at least `seconds` apart, and tells of them on stderr."""
    return Keep(
        load=functools.partial(load, folder),
        save=functools.partial(save, folder),
        seconds=max(seconds, LEAST_SECONDS),
        progress=functools.partial(Progress, every=LINE_SECONDS),
    )


def arguments(
    keeps: bool, folder: pathlib.Path, config: ml_collections.ConfigDict
) -> tuple[Keep, ...]:
    """What `Task.final` and `Task.compare` take last, for a run in `folder`.

    () of a task that does not keep.
    """
    return (on_disk(folder / FULL, config.log.checkpoint_seconds),) if keeps else ()


def load(folder: pathlib.Path, name: str, of: str, first: Any) -> Any:
    """As `Keep.load`. Raises UserError where checkpoints of it exist and none can be read."""
    own = _place(folder, name, of)
    if not own.exists():
        others = sorted(path.name for path in folder.glob(f"{_prefix(name)}*"))
        if others:
            LOG.warning(
                "%s is trained from the beginning: %s is of other settings",
                *(name, folder / others[0]),
            )
        return first
    with contextlib.closing(checkpoint.open_(own)) as manager:
        found = checkpoint.restore(manager, first)
    return first if found is None else found[1]


def save(folder: pathlib.Path, name: str, of: str, step: int, state: Any) -> None:
    """As `Keep.save`."""
    with contextlib.closing(checkpoint.open_(_place(folder, name, of))) as manager:
        checkpoint.save(manager, step, state)


def forget_batches(folder: pathlib.Path) -> None:
    """Takes away what was kept of batches of a run in `folder`, once a checkpoint has them."""
    for own in (folder / FULL).glob(f"{BATCHES}-*"):
        shutil.rmtree(own, ignore_errors=True)


def remove(folder: pathlib.Path) -> None:
    """Takes away what was kept of trainings of a run in `folder`, once its result is written.

    What was measured before the search stays, for a search that goes on with a larger budget.
    """
    if not any((folder / FULL).glob(f"{_prefix(MEASURED)}*")):
        shutil.rmtree(folder / FULL, ignore_errors=True)
        return
    for own in (folder / FULL).iterdir():
        if not own.name.startswith(_prefix(MEASURED)):
            shutil.rmtree(own, ignore_errors=True)


def _prefix(name: str) -> str:
    return name.replace(" ", "-") + "--"


def _place(folder: pathlib.Path, name: str, of: str) -> pathlib.Path:
    return folder / f"{_prefix(name)}{identity.digest(of)}"
