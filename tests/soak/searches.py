"""Small searches by every method, and all that they come to, to be compared after a fault."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.registry import METHODS
from tests.methods.toy import SMALL_FNAS
from tests.soak import processes
from tests.soak.processes import Ended, Running
from tests.test_end_to_end import timeless

ON_IMAGES = tuple(METHODS)
TRAIN = ("pgnas", "spos", "hyperband", "bohb")
ON_TABLES = tuple(name for name in METHODS if name not in TRAIN)
SMALL = SMALL_FNAS | {
    "search.batch": 4,
    "gp.start": 4,
    "bananas.start": 4,
    "bananas.hidden": 8,
    "bananas.pool": 32,
    "bananas.members": 2,
    "bananas.steps": 10,
    "tnas.hidden": 8,
    "tnas.fusion": "(16,8)",
    "tnas.iterations": 4,
    "tnas.tasks": 1,
    "log.checkpoint_seconds": 0.0,
}
IMAGES = {
    "task.name": "images/digits",
    "space.blocks": 1,
    "space.strides": "(2,)",
    "space.stem": 16,
    "space.stem_stride": 1,
    "space.head": 64,
    "children.steps": 4,
    "children.batch_size": 32,
    "search.budget": 4,
    "search.batch": 2,
    "ppo.minibatches": 1,
    "winner.steps": 60,
    "winner.reference": False,
    "winner.finalists": 2,
    "akp.rounds": 1,
    "oneshot.steps": 40,
    "oneshot.every": 10,
    "oneshot.finetune": 20,
}


class Search(NamedTuple):
    """A search, by its keys and values."""

    name: str
    settings: dict[str, Any]

    def arguments(self, folder: pathlib.Path, **changes: Any) -> list[str]:
        """Of the command, in this workdir; `changes` of keys have __ for dots."""
        changed = {name.replace("__", "."): value for name, value in changes.items()}
        keys = {f"--config.{k}={v}" for k, v in (self.settings | changed).items()}
        return [f"--workdir={folder}", *sorted(keys)]


def of(name: str, place: pathlib.Path) -> Search:
    """The search METHOD-tables or METHOD-images; its table and compiled programs are in `place`."""
    method, _, task = name.partition("-")
    chosen: dict[str, Any] = {"method.name": method, "jax.cache_dir": ""}
    if task == "images":
        return Search(name, SMALL | IMAGES | chosen)
    table = place / "net.csv"
    if not table.exists():
        write_table(table)
    return Search(name, SMALL | {"task.name": f"tabular/{table}", "search.budget": 24} | chosen)


def write_table(path: pathlib.Path, sign: float = 1.0, decisions: int = 4) -> None:
    """A table of 3^`decisions` networks, whose accuracies rise with `sign` times decisions."""
    archs = np.stack(np.meshgrid(*[np.arange(3)] * decisions, indexing="ij"), axis=-1)
    lines = [",".join(f"decision_{t}" for t in range(decisions)) + ",acc,mflops"]
    for arch in archs.reshape(-1, decisions):
        value = 50 + sign * (20 / decisions * arch.sum() + arch[0] / 10)
        lines.append(",".join(map(str, arch)) + f",{value},{value}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def taught(place: pathlib.Path) -> pathlib.Path:
    """A store in `place` from which TNAS has something to learn: a search on another table."""
    knowledge, other = place / "taught", place / "other" / "net.csv"
    if not (knowledge / "history.sqlite").exists():
        write_table(other, sign=0.9)
        teacher = of("random-tables", place)
        changes = {"task__name": f"tabular/{other}", "knowledge__dir": knowledge}
        ended = run(teacher, place / "teacher", **changes)
        assert ended.code == 0, ended.said
    return knowledge


def make(search: Search, folder: pathlib.Path, place: pathlib.Path) -> None:
    """The workdir `folder` before the search, with the store of its own that TNAS learns from."""
    folder.mkdir(parents=True)
    if search.name == "tnas-tables":
        shutil.copytree(taught(place), folder / "knowledge")


def start(
    search: Search,
    folder: pathlib.Path,
    before: Callable[[], object] = processes.keep_often,
    **changes: Any,
) -> Running:
    """The search in `folder`, as a process; what it says goes to a file beside it."""
    said = folder.with_name(f"{folder.name}.said")
    return processes.start(said, "search", *search.arguments(folder, **changes), before=before)


def run(
    search: Search,
    folder: pathlib.Path,
    before: Callable[[], object] = processes.keep_often,
    **changes: Any,
) -> Ended:
    """`start`, and waits."""
    return processes.ended(start(search, folder, before, **changes))


def found(folder: pathlib.Path, knowledge: pathlib.Path | None = None) -> dict[str, Any]:
    """All that a finished search has come to, without times: its result, rows and metrics."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "result": timeless(json.loads((folder / "result.json").read_text())),
        "rows": rows(folder, knowledge or folder / "knowledge"),
        "metrics": [{k: v for k, v in line.items() if "seconds/" not in k} for line in lines],
    }


def rows(folder: pathlib.Path, knowledge: pathlib.Path) -> list[tuple[Any, ...]]:
    """What the store has of the search in `folder`, without times."""
    run = json.loads((folder / "run.json").read_text())["id"]
    fields = "iteration, position, decisions, trained, ok, accuracy, reward, mflops, params_m"
    with contextlib.closing(sqlite3.connect(knowledge / "history.sqlite")) as store:
        query = f"SELECT {fields} FROM evaluations WHERE run = ? ORDER BY 1, 2"
        return store.execute(query, (run,)).fetchall()


def differs(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Which part of what two searches have `found` differs; "" where nothing does."""
    return ", ".join(name for name in one if one[name] != other[name])
