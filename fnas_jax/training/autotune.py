"""How many children a device trains at once: tried once, and remembered for each device.

The more, the faster: one child leaves an accelerator idle. What memory does not hold is halved.
"""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Callable

from fnas_jax.core.logging import write_json

logger = logging.getLogger(__name__)

FILE = "tuning.json"


def group(fits: Callable[[int], bool], most: int, name: str, folder: str | pathlib.Path) -> int:
    """The largest of `most`, a half of it, a quarter, .. that `fits` into memory; at least 1.

    The choice is kept in `folder` ('': nowhere) under `name`, which says all that it depends on.
    """
    path = pathlib.Path(folder).expanduser() / FILE if folder else None
    known = _read(path)
    if name in known:
        return known[name]
    size = most
    while size > 1 and not fits(size):
        logger.info("%d children at once do not fit into the memory of the device", size)
        size //= 2
    if path is not None:
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
