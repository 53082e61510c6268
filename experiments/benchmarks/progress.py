"""How far a benchmark is: told on stderr as commands tell it, so that results stay by themselves.

On a terminal that is a bar with what is at work and the time left. Elsewhere it is a line a minute
at most, and where nothing ends for long those of `core.stages`: after 10, 30 and 60 seconds, then
each minute.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

from fnas_jax.core import stages
from fnas_jax.core.progress import Progress

EVERY = 60.0  # seconds between two lines where there is no bar
T = TypeVar("T")


def followed(benchmark: str, items: Iterable[T], words: Callable[[T], str] = str) -> Iterator[T]:
    """The `items` in turn, each of which is at work until the next is asked for.

    `words` says in few words what an item is, e.g. "seed 2, fnas".
    """
    every = list(items)
    total = len(every)
    with stages.running(), contextlib.closing(Progress(total, 0, benchmark, every=EVERY)) as bar:
        for number, item in enumerate(every):
            said = words(item)
            with stages.at(f"{benchmark}: {number + 1} of {total} ({said})"):
                bar.show(number, said)
                yield item
        bar.show(total, "done")


def say(text: str) -> None:
    """Prints a line of results, above the bar if there is one."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
