"""SIGKILL, SIGTERM and Ctrl-C at random moments of searches by every method, and of meta-train."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import pathlib
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence

import orbax.checkpoint as ocp

from fnas_jax.core import checkpoint, leftovers
from fnas_jax.knowledge import surrogates
from tests.soak import processes, searches, stopping
from tests.soak.processes import Ended, Running
from tests.soak.searches import Search

EQUAL = "went on, equal to the undisturbed search"
HANGS = f"WRONG: {processes.HANGS}"
OTHER_METRICS = "WRONG: other metrics"
META = "meta-train"
IN_META = "in meta-train (tables)"  # which leaves nothing before its end that tells more
NAMES = (
    *(f"{method}-tables" for method in searches.ON_TABLES),
    *(f"{method}-images" for method in searches.ON_IMAGES),
    META,
)
BEFORE = "before the start"
IN_A_ROW = 4  # faults of one search, before it is left alone


def cases(
    place: pathlib.Path,
    ways: Sequence[signal.Signals],
    seed: int = 0,
    names: Sequence[str] = NAMES,
) -> Iterator[tuple[str, str]]:
    """(fault, outcome) of each of `names`, searches and META, disturbed in these `ways`."""
    for name in names:
        draw = random.Random(f"{seed} {name} {ways[:1]}")  # alone, it is disturbed as among others
        if name == META:
            yield from meta_trained(place, ways, draw)
        else:
            yield from disturbed(searches.of(name, place), place, ways, draw)


def disturbed(
    search: Search, place: pathlib.Path, ways: Sequence[signal.Signals], draw: random.Random
) -> Iterator[tuple[str, str]]:
    """A search that ends in all `ways`, up to IN_A_ROW in one folder, and is left alone then."""
    task, whole = search.name.partition("-")[2], place / "whole" / search.name
    ended, seconds = undisturbed(search, whole, place)
    if ended.code:
        yield f"none: {search.name}", f"WRONG: exit {ended.code}: {last_line(ended)}"
        return
    left, number = list(ways), 0
    while left:
        folder, number = place / "disturbed" / f"{search.name}-{ways[0].name}-{number}", number + 1
        searches.make(search, folder, place)
        found, seconds = interrupted(
            functools.partial(searches.start, search, folder),
            functools.partial(where, folder),
            left[:IN_A_ROW],
            draw,
            seconds,
        )
        left = left[len(found) :]
        outcome = compared(searches.run(search, folder), folder, whole)
        yield from judged([(f"{fault} ({task})", was) for fault, was in found], outcome)
        if not found and outcome != EQUAL:
            yield f"none: {search.name}", outcome
            return


def undisturbed(search: Search, folder: pathlib.Path, place: pathlib.Path) -> tuple[Ended, float]:
    """How a search ends in `folder` that is left alone, and the processor time that it takes.

    Both are known already where it was asked for before.
    """
    clock = folder.with_name(f"{folder.name}.seconds")
    if clock.exists():
        return Ended(0, ""), float(clock.read_text())
    searches.make(search, folder, place)
    running = searches.start(search, folder)
    _, seconds = processes.reached(running, math.inf)
    clock.write_text(str(seconds))
    return processes.ended(running), seconds


def interrupted(
    begin: Callable[[], Running],
    told: Callable[[], str],
    ways: Sequence[signal.Signals],
    draw: random.Random,
    seconds: float,
) -> tuple[list[tuple[str, str]], float]:
    """Commands that `begin` starts, each ended in one of `ways` at a random moment of `seconds`.

    Moments are of processor time. One that is over before its moment is the last, and no fault.
    Returns the faults, by what is `told` of each, with how the command ended; and `seconds`, or
    what a first one took that was over: of the same commands only the very first one compiles.
    """
    found: list[tuple[str, str]] = []
    for way in ways:
        running = begin()
        runs, took = processes.reached(running, draw.uniform(0, seconds))
        if math.isnan(took):
            return [*found, (f"none: {told()}", HANGS)], seconds
        outcome = stop(running, way) if runs else stopping.FINISHED
        if outcome == stopping.FINISHED:
            return found, seconds if runs or found else min(seconds, took)
        stands = told()
        found.append((f"{way.name} {stands}", heeded(outcome, stands)))
    return found, seconds


def heeded(outcome: str, stands: str) -> str:
    """The `outcome` of a command that stood there; one that works has a handler of signals."""
    if outcome == stopping.EARLY and stands not in (BEFORE, IN_META):
        return f"WRONG: no handler {stands}"
    return outcome


def judged(found: Sequence[tuple[str, str]], outcome: str) -> Iterator[tuple[str, str]]:
    """The `outcome` of what went on after all that was `found`, but where a command ended badly."""
    for fault, was in found:
        if was == stopping.PROMISED or (was == stopping.EARLY and outcome != EQUAL):
            yield fault, outcome
        else:
            yield fault, was


def stop(running: Running, way: signal.Signals) -> str:
    """How a command ends that is sent `way`, as `stopping.judged` has it."""
    pid = running.process.pid
    assert pid is not None
    sent = processes.spent(pid)
    os.kill(pid, way)
    if way == signal.SIGKILL:
        running.process.join()
        return stopping.PROMISED if running.process.exitcode == -way else stopping.FINISHED
    _, took = processes.reached(running, math.inf)
    return stopping.judged(way, processes.ended(running), took - sent)


def where(folder: pathlib.Path) -> str:
    """In which part of a search it stands that has left this folder."""
    if (folder / "result.json").exists():
        return "after the result"
    if any(folder.glob("training/*winner*")):
        return "in the winner's training"
    if not (folder / "run.json").exists():
        return BEFORE
    text = (folder / "metrics.jsonl").read_text() if (folder / "metrics.jsonl").exists() else ""
    if '"iteration"' in text:
        return "in the loop"
    prepares = '"stage"' in text or any(folder.glob("checkpoints/[0-9]*"))
    return "in preparation" if prepares else "before its first step"


def compared(ended: Ended, folder: pathlib.Path, whole: pathlib.Path) -> str:
    """The outcome of a search that went on after a fault and had to come to what `whole` has."""
    if ended.code:
        return f"WRONG: exit {ended.code}: {last_line(ended)}"
    differing = searches.differs(searches.found(whole), searches.found(folder))
    return f"WRONG: other {differing}" if differing else EQUAL


def last_line(ended: Ended) -> str:
    """The last that a command said."""
    return (ended.said.strip().splitlines() or [""])[-1][-200:]


def meta_trained(
    place: pathlib.Path, ways: Sequence[signal.Signals], draw: random.Random
) -> Iterator[tuple[str, str]]:
    """`meta-train`, disturbed: once more, it learns what it would have learnt, or has it."""
    _, *keys = searches.of("tnas-tables", place).arguments(place)
    expected: set[int] = set()
    left, number, seconds = list(ways), 0, math.inf
    while left:
        knowledge, number = place / "meta" / f"{ways[0].name}-{number}", number + 1
        shutil.copytree(searches.taught(place), knowledge)
        begin = functools.partial(
            processes.start,
            knowledge.with_name(f"{knowledge.name}.said"),
            *("meta-train", f"--knowledge={knowledge}", *keys),
        )
        found: list[tuple[str, str]] = []
        if expected:  # what the first one has learnt, which nobody disturbs
            found, seconds = interrupted(begin, _in_meta_train, left[:IN_A_ROW], draw, seconds)
            left = left[len(found) :]
        for half in halves(knowledge):
            os.utime(half, (0, 0))  # so that it is nobody's
        running = begin()
        took = processes.reached(running, math.inf)[1]
        seconds = seconds if expected else took
        ended, now = processes.ended(running), learnt(knowledge)
        good = ended.code == 0 and len(now) == 1 and now == (expected or now)
        good = good and intact(knowledge) and not halves(knowledge)
        expected = expected or now
        outcome = EQUAL if good else f"WRONG: exit {ended.code}: {last_line(ended)}"
        yield from judged(found, outcome)
        if not found and not good:
            yield "none: meta-train", outcome
            return


def _in_meta_train() -> str:
    return IN_META


def halves(knowledge: pathlib.Path) -> list[pathlib.Path]:
    """What a store has of kernels that are not finished."""
    return list((knowledge / surrogates.FOLDER).glob(f"*/*{leftovers.UNFINISHED}*"))


def learnt(knowledge: pathlib.Path) -> set[int]:
    """The checksums of the kernels that a store has."""
    found = set()
    for folder in (knowledge / surrogates.FOLDER).glob("*"):
        with contextlib.closing(checkpoint.open_(folder, alone=False)) as manager:
            stored = manager.restore(manager.latest_step(), args=ocp.args.PyTreeRestore())
        found.add(int(stored["checksum"]))
    return found


def intact(knowledge: pathlib.Path) -> bool:
    """Whether SQLite finds its file in order."""
    connection = sqlite3.connect(knowledge / "history.sqlite")
    found = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return found == ("ok",)
