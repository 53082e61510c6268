"""How far a search is, read from what it writes; nothing in its folder is changed.

A search that starts meanwhile is not kept from it.
"""

from __future__ import annotations

import math
import pathlib
import sqlite3
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fnas_jax import outcome, registry
from fnas_jax.core import budget, config_json, pace, run_json, stages, workdir
from fnas_jax.core.logging import from_the_end, is_iteration
from fnas_jax.core.measure import Measure
from fnas_jax.knowledge import history, reading


class Status(NamedTuple):
    """What is known of a search at a moment; None and {}: nothing."""

    folder: str
    running: bool  # a process holds the folder
    live: dict[str, Any] | None  # what it says of itself (`stages.read`)
    began: float | None = None  # seconds since 1970
    config: Any = None
    measure: Measure = Measure()
    line: Mapping[str, Any] = MappingProxyType({})  # the newest of an iteration in metrics.jsonl
    seconds_each: float = math.inf  # that an evaluation takes
    left: float = math.inf  # seconds until the budget is spent, at this rate
    best: str | None = None  # the architecture, in words
    checkpoint: tuple[int, float] | None = None  # the newest: its number, seconds since it
    result: dict[str, Any] | None = None


def read(folder: str | pathlib.Path, now: float) -> Status:
    """The search in `folder` at `now` (seconds since 1970). Raises UserError where none is."""
    path = pathlib.Path(folder).expanduser()
    running = workdir.is_held(path)
    live = stages.read(path)
    if running and not (path / "config.json").exists():
        return Status(str(folder), running, live)
    config = config_json.read_config(folder)
    run = run_json.read_run(path) if (path / "run.json").exists() else None
    lines = _iterations(path / "metrics.jsonl")
    marks = pace.of_metrics(lines)
    done = (path / "result.json").exists()
    result = outcome.read(path) if done else None
    most = budget.children(config, config.winner.finalists)
    return Status(
        str(folder),
        running,
        live,
        began=None if run is None else run.began or None,
        config=config,
        measure=outcome.measure(path),
        line=lines[-1] if lines else {},
        seconds_each=pace.seconds_each(marks),
        left=pace.left(marks, most) if marks else math.inf,
        best=_incumbent(path, config, run, result),
        checkpoint=_newest(path / workdir.CHECKPOINTS, now),
        result=result,
    )


def _iterations(path: pathlib.Path) -> list[dict[str, Any]]:
    """The newest lines of iterations in metrics.jsonl, in their order: as many as rates go by."""
    found: list[dict[str, Any]] = []
    counts: set[Any] = set()  # moments at which no more was done tell nothing of the rate
    for line in from_the_end(path):
        if not is_iteration(line):
            continue
        found.append(line)
        counts.add(number(line, "trained"))
        if len(counts) > pace.MOST:
            break
    return found[::-1]


def _incumbent(path: pathlib.Path, config: Any, run: Any, result: Any) -> str | None:
    """The winner of a finished search, or the best that was measured so far.

    None, too, where the store cannot be read: one of others, or of another version.
    """
    if result is not None:
        return result["best"]["description"]["text"] if result["best"] else None
    if run is None:
        return None
    try:
        with reading.opened(workdir.knowledge_folder(path, config)) as known:
            arch, identity = history.best(known, run.id), history.identity_of(known, run.id)
    except (sqlite3.Error, OSError, UnicodeDecodeError):
        return None
    return None if arch is None else history.words(registry.space_of_run(identity, config), arch)


def _newest(folder: pathlib.Path, now: float) -> tuple[int, float] | None:
    """The number of the newest checkpoint in `folder`, and how old it is in seconds."""
    numbers = [int(place.name) for place in folder.glob("[0-9]*") if place.name.isdigit()]
    if not numbers:
        return None
    try:
        taken = (folder / str(max(numbers))).stat().st_mtime
    except OSError:  # gone meanwhile
        return None
    return max(numbers), max(now - taken, 0.0)


def left(found: Status, now: float) -> tuple[float, float]:
    """Seconds that are left by evaluations, and by `search.seconds`; infinite: unknown, no limit.

    What the process says of itself is newer, and knows of compilation in it.
    """
    if found.config is None or (found.result is not None and not found.running):
        return math.inf, math.inf
    live, by_count = found.live or {}, found.left
    if found.running and live.get("stage") == "search" and live.get("left") is not None:
        by_count = max(live["left"] - max(now - live["at"], 0.0), 0.0)
    limit = budget.seconds(found.config.search)
    spent = number(found.line, "seconds/total")
    if not limit or spent is None:
        return by_count, math.inf
    since = max(now - live["at"], 0.0) if found.running and "at" in live else 0.0
    return by_count, max(limit - spent - since, 0.0)


def number(line: Mapping[str, Any], name: str) -> Any:
    """The number of this name in a line of metrics.jsonl; None where it has none."""
    value = line.get(name)
    return value if type(value) in (int, float) else None
