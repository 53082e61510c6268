"""How many children a device trains at once: as many as fit into its memory.

The more, the faster: one child leaves an accelerator idle. What memory does not hold is halved.
That all of them fit is remembered for each device. That fewer do is not: it may be another
program's doing, which will not always be there.
"""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Callable

from fnas_jax.core.logging import write_json

logger = logging.getLogger(__name__)

# Another name than that of earlier versions, whose numbers were the fastest of several.
FILE = "children_at_once.json"


def group(fits: Callable[[int], bool], most: int, name: str, folder: str | pathlib.Path) -> int:
    """The largest of `most`, a half of it, a quarter, .. that `fits` into memory; at least 1.

    That `most` fit is kept in `folder` ('': nowhere) under `name`, which says all that it depends
    on.
    """
    path = pathlib.Path(folder).expanduser() / FILE if folder else None
    known = _read(path)
    if known.get(name) == most:
        return most
    size = most
    while size > 1 and not fits(size):
        logger.info("%d children at once do not fit into the memory of the device", size)
        size //= 2
    if path is not None and size == most:
        try:
            # Read again: another process may have tried something else meanwhile.
            write_json(path, _read(path) | {name: size})
        except OSError as error:
            logger.warning("%s cannot be written (%s)", path, error.strerror or error)
    return size


def _read(path: pathlib.Path | None) -> dict[str, int]:
    """What was measured before; damaged files count as nothing."""
    try:
        found = json.loads(path.read_text()) if path is not None else {}
        return {str(k): int(v) for k, v in found.items() if int(v) >= 1}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
