"""SIGKILL within the writes of a store and a workdir, at random moments of these.

A search is first left alone, and notes how long each of its writes takes. Then it kills itself in
one of them, after a part of that time, or at its end where it is quicker.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import os
import pathlib
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.soak import kill, processes, searches
from tests.soak.searches import Search

# What is written, as fault of a search: module and function that write it, which others call there.
HISTORY = {
    "an iteration's rows": ("fnas_jax.knowledge.history", "record"),
    "the rows that a resume trims": ("fnas_jax.knowledge.history", "trim"),
    "what describes a task": ("fnas_jax.knowledge.task_data", "record_task"),
    "a kernel": ("fnas_jax.knowledge.surrogates", "save"),
    "what is taken of others": ("fnas_jax.knowledge.pins", "write"),
    "a checkpoint": ("fnas_jax.core.checkpoint", "save"),
    "a file's draft": ("fnas_jax.core.disk", "replacing"),
}
POOL = {
    "the pool": ("fnas_jax.knowledge.pool_store", "sync"),
    "the pool's teachers": ("fnas_jax.knowledge.taught", "add"),
    "a link to the pool": ("fnas_jax.core.apart", "link"),
    "a training": ("fnas_jax.core.keep", "save"),
}
SEARCHES = {"tnas-tables": HISTORY, "fnas-images": POOL}
CALLS = 3  # of a write, of which one is chosen


def cases(
    place: pathlib.Path,
    seed: int = 0,
    repeat: int = 3,
    chosen: Sequence[str] = tuple(SEARCHES),
) -> Iterator[tuple[str, str]]:
    """(fault, outcome): each write of each search killed `repeat` times, as far as it recurs."""
    draw = random.Random(seed)
    for name in chosen:
        search, whole = searches.of(name, place), place / "whole" / name
        notes = place / f"{name}.notes"
        searches.make(search, whole, place)
        ended = searches.run(search, whole, functools.partial(clocked, notes, SEARCHES[name]))
        if ended.code:
            yield f"none: {name}", f"WRONG: exit {ended.code}: {kill.last_line(ended)}"
            continue
        took = read(notes)
        for fault, where in SEARCHES[name].items():
            moments = took.get(fault, [0.001])  # a first start trims nothing
            yield from killed(search, place, whole, fault, where, moments, repeat, draw)


def killed(
    search: Search,
    place: pathlib.Path,
    whole: pathlib.Path,
    fault: str,
    where: tuple[str, str],
    moments: Sequence[float],
    repeat: int,
    draw: random.Random,
) -> Iterator[tuple[str, str]]:
    """A search that is killed in `repeat` starts of it, in the same kind of write, then goes on."""
    folder = place / "killed" / f"{search.name}-{where[1]}"
    searches.make(search, folder, place)
    if fault not in read(place / f"{search.name}.notes"):
        one = functools.partial(armed, SEARCHES[search.name]["a checkpoint"], 2, 0.0)
        searches.run(search, folder, one)
    count = 0
    for _ in range(repeat):
        call = draw.randrange(min(len(moments), CALLS))
        before = functools.partial(armed, where, call + 1, draw.uniform(0, moments[call]))
        ended = searches.run(search, folder, before)
        if ended.code != -signal.SIGKILL:
            break
        count += 1
    outcome = kill.compared(searches.run(search, folder), folder, whole)
    yield from ((f"SIGKILL as it writes {fault}", outcome) for _ in range(count))


def read(notes: pathlib.Path) -> dict[str, list[float]]:
    """The seconds that each kind of write took, in their order."""
    found: dict[str, list[float]] = {}
    for line in notes.read_text().splitlines():
        seconds, _, fault = line.partition(" ")
        found.setdefault(fault, []).append(float(seconds))
    return found


def clocked(notes: pathlib.Path, writes: dict[str, tuple[str, str]]) -> None:
    """In the process of a search: it notes what each of `writes` takes."""
    processes.keep_often()

    def note(fault: str, begun: float) -> None:
        with notes.open("a") as file:
            file.write(f"{time.monotonic() - begun} {fault}\n")

    for fault, where in writes.items():
        replace(where, time.monotonic, functools.partial(note, fault))


def armed(where: tuple[str, str], call: int, seconds: float) -> None:
    """In the process of a search: it is killed in this call (from 1 on) of the write."""
    processes.keep_often()
    calls, entered = itertools.count(1), threading.Event()

    def wait() -> None:
        entered.wait()
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    def enter() -> bool:
        if next(calls) != call:
            return False
        sys.setswitchinterval(1e-5)  # so that the thread wakes in time
        entered.set()
        return True

    def leave(chosen: bool) -> None:
        if chosen:
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
    replace(where, enter, leave)


def replace(where: tuple[str, str], enter: Callable[[], Any], leave: Callable[[Any], Any]) -> None:
    """Has `enter` called before a function, and `leave` behind it, with what `enter` gave."""
    module, name = importlib.import_module(where[0]), where[1]
    real = getattr(module, name)

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        given = enter()
        try:
            yield
        finally:
            leave(given)

    @contextlib.contextmanager
    def context(*arguments: Any, **named: Any) -> Iterator[Any]:
        with around(), real(*arguments, **named) as entered:
            yield entered

    def function(*arguments: Any, **named: Any) -> Any:
        with around():
            return real(*arguments, **named)

    generates = hasattr(real, "__wrapped__")  # a context manager's generator
    setattr(module, name, context if generates else function)
