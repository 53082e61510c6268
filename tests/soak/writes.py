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
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.soak import kill, processes, searches
from tests.soak.searches import Search

# What is written, as fault of a search: module and function that write it, which others call there.
KEPT = {
    "an iteration's rows": ("fnas_jax.knowledge.history", "record"),
    "the rows that a resume trims": ("fnas_jax.knowledge.history", "trim"),
    "a checkpoint": ("fnas_jax.core.checkpoint", "save"),
    "a file's draft": ("fnas_jax.core.disk", "replacing"),
    "a compiled program": ("fnas_jax.core.compiled", "_write"),
}
TAUGHT = {
    "what is taken of others": ("fnas_jax.knowledge.pins", "write"),
    "a kernel": ("fnas_jax.knowledge.surrogates", "save"),
}
POOL = {
    "what describes a task": ("fnas_jax.knowledge.task_data", "record_task"),
    "the pool": ("fnas_jax.knowledge.pool_store", "sync"),
    "the pool's teachers": ("fnas_jax.knowledge.taught", "add"),
    "a link to the pool": ("fnas_jax.core.apart", "link"),
    "a training": ("fnas_jax.core.keep", "save"),
}
SEARCHES = {"random-tables": KEPT, "tnas-tables": TAUGHT, "fnas-images": POOL}
FOLDER = "compiled"  # of programs that a search keeps
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
        if name == "random-tables":
            search = search._replace(settings=search.settings | {"jax.cache_dir": place / FOLDER})
        notes = place / f"{name}.notes"
        searches.make(search, whole, place)
        ended = searches.run(search, whole, functools.partial(clocked, notes, SEARCHES[name]))
        if ended.code:
            yield f"none: {name}", f"WRONG: exit {ended.code}: {kill.last_line(ended)}"
            continue
        for fault in SEARCHES[name]:
            yield from killed(search, place, fault, repeat, draw)


def killed(
    search: Search, place: pathlib.Path, fault: str, repeat: int, draw: random.Random
) -> Iterator[tuple[str, str]]:
    """A search that is killed in `repeat` starts of it, in the same kind of write, then goes on."""
    writes, took = SEARCHES[search.name], read(place / f"{search.name}.notes")
    folder = place / "killed" / f"{search.name}-{writes[fault][1]}"
    searches.make(search, folder, place)
    if fault not in took and "a checkpoint" in writes:  # what only those do that go on
        searches.run(search, folder, functools.partial(armed, writes["a checkpoint"], 2, 0.0))
    moments, faults, wrong = took.get(fault, [0.001]), 0, ""
    while faults < repeat:
        call = draw.randrange(min(len(moments), CALLS))
        if fault == "a compiled program":
            shutil.rmtree(place / FOLDER, ignore_errors=True)
        moment = draw.uniform(0, moments[call])
        ended = searches.run(
            search, folder, functools.partial(armed, writes[fault], call + 1, moment)
        )
        if ended.code == 0:  # it had nothing more of the kind to write
            break
        if ended.code != -signal.SIGKILL or processes.HANGS in ended.said:
            wrong = f"WRONG: exit {ended.code}: {kill.last_line(ended)}"
            break
        faults += 1
    outcome = wrong or kill.compared(
        searches.run(search, folder), folder, place / "whole" / search.name
    )
    yield from ((f"SIGKILL as it writes {fault}", outcome) for _ in range(faults))
    if not faults:
        yield f"none: as it writes {fault}", wrong or "WRONG: it is never written"


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
