"""How children are trained here: by which code of layers, and how many at once.

Code that runs whatever any child may need, for all at once, asks nobody what to run; code that
runs what a child needs does less. Which is faster depends on the device, the images and the batch,
and is measured: each backend with as many children at once as fit into memory, and with one at a
time. What memory does not hold is halved. The fastest is remembered for each device, if all
children of a batch fitted: that fewer do may be another program's doing, which will not always be
there. A program for all children takes a minute or more to compile, so that where a search would be
over sooner, no other way is tried.
"""

from __future__ import annotations

import logging
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fnas_jax.core import jsons, stages
from fnas_jax.core.logging import write_json

logger = logging.getLogger(__name__)

# Another name than those of earlier versions, which knew fewer ways.
FILE = "ways_to_train_children.json"
TRYING = 120.0  # seconds that it may take to compile and time another way


class Way(NamedTuple):
    """How the children of a device are trained."""

    backend: str
    group: int  # at once


class Known(NamedTuple):
    """The fastest way, as it is kept."""

    way: Way
    steps: float  # up to so many of a device's children; more might be worth another trial


def fastest(
    seconds: Callable[[Way], float | None],
    ways: Sequence[Way],
    name: str,
    folder: str | pathlib.Path,
    steps: float = math.inf,
) -> Way:
    """The way of the fewest `seconds` (of a step of a child; None: memory does not hold it).

    A number at once that does not fit is halved until one does, 1 is taken to fit. Where there is
    one way, it is not timed unless it may not fit. As soon as one makes all `steps` of a device's
    children in less than TRYING, no other is tried. The answer is kept in `folder` ('': nowhere)
    under `name`, which says all that it depends on, with how many steps it is for.
    """
    path = pathlib.Path(folder).expanduser() / FILE if folder else None
    known = _read(path).get(name)
    if known is not None and known.way in ways and steps <= known.steps:
        return known.way
    if len(ways) == 1 and ways[0].group == 1:
        return ways[0]
    found: dict[Way, float] = {}
    all_fit, upto = True, math.inf
    for way in ways:
        size = way.group
        with stages.at(f"trying to train children by {way.backend}, {size} at once"):
            while (taken := seconds(way._replace(group=size))) is None and size > 1:
                logger.info("%d children at once do not fit into the memory of the device", size)
                size, all_fit = size // 2, False
        # What not even one child fits into will say so itself, when children are trained.
        found[way._replace(group=size)] = math.inf if taken is None else taken
        least = min(found.values())
        if way != ways[-1] and least * steps < TRYING:
            upto = TRYING / least
            break
    best = min(found, key=lambda way: found[way])
    told = (f"{w.backend}, {w.group} at once {1e3 * s:.2f} ms" for w, s in found.items())
    logger.info("a step of a child takes: %s", "; ".join(told))
    if path is not None and all_fit:
        try:
            # Read again: another process may have tried something else meanwhile.
            kept = _read(path) | {name: Known(best, upto)}
            write_json(path, {key: _written(known) for key, known in kept.items()})
        except OSError as error:
            logger.warning("%s cannot be written (%s)", path, error.strerror or error)
    return best


def _written(known: Known) -> dict[str, Any]:
    return known.way._asdict() | {"steps": known.steps if math.isfinite(known.steps) else None}


def _read(path: pathlib.Path | None) -> dict[str, Known]:
    """What was measured before; damaged files count as nothing."""
    try:
        found = jsons.parse(path.read_text(encoding="utf-8")) if path is not None else {}
        known = {str(key): _known(value) for key, value in found.items()}
        return {name: one for name, one in known.items() if one.way.group >= 1}
    except (OSError, ValueError, AttributeError, TypeError, KeyError, OverflowError):
        return {}


def _known(value: dict[str, Any]) -> Known:
    steps = value["steps"]
    way = Way(str(value["backend"]), int(value["group"]))
    return Known(way, math.inf if steps is None else float(steps))
