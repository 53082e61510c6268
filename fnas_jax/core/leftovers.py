"""What Orbax leaves behind: half-written folders, damaged dates, errors of its threads."""

from __future__ import annotations

import contextlib
import functools
import logging
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import orbax.checkpoint as ocp

from fnas_jax.core import disk

UNFINISHED = ".orbax-checkpoint-tmp"  # in the names of folders that Orbax is writing into
LATE = 0.2  # seconds in which threads find that another one has failed
DATE = "_CHECKPOINT_METADATA"  # the file in which Orbax says when a step was written
logger = logging.getLogger(__name__)


def reason(error: Exception) -> str:
    """What `error` says, in one line."""
    return f"{type(error).__name__}: {(str(error) or 'damaged').splitlines()[0][:200]}"


@contextlib.contextmanager
def one_error() -> Iterator[None]:
    """What Orbax's threads find when another one has failed inside is not told."""
    hook = sys.unraisablehook
    sys.unraisablehook = functools.partial(_told, hook)
    try:
        yield
    except Exception:
        time.sleep(LATE)
        raise
    finally:
        sys.unraisablehook = hook


def _told(hook: Callable[[Any], object], found: Any) -> None:
    """As `sys.unraisablehook`, without what Orbax's threads find when another one has failed."""
    if "Event loop is closed" not in str(found.exc_value):
        hook(found)


def remove_for_good(folder: pathlib.Path, of: str) -> None:
    """As `remove_unfinished`, of which Orbax's threads may write more for a moment."""
    quiet = 0
    for _ in range(30):
        quiet = 0 if remove_unfinished(folder, of) else quiet + 1
        if quiet == 4:
            return
        time.sleep(0.1)


def remove_unfinished(folder: pathlib.Path, of: str = "*") -> bool:
    """Takes away what Orbax was writing into, of step `of` or of all; whether there was any."""
    found = list(folder.glob(f"{of}{UNFINISHED}*"))
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return bool(found)


def remove_abandoned(folder: pathlib.Path) -> None:
    """Takes away from a folder that others write to, too, what killed processes have left."""
    for path in folder.glob(f"*{UNFINISHED}*"):
        if disk.age(path) > disk.ABANDONED:
            shutil.rmtree(path, ignore_errors=True)


def remove_damaged_dates(folder: pathlib.Path) -> bool:
    """Takes away what says when steps were written, where Orbax cannot read it; whether any was.

    It opens no folder with one of these.
    """
    damaged = []
    for path in folder.glob(f"*/{DATE}"):
        if path.parent.name.isdigit():
            try:
                _ = ocp.path.step.Metadata(
                    step=int(path.parent.name), path=path.parent
                ).commit_timestamp
            except Exception as error:
                damaged.append(path)
                logger.warning(
                    "%s is damaged (%s) and removed: it says when a checkpoint was written",
                    *(path, reason(error)),
                )
                with disk.at(path):
                    path.unlink(missing_ok=True)
    return bool(damaged)
