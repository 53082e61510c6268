"""What a large knowledge store takes: to write, to learn from and to look into.

    python -m experiments.benchmarks.store_load --json OUT

A store in a temporary folder is filled with rows of made-up searches of NAS-Bench-Macro's space, of
several tasks, each iteration a transaction as in a search. Then, each in a process of its own, so
that memory is its own:

- `commit`: an iteration's transaction, by one process and by `--processes` at once;
- `start`, `resume`: what a search asks of the store before its loop (`history.count_trained`,
  `history.trim`);
- `fnas`, `tnas`: what they learn from (`sources.load`, and what TNAS makes of it);
- `trials`, `report`: as the commands of these names.

`cpu` are seconds of processor time, `mib` is what each adds to the memory of its process, and
`rows_lost` how many rows of the processes do not stand there in the end. Then searches of
`--proposals` on a made-up table: `mib_growth` is how much more memory they take than searches of a
quarter as many.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import itertools
import json
import multiprocessing
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks import records
from experiments.benchmarks.progress import followed
from experiments.benchmarks.records import Record
from fnas_jax import loop, report, trials
from fnas_jax.core import config as config_lib
from fnas_jax.core import identity, run_json, stages
from fnas_jax.core import reward as rewards
from fnas_jax.knowledge import history, sources, store
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.knowledge.history import Row, Run
from fnas_jax.methods.fnas import build as fnas
from fnas_jax.methods.tnas import source_tasks
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.spaces import macro

BENCHMARK = "store_load"
SPACE = macro.make()
TASKS, BATCH = 10, 1000  # of the store; rows of an iteration that fills it
NEW = 8  # rows of an iteration that is timed
MOST = 2000  # `fnas.foreign_rows` of a search
REWARD = rewards.define(config_lib.default())


def run_of(number: int) -> Run:
    """Search `number` of the store."""
    task = f"tabular/task{number % TASKS}"
    protocol = identity.text({"task": task, "metric": "acc"})
    return Run(f"{number:032x}", SPACE.name, task, 0, number, {}, SPACE.identity, protocol)


def rows_of(seed: int, count: int) -> list[Row]:
    """Made-up evaluations."""
    rng = np.random.default_rng(seed)
    archs = rng.integers(0, SPACE.cardinalities, (count, len(SPACE.cardinalities))).tolist()
    accuracy = rng.uniform(size=count).tolist()
    nan = float("nan")
    return [
        Row(i, arch, True, True, value, value, nan, 10.0, nan, 1.0)
        for i, (arch, value) in enumerate(zip(archs, accuracy, strict=True))
    ]


def fill(folder: pathlib.Path, rows: int, runs: int) -> None:
    """`rows` rows, of each of `runs` searches about as many."""
    with store.opened(folder) as known:
        for number in range(-(-rows // BATCH)):
            few = min(BATCH, rows - number * BATCH)
            history.record(known, run_of(number % runs), number // runs, rows_of(number, few))


def commits(folder: pathlib.Path, number: int, count: int) -> list[float]:
    """Seconds of each of `count` iterations of search `number`."""
    times = []
    with store.opened(folder) as known:
        for iteration in range(count):
            rows = rows_of(number + iteration, NEW)
            start = time.perf_counter()
            history.record(known, run_of(number), iteration, rows)
            times.append(time.perf_counter() - start)
    return times


def started(folder: pathlib.Path) -> None:
    """What a new search asks of the store."""
    with store.opened(folder) as known:
        history.count_trained(known, "f" * 32)


def resumed(folder: pathlib.Path) -> None:
    """What one that goes on asks of it."""
    with store.opened(folder) as known:
        run = run_of(0).id
        history.count_trained(known, run)
        history.trim(known, run, 10**6)


def asker() -> sources.Asker:
    """A search of the same space on another task."""
    return sources.Asker(SPACE, "tabular/new", "", REWARD)


@contextlib.contextmanager
def knowledge(folder: pathlib.Path) -> Iterator[Knowledge]:
    """The store as a new search has it, which writes down what it takes."""
    with store.opened(folder) as known, tempfile.TemporaryDirectory() as place:
        yield Knowledge(known, time.time(), run="f" * 32, pinned=pathlib.Path(place, "taken.npz"))


def learnt_by_fnas(folder: pathlib.Path) -> None:
    """What FNAS's critic starts from."""
    with knowledge(folder) as known:
        assert fnas.source_tasks(asker(), {}, known, MOST) is not None


def learnt_by_tnas(folder: pathlib.Path) -> None:
    """What TNAS learns from, and what its predictions are conditioned on."""
    with knowledge(folder) as known:
        rows = sources.load(asker(), known)
    assert rows is not None
    every = source_tasks.gather(SPACE, rows.decisions, rows.reward, rows.task)
    source_tasks.support(every, Tnas().support)


def workdir_of(folder: pathlib.Path) -> pathlib.Path:
    """The workdir of search 0 of the store in `folder`."""
    place = folder.with_name("run")
    place.mkdir(exist_ok=True)
    changed = {"knowledge.dir": str(folder), "task.name": run_of(0).task}
    config = config_lib.nest(config_lib.flatten(config_lib.default()) | changed)
    (place / "config.json").write_text(json.dumps(config.to_dict()))
    (place / "run.json").write_text(json.dumps(run_json.Run(run_of(0).id, 1)._asdict()))
    return place


def listed(folder: pathlib.Path) -> None:
    """`trials` of the ten best."""
    found = trials.read(workdir_of(folder))
    trials.table(trials.best(found, 10))


def reported(folder: pathlib.Path) -> None:
    """`report`."""
    report.write(str(workdir_of(folder)))


# ---- processes of their own


class Taken(NamedTuple):
    """What some work has taken of its process."""

    seconds: float
    cpu: float  # seconds of processor time, which other programs disturb less
    mib: float  # that it added to the most that the process had


def timed(work: Callable[[], Any]) -> Taken:
    """What `work` takes."""
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    work()
    return Taken(time.perf_counter() - start, time.process_time() - cpu, peak() - before)


def peak() -> float:
    """Most MiB that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns in a process of its own."""
    return side_by_side(work, [arguments])[0]


def side_by_side(work: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
    """What `work` returns of each of `arguments`, in processes that run at once."""
    with multiprocessing.get_context("spawn").Pool(len(arguments)) as pool:
        return pool.starmap(work, arguments, chunksize=1)


# ---- a long search


def write_table(path: pathlib.Path) -> None:
    """A made-up table of 3^10 networks: what has more 1s is better."""
    archs = np.stack(np.meshgrid(*[np.arange(3)] * 10, indexing="ij"), axis=-1).reshape(-1, 10)
    head = ",".join(f"decision_{t}" for t in range(10)) + ",acc"
    values = (archs == 1).mean(axis=1, keepdims=True)
    np.savetxt(path, np.hstack([archs, values]), "%.6g", ",", header=head, comments="")


def searched(folder: pathlib.Path, method: str, proposals: int) -> None:
    """A search of `proposals` on the table in `folder`."""
    changed = {
        "task.name": f"tabular/{folder / 'made_up.csv'}",
        "method.name": method,
        "search.budget": proposals,
        "search.max_proposals": proposals,
        "search.batch": 32,
        "log.every": 100,
        "jax.cache_dir": "",  # whoever compiles takes more memory
    }
    config = config_lib.nest(config_lib.flatten(config_lib.default()) | changed)
    with contextlib.redirect_stderr(io.StringIO()):
        loop.run(config, folder / f"{method}-{proposals}")


# ---- the figures


def of_store(options: argparse.Namespace, folder: pathlib.Path) -> Iterator[Record]:
    """A full store is written in `folder`, and asked."""
    name = f"{options.rows:,} rows"
    figure = functools.partial(records.record, BENCHMARK, name)
    with stages.at(f"writing a store of {name}"):
        taken = apart(timed, functools.partial(fill, folder, options.rows, options.runs))
    yield figure("insert", "rows_per_second", options.rows / taken.seconds)
    with stages.at("commits by one process"):
        times = apart(commits, folder, options.runs, options.iterations)
    yield records.over_seeds(BENCHMARK, name, "commit", "ms", [1000 * t for t in times])
    yield from of_processes(options, folder, name)
    works: dict[str, Callable[[pathlib.Path], None]] = {
        "start": started,
        "resume": resumed,
        "fnas": learnt_by_fnas,
        "tnas": learnt_by_tnas,
        "trials": listed,
        "report": reported,
    }
    for method in followed(BENCHMARK, works):
        taken = apart(timed, functools.partial(works[method], folder))
        for metric, value in taken._asdict().items():
            yield figure(method, metric, value)


def of_processes(options: argparse.Namespace, folder: pathlib.Path, name: str) -> Iterator[Record]:
    """Several processes write at once; all that they wrote must stand there."""
    first = options.runs + 1
    writers = range(first, first + options.processes)
    arguments = [(folder, number, options.iterations) for number in writers]
    with stages.at(f"commits by {len(writers)} processes"):
        times = [1000 * t for found in side_by_side(commits, arguments) for t in found]
    method = f"commit by {options.processes}"
    yield records.over_seeds(BENCHMARK, name, method, "ms", times)
    yield records.record(BENCHMARK, name, method, "most_ms", max(times))
    with store.opened(folder) as known:
        there = sum(history.count_trained(known, run_of(number).id) for number in writers)
    lost = len(writers) * options.iterations * NEW - there
    yield records.record(BENCHMARK, name, method, "rows_lost", lost)


def of_searches(options: argparse.Namespace, folder: pathlib.Path) -> Iterator[Record]:
    """Memory of long searches and of a quarter of them."""
    write_table(folder / "made_up.csv")
    sizes = options.proposals // 4, options.proposals
    turns = itertools.product(("random", "fnas"), sizes)
    taken = {
        turn: apart(timed, functools.partial(searched, folder, *turn))
        for turn in followed(BENCHMARK, turns, lambda t: f"{t[1]:,} proposals of {t[0]}")
    }
    for method in ("random", "fnas"):
        few, most = (taken[method, proposals] for proposals in sizes)
        figure = functools.partial(
            records.record, BENCHMARK, f"{options.proposals:,} proposals", method
        )
        yield figure("seconds", most.seconds)
        yield figure("mib_growth", most.mib - few.mib)


def run(options: argparse.Namespace) -> list[Record]:
    """All figures."""
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        return [*of_store(options, folder / "store"), *of_searches(options, folder)]


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--runs", type=int, default=100, help="searches that made the rows")
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=100, help="that are timed")
    parser.add_argument("--proposals", type=int, default=20_000)
    options = parser.parse_args(arguments)
    records.check_least(parser, options, 1, "runs", "processes", "iterations")
    records.check_least(parser, options, sources.MIN_ROWS, "rows")
    records.check_least(parser, options, 400, "proposals")
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
