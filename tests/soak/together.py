"""Several searches on one knowledge store at once, and other commands beside a search."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from tests.soak import kill, processes, searches
from tests.soak.processes import Ended
from tests.soak.searches import Search

WHOLE = "all ended, each row once, and SQLite finds no fault"
METHODS = ("random", "evolution", "fnas", "tnas")  # of which the last two learn from the store


def cases(
    place: pathlib.Path, methods: Sequence[str] = METHODS, commands: bool = True
) -> Iterator[tuple[str, str]]:
    """(fault, outcome) of searches on tables by `methods` at once; and of `commands` beside one."""
    knowledge = place / "together" / "knowledge"
    found = [searches.of(f"{method}-tables", place) for method in methods]
    folders = [place / "together" / method for method in methods]
    knowledge.mkdir(parents=True)
    running = [
        searches.start(search, folder, knowledge__dir=knowledge)
        for search, folder in zip(found, folders, strict=True)
    ]
    ends = map(processes.ended, running)
    faults = [fault(*pair, knowledge) for pair in zip(folders, ends, strict=True)]
    wrong = [text for text in faults if text] + ([] if kill.intact(knowledge) else ["damaged"])
    outcome = f"WRONG: {'; '.join(wrong)}" if wrong else WHOLE
    yield f"{len(methods)} searches on one store", outcome
    if commands:
        yield from beside(place)


def fault(folder: pathlib.Path, ended: Ended, knowledge: pathlib.Path) -> str:
    """What is wrong with a search, or with its rows; "" where nothing is."""
    if ended.code:
        return f"{folder.name} ended with {ended.code}: {kill.last_line(ended)}"
    counts = json.loads((folder / "result.json").read_text())["counts"]
    rows = searches.rows(folder, knowledge)
    trained = sum(row[3] for row in rows)
    if trained == counts["trained"] and len(rows) - trained == counts["predicted"]:
        return ""
    return f"{folder.name} has {len(rows)} rows, {trained} of them trained, and counted {counts}"


def beside(place: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Each command again and again beside a search on the same store, which it must not disturb."""
    knowledge, first = place / "beside" / "knowledge", place / "beside" / "first"
    search = searches.of("random-images", place)
    first.parent.mkdir()
    ended = searches.run(search, first, knowledge__dir=knowledge)
    assert ended.code == 0, ended.said
    other = place / "other" / "net.csv"
    searches.write_table(other, sign=0.9)
    taught = searches.of("random-tables", place)
    searches.run(taught, place / "beside" / "taught", knowledge__dir=knowledge)
    _, *keys = searches.of("tnas-tables", place).arguments(place, task__name=f"tabular/{other}")
    commands = {
        "report": [f"--workdir={first}"],
        "status": [str(first), str(place / "beside" / "status")],  # the latter is the search's own
        "trials": [f"--workdir={first}"],
        "retrain": [f"--workdir={first}"],
        "meta-train": [f"--knowledge={knowledge}", *keys],
    }
    # Children start from what earlier searches have taught the pool: all begin with the same store.
    prepared, alone = place / "beside" / "prepared", place / "beside" / "alone"
    shutil.copytree(knowledge, prepared)
    assert searches.run(search, alone, knowledge__dir=knowledge).code == 0
    expected = searches.found(alone, knowledge)
    for name, arguments in commands.items():
        shutil.rmtree(knowledge)
        shutil.copytree(prepared, knowledge)
        found = accompanied(search, alone.with_name(name), expected, name, arguments)
        yield f"a search beside {name}", found


def accompanied(
    search: Search, folder: pathlib.Path, expected: Any, name: str, arguments: Sequence[str]
) -> str:
    """The outcome of a search on the store of the command `name`, which runs until it is over.

    It must come to what is `expected`.
    """
    said, knowledge = folder.with_name(f"{name}.command"), folder.with_name("knowledge")
    running, calls = searches.start(search, folder, knowledge__dir=knowledge), 0
    while running.process.exitcode is None or not calls:
        ended, calls = processes.call(said, name, *arguments), calls + 1
        if ended.code:
            processes.ended(running)
            return f"WRONG: {name} ended with {ended.code}: {kill.last_line(ended)}"
    ended = processes.ended(running)
    if ended.code:
        return f"WRONG: exit {ended.code}: {kill.last_line(ended)}"
    differing = searches.differs(expected, searches.found(folder, knowledge))
    return f"WRONG: other {differing}" if differing else kill.EQUAL
