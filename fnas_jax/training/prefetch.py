"""Images that are read while the devices train on others, and how long devices wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

T = TypeVar("T")
U = TypeVar("U")
STARVED = 0.1  # share of the time from which waiting is told
QUIET = 10.0  # seconds of waiting that are not told


class Pace(NamedTuple):
    """Of all parts but the first, which has to be waited for in any case."""

    parts: int = 0
    reading: float = 0.0  # seconds, in the thread
    waiting: float = 0.0  # seconds, of the devices
    seconds: float = 0.0  # from when the first part was there to when the last one was


def ahead(
    wanted: Iterator[T], read: Callable[[T], U], tell: Callable[[Pace], object] | None = None
) -> Iterator[tuple[T, U]]:
    """(what is `wanted`, what `read` makes of it), while a thread reads the next one.

    No more than one is read ahead. What `read` raises is raised where its turn comes. `tell` is
    told of the pace at the end, also where nobody asks for the rest.
    """
    pace, began = Pace(), 0.0
    with ThreadPoolExecutor(1, "images") as reader:
        coming = _begin(reader, wanted, read)
        try:
            while coming is not None:
                one, future = coming
                before = time.monotonic()
                found, seconds = future.result()
                now = time.monotonic()
                if began:
                    reading, waiting = pace.reading + seconds, pace.waiting + now - before
                    pace = Pace(pace.parts + 1, reading, waiting, now - began)
                else:
                    began = now
                coming = _begin(reader, wanted, read)
                yield one, found
        finally:
            if tell is not None:
                tell(pace)


def _begin(
    reader: ThreadPoolExecutor, wanted: Iterator[T], read: Callable[[T], U]
) -> tuple[T, Future[tuple[U, float]]] | None:
    """The next one that is wanted, which the thread reads from now on; None: there is none."""
    for one in wanted:
        return one, reader.submit(_timed, read, one)
    return None


def _timed(read: Callable[[T], U], one: T) -> tuple[U, float]:
    before = time.monotonic()
    return read(one), time.monotonic() - before


def starved(pace: Pace, images: int) -> str:
    """What to say of a training on parts of `images` each that waited long; '' of others."""
    if pace.waiting < max(QUIET, STARVED * pace.seconds):
        return ""
    given = images * pace.parts / max(pace.reading, 1e-9)
    taken = images * pace.parts / max(pace.seconds - pace.waiting, 1e-9)
    return (
        f"devices waited for images for {pace.waiting:.0f} of {pace.seconds:.0f} s: {given:,.0f} a"
        f" second were read, and {taken:,.0f} could be trained on"
    )
