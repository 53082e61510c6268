"""How fast something goes, and how long the rest of it takes, by when parts of it were done.

Pure functions of moments. What is compiled, mostly in the first iteration, is no part of the rate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

HALF = 8.0  # spans, after which one counts half as much
MOST = 64  # marks that are worth keeping: earlier ones count for next to nothing


class Mark(NamedTuple):
    """How much was done at a moment."""

    seconds: float  # since some moment, the same for all
    done: float  # of any unit
    compiling: float = 0.0  # of these seconds


def seconds_each(marks: Sequence[Mark]) -> float:
    """What one more takes, in seconds; infinite where nothing says so.

    The mean of the spans between `marks`, later ones counting more. A moment at which no more was
    done than before begins no span: its time is that of what was done next. The first span is left
    out once there is another: whatever is made ready in it is ready then.
    """
    gained = list(_gained(marks))
    spans = [
        (max(b.seconds - a.seconds - (b.compiling - a.compiling), 0.0), b.done - a.done)
        for a, b in itertools.pairwise(gained)
    ]
    counted = spans[1:] or spans
    weights = [0.5 ** (age / HALF) for age in range(len(counted))][::-1]
    taken = sum(w * seconds for w, (seconds, _) in zip(weights, counted, strict=True))
    done = sum(w * count for w, (_, count) in zip(weights, counted, strict=True))
    return taken / done if done > 0 else math.inf


def left(marks: Sequence[Mark], total: float) -> float:
    """Seconds until `total` is done, from the last of `marks` on; infinite where nothing says so.

    What was spent since the last gain, without another, is time that the next one has had.
    """
    each = seconds_each(marks)
    if not math.isfinite(each):
        return math.inf
    last, idle = marks[-1], marks[-1].seconds - list(_gained(marks))[-1].seconds
    # Gains get rarer where most of what is proposed is known: then the time without counts, too.
    return max(total - last.done, 0.0) * max(each, idle)


def of_metrics(lines: Iterable[dict[str, Any]]) -> list[Mark]:
    """The marks of iterations in lines of metrics.jsonl, in their order; damaged ones left out."""
    names = ("seconds/total", "trained", "seconds/compile")
    found = []
    for line in lines:
        values: list[Any] = [line.get(name) for name in names]
        if all(type(value) in (int, float) for value in values):
            found.append(Mark(*values))
    return found


def text(seconds: float) -> str:
    """65 -> "1:05", 3665 -> "1:01:05"; from two days on "2 d 3 h"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _gained(marks: Iterable[Mark]) -> Iterable[Mark]:
    """Those at which more was done than at the one before."""
    most = -math.inf
    for mark in marks:
        if mark.done > most:
            most = mark.done
            yield mark
