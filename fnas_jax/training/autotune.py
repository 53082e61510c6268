"""How many children a device trains at once: measured once, and remembered for each device.

One after another, a child costs what it is; all at once, an accelerator is kept busy but memory may
not suffice. In between lies the fastest number, which depends on device and shapes.
"""

from __future__ import annotations

import json
import logging
import math
import pathlib
from collections.abc import Callable

from fnas_jax.core.logging import write_json

logger = logging.getLogger(__name__)

FILE = "tuning.json"


def group(measure: Callable[[int], float], most: int, name: str, folder: str | pathlib.Path) -> int:
    """The number in 1, 2, 4, .. `most` that `measure` gives the fewest seconds for.

    `measure` of a number gives the seconds of all `most` children, infinity where memory does not
    suffice; larger numbers are then not tried. The choice is kept in `folder` ('': nowhere) under
    `name`, which says all that it depends on.
    """
    path = pathlib.Path(folder).expanduser() / FILE if folder else None
    known = _read(path)
    if name in known:
        return known[name]
    best, seconds = 1, math.inf
    for size in candidates(most):
        taken = measure(size)
        logger.debug("%d children at once: %.3f s", size, taken)
        if taken < seconds:
            best, seconds = size, taken
        if math.isinf(taken):
            break
    if path is not None and math.isfinite(seconds):
        try:
            # Read again: another process may have measured something else meanwhile.
            write_json(path, _read(path) | {name: best})
        except OSError as error:
            logger.warning("%s cannot be written (%s)", path, error.strerror or error)
    return best


def candidates(most: int) -> list[int]:
    """1, 2, 4, .. below `most`, and `most`."""
    return [2**i for i in range(most.bit_length()) if 2**i < most] + [most]


def _read(path: pathlib.Path | None) -> dict[str, int]:
    """What was measured before; damaged files count as nothing."""
    try:
        found = json.loads(path.read_text()) if path is not None else {}
        return {str(k): int(v) for k, v in found.items() if int(v) >= 1}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
