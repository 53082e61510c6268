"""Files of a workdir that are gone or damaged, written as the newest checkpoint has them."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Mapping

from fnas_jax.core import about as abouts
from fnas_jax.core import checkpoint
from fnas_jax.core import config as config_lib
from fnas_jax.core.logging import write_json
from fnas_jax.core.types import UserError

LOG = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"  # the folder of them in a workdir


def mend(folder: pathlib.Path, readers: Mapping[str, Callable[[pathlib.Path], object]]) -> None:
    """Writes run.json and config.json, where missing or damaged, as the newest checkpoint has them.

    `readers`: by the name of each, what reads it and raises UserError where it is not whole. Raises
    UserError where one is missing, and what is left does not say of which search it is.
    """
    lacking = [name for name, read in readers.items() if not _is_whole(folder / name, read)]
    if not lacking:
        return
    place = folder / CHECKPOINTS
    about = abouts.parse(checkpoint.newest_about(place))
    for name in lacking:
        path = folder / name
        if about is not None:
            content = (
                about.run if name == "run.json" else config_lib.nest(dict(about.config)).to_dict()
            )
            what = "damaged" if path.exists() else "missing"
            LOG.warning("%s was %s, and is written as the newest checkpoint has it", path, what)
            write_json(path, content)
        elif not path.exists() and (
            any(place.glob("[0-9]*"))
            or (name == "config.json" and (folder / "result.json").exists())
        ):
            raise UserError(
                f"workdir {str(folder)!r} holds a search and no {name}, and no checkpoint says what"
                " was in it: put that file back, or start a new workdir"
            )


def _is_whole(path: pathlib.Path, read: Callable[[pathlib.Path], object]) -> bool:
    try:
        read(path)
    except UserError:
        return False
    return True
