"""Programs that are told to end at random moments, from their first line on: as `kill` has it.

Each of these starts an interpreter, which `kill` does not: what is imported may meet a signal, too.
"""

from __future__ import annotations

import pathlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from tests.soak import kill, processes, searches, stopping
from tests.soak.processes import Ended
from tests.soak.searches import Search

COUNTS = ((signal.SIGINT, 10), (signal.SIGTERM, 6), (signal.SIGHUP, 4))
# Runs its arguments, which heed signals: what is started in the background, or by nohup, does not.
HEED = """import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])"""


def search(place: pathlib.Path) -> Search:
    """One on a table, with a checkpoint after each of its 75 iterations and a cache of programs."""
    settings = searches.of("random-tables", place).settings
    table = place / "large.csv"
    if not table.exists():
        searches.write_table(table, decisions=6)
    changes = {
        "task.name": f"tabular/{table}",
        "search.budget": 300,
        "log.tensorboard": True,
        "jax.cache_dir": place / "cache",
    }
    return Search("large", settings | changes)


def started(wanted: Search, folder: pathlib.Path) -> subprocess.Popen[str]:
    """The search in `folder`, as users start it."""
    program = [sys.executable, "-m", "fnas_jax.main", *wanted.arguments(folder)]
    return subprocess.Popen(
        [sys.executable, "-c", HEED, *program],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def watch(process: subprocess.Popen[str], until: float) -> tuple[bool, float]:
    """As `processes.watch`."""

    def over(seconds: float) -> bool:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    return processes.watch(process.pid, over, until)


def told(
    wanted: Search, folder: pathlib.Path, whole: pathlib.Path, kind: signal.Signals, moment: float
) -> str:
    """How a search ends that is sent `kind` after `moment` seconds of processor time."""
    process = started(wanted, folder)
    try:
        over, sent = watch(process, moment)
        if over:
            return stopping.FINISHED
        process.send_signal(kind)
        took = watch(process, float("inf"))[1]
    except TimeoutError as error:
        return f"WRONG: {error}"
    said = process.communicate()[1]
    outcome = stopping.judged(kind, Ended(process.returncode, said), took - sent)
    outcome = kill.heeded(outcome, kill.where(folder))
    if outcome not in (stopping.PROMISED, stopping.EARLY):
        return outcome
    found = kill.compared(searches.run(wanted, folder), folder, whole)
    return outcome if found == kill.EQUAL and outcome == stopping.EARLY else found


def cases(
    place: pathlib.Path,
    seed: int = 0,
    counts: Sequence[tuple[signal.Signals, int]] = COUNTS,
) -> Iterator[tuple[str, str]]:
    """(fault, outcome) of so many signals of each kind, at moments of a whole search."""
    draw, wanted, whole = random.Random(seed), search(place), place / "undisturbed"
    assert searches.run(wanted, whole).code == 0
    process = started(wanted, place / "clocked")
    seconds = watch(process, float("inf"))[1]
    assert process.wait() == 0
    for kind, count in counts:
        for number in range(count):
            outcome, tries = stopping.FINISHED, 0
            while outcome == stopping.FINISHED:  # at another moment, then
                moment, tries = draw.uniform(0.1, seconds), tries + 1
                folder = place / f"{kind.name}{number}-{tries}"
                outcome = told(wanted, folder, whole, kind, moment)
            yield f"{kind.name} from the first line of the program on", outcome
