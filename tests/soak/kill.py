"""SIGKILL at random moments of searches by every method, and of meta-training."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence

import orbax.checkpoint as ocp

from fnas_jax.core import checkpoint
from fnas_jax.knowledge import surrogates
from tests.soak import processes, searches
from tests.soak.processes import Ended, Running
from tests.soak.searches import Search

EQUAL = "went on, equal to the undisturbed search"
OTHER_METRICS = "WRONG: other metrics"
NAMES = (
    *(f"{method}-tables" for method in searches.ON_TABLES),
    *(f"{method}-images" for method in searches.ON_IMAGES),
)


def cases(
    place: pathlib.Path, seed: int = 0, repeat: int = 3, names: Sequence[str] = NAMES
) -> Iterator[tuple[str, str]]:
    """(fault, outcome) of `repeat` searches of each of `names`, each killed up to three times."""
    draw = random.Random(seed)
    for name in names:
        search = searches.of(name, place)
        whole = place / "whole" / name
        whole.parent.mkdir(exist_ok=True)
        began = time.monotonic()
        ended = searches.run(search, whole)
        seconds = time.monotonic() - began
        if ended.code:
            yield f"none: {name}", f"WRONG: exit {ended.code}: {last_line(ended)}"
            continue
        for number in range(repeat):
            folder = place / "killed" / f"{name}-{number}"
            folder.parent.mkdir(exist_ok=True)
            yield from killed(search, folder, whole, [draw.uniform(0, seconds) for _ in range(3)])
    yield from meta_trained(place, draw, repeat)


def killed(
    search: Search, folder: pathlib.Path, whole: pathlib.Path, moments: Sequence[float]
) -> Iterator[tuple[str, str]]:
    """A search that is killed after each of `moments` (seconds of a start), then left alone."""
    faults = []
    for moment in moments:
        running = searches.start(search, folder)
        if not kill_after(running, moment):
            break
        faults.append(f"SIGKILL {where(folder)}")
    outcome = compared(searches.run(search, folder), folder, whole)
    method = search.name.partition("-")[2]
    yield from ((f"{fault} ({method})", outcome) for fault in faults)


def kill_after(running: Running, seconds: float) -> bool:
    """Whether the process was still there to be killed."""
    running.process.join(seconds)
    if running.process.exitcode is not None:
        return False
    running.process.kill()
    running.process.join()
    return True


def where(folder: pathlib.Path) -> str:
    """In which part of a search it stands that has left this folder."""
    if (folder / "result.json").exists():
        return "after the result"
    if any(folder.glob("training/*winner*")):
        return "in the winner's training"
    if not (folder / "run.json").exists():
        return "before the start"
    text = (folder / "metrics.jsonl").read_text() if (folder / "metrics.jsonl").exists() else ""
    return "in the loop" if '"iteration"' in text else "in preparation"


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
    place: pathlib.Path, draw: random.Random, repeat: int
) -> Iterator[tuple[str, str]]:
    """`meta-train`, killed: once more, it learns what it would have learnt, or has it already."""
    search, knowledge = searches.of("tnas-tables", place), place / "knowledge"
    other = place / "other" / "net.csv"
    searches.write_table(other, sign=0.9)
    if not (knowledge / "history.sqlite").exists():
        taught = searches.of("random-tables", place).settings | {"knowledge.dir": knowledge}
        ended = searches.run(Search("random", taught), place / "teacher")
        assert ended.code == 0, ended.said
    _, *keys = search.arguments(place, task__name=f"tabular/{other}", search__budget=8)
    said, arguments = place / "meta.said", (f"--knowledge={knowledge}", *keys)
    seconds, sums = 1.0, set()
    for number in range(repeat + 1):
        shutil.rmtree(knowledge / surrogates.FOLDER, ignore_errors=True)
        said.unlink(missing_ok=True)
        began = time.monotonic()
        running = processes.start(said, "meta-train", *arguments)
        if number:
            kill_after(running, draw.uniform(0, seconds))
        else:
            processes.ended(running)
            seconds = time.monotonic() - began
        for half in halves(knowledge):
            os.utime(half, (0, 0))  # so that it is nobody's
        ended = processes.call(said, "meta-train", *arguments)
        sums |= learnt(knowledge)
        good = ended.code == 0 and len(sums) == 1 and intact(knowledge) and not halves(knowledge)
        outcome = EQUAL if good else f"WRONG: exit {ended.code}: {last_line(ended)}"
        if number:
            yield "SIGKILL in meta-train (tables)", outcome


def halves(knowledge: pathlib.Path) -> list[pathlib.Path]:
    """What a store has of kernels that are not finished."""
    return list((knowledge / surrogates.FOLDER).glob(f"*/*{checkpoint.UNFINISHED}*"))


def learnt(knowledge: pathlib.Path) -> set[int]:
    """The checksums of the kernels that a store has."""
    found = set()
    for folder in (knowledge / surrogates.FOLDER).iterdir():
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
