"""Meta-learnt surrogates on disk, beside the history, each under a hash of what it was learnt from.

A surrogate is stored once and never changed: other rows or settings make another name.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
from typing import Any

from fnas_jax.core import checkpoint, leftovers
from fnas_jax.spaces.base import Space

FOLDER = "surrogates"


def place(folder: str | pathlib.Path, space: Space, digest: str) -> pathlib.Path:
    """Where the surrogate `digest` of `space` stands in the knowledge folder.

    The name of a space is there for readers; its key tells it from others of that name, whose
    weights may have the same shapes.
    """
    name = re.sub("[^a-zA-Z0-9_.]", "_", space.name)
    return pathlib.Path(folder) / FOLDER / f"{name}-{space.key}-{digest}"


def save(path: pathlib.Path, tree: Any) -> None:
    """Stores `tree` at `path`; where something stands there already, that stays.

    What killed processes have left of other ones is removed, too: nobody may ask for these again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for place in path.parent.iterdir():
        leftovers.remove_abandoned(place)
    with contextlib.closing(checkpoint.open_(path, keep=1, alone=False)) as manager:
        if not manager.all_steps():
            checkpoint.save(manager, 0, tree)


def load(path: pathlib.Path, template: Any) -> Any | None:
    """What stands at `path`, shaped as `template`; None where there is nothing.

    Raises UserError where it cannot be read.
    """
    if not path.is_dir():
        return None
    with contextlib.closing(checkpoint.open_(path, keep=1, alone=False)) as manager:
        found = checkpoint.restore(manager, template)
    return None if found is None else found[1]
