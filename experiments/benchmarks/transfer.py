"""What TNAS saves where another task of the space is known, and what it costs where none is.

    python -m experiments.benchmarks.transfer --data DIR --json OUT

Tables: NATS-Bench CIFAR-10 to CIFAR-100 and back. The history is 200 random rows of the other task,
drawn and meta-learnt anew for each seed; `_full`: the whole other task, learnt once; `_misled`: the
200 rows with their accuracies permuted; `_reversed`: with their order upside down; the tasks
without an arrow: no history at all. Evaluations count distinct networks. Both tables hold test
accuracies only. Tasks without images have no use for the data-set encoder: phi of the one known
task is learnt, that of the new one is 0.

Seeds are those of `sample_efficiency`, and all warm methods know the same rows with the same seed.
Each method is compared with `gp_ei` and with `gp_warm_own` seed by seed (`.._over_gp_ei`: median
ratio of evaluations; `.._won_from_gp_ei`: share of seeds that needed fewer), where these ran.
`latest`: evaluations of the seed that took the most; null where one never arrived. Where a history
misleads, searches are of 150 evaluations at least.

With `--knowledge DIR`, the image tasks of `image_tasks.py`, too.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.benchmarks import image_transfer, records
from experiments.benchmarks.presets import OTHER
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from experiments.benchmarks.table_search import MISLEADS, comparable, informed
from experiments.benchmarks.transfer_methods import BASELINES, DEFAULT, VARIANTS
from experiments.benchmarks.transfer_searches import (
    FULL,
    REGRET_AT,
    Outcome,
    baseline,
    scratch,
    speed,
    transferred,
)
from fnas_jax.core import stages
from fnas_jax.core.types import UserError
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.tasks import tables
from fnas_jax.tasks.tables import Table

BENCHMARK = "transfer"
AGAINST = ("gp_ei", "gp_warm_own")  # methods that the others are compared with, seed by seed
# Parts that have one, and how it is called in names of tasks.
HISTORIES = {"history": "", "full": FULL, **{kind[1:]: kind for kind in MISLEADS}}
PARTS = (*HISTORIES, "scratch", "speed")


def figures(task: str, method: str, outcome: Outcome) -> list[Record]:
    """The records of one method on one task."""
    names, n = (BENCHMARK, task, method), len(outcome.hits)
    over_seeds = functools.partial(records.over_seeds, *names)
    found = [over_seeds("evals_to_top0.1pct", outcome.hits)]
    found += [over_seeds(f"regret@{k}", outcome.regret[:, i]) for i, k in enumerate(REGRET_AT)]
    if np.isfinite(outcome.tau).all():
        found.append(over_seeds("tau_zero_shot", outcome.tau))
    found.append(records.record(*names, "latest", float(outcome.hits.max()), n))
    reached = float(np.isfinite(outcome.hits).mean())
    found.append(records.record(*names, "reached", reached, n))
    return [*found, records.record(*names, "seconds", outcome.seconds, n)]


def row(found: list[Record]) -> str:
    """One line of the printed table."""
    by = {r["metric"]: r for r in found}
    number = functools.partial(records.text, none="inf")
    hit = by["evals_to_top0.1pct"]
    cells = [f"{hit['task']:<34}{hit['method']:<20}{number(hit['value'], '.0f'):>6}"]
    cells.append(f"{number(hit['low'], '.0f'):>5} ..{number(hit['high'], '.0f'):>5}")
    cells += [f"{number(by[f'regret@{k}']['value'], '.2f'):>7}" for k in (5, 10, 20, 50)]
    tau = by.get("tau_zero_shot", {"value": math.nan})["value"]
    return " ".join([*cells, f"{tau:7.2f}{by['seconds']['value']:8.0f}"])


def against(task: str, outcomes: dict[str, Outcome], method: str) -> list[Record]:
    """How `method` compares with those of `AGAINST` among the outcomes of a task."""
    found = []
    for other in AGAINST:
        if other in outcomes and other != method:
            pairs = comparable(outcomes[method], outcomes[other])
            names = (BENCHMARK, task, method, "evals_to_top0.1pct", other)
            found += records.paired(*names, *pairs, records.RATIO)
    return found


class Report:
    """The records so far: what is measured stays, whatever happens."""

    def __init__(self, path: str | None):
        self.path = path
        self.found: list[Record] = []
        self.outcomes: dict[str, dict[str, Outcome]] = {}  # of each task, by method

    def add(self, task: str, method: str, outcome: Outcome) -> None:
        """Prints and writes the figures of one method."""
        self.outcomes.setdefault(task, {})[method] = outcome
        new = figures(task, method, outcome)
        say(row(new))
        self.extend(new)

    def compare(self) -> None:
        """Prints and writes how methods compare on the tasks that had several."""
        new = [
            record
            for task, each in self.outcomes.items()
            for method in each
            for record in against(task, each, method)
        ]
        if new:
            say("\n".join(records.lines(new)))
        self.extend(new)

    def extend(self, new: list[Record]) -> None:
        """Writes more records."""
        self.found += new
        records.write(self.path, self.found)


class Turn(NamedTuple):
    """What is measured at once: all seeds of a method on a task."""

    task: str
    method: str
    measure: Callable[[], Outcome]


def with_history(options: argparse.Namespace, name: str, table: Table, other: Table) -> list[Turn]:
    """Every method on one table that knows rows of another one."""
    arrow = f"{OTHER[name]}_to_{name.removeprefix('nats_')}"
    kinds = [kind for part, kind in HISTORIES.items() if part in options.parts]
    return [
        Turn(arrow + kind, method, measure)
        for method in options.methods
        for kind, measure in measures(method, kinds, options.seeds, table, other)
    ]


def measures(
    method: str, kinds: list[str], seeds: int, table: Table, other: Table
) -> list[tuple[str, Callable[[], Outcome]]]:
    """(kind, its measurement) of those kinds of history that are there for `method`."""
    partial = functools.partial
    if method in VARIANTS:
        of = partial(transferred, table, VARIANTS[method], seeds, other)
        return [(kind, partial(of, kind)) for kind in kinds if not kind or method == "tnas"]
    chosen, kinds = BASELINES[method], [kind for kind in kinds if kind != FULL]
    if chosen.warm:
        return [(kind, partial(baseline, table, chosen, seeds, other, kind)) for kind in kinds]
    # It knows no history: what is measured once stands beside each.
    once = functools.cache(partial(baseline, table, chosen, seeds, None))
    return [(kind, once) for kind in kinds]


def without_history(options: argparse.Namespace, name: str, table: Table) -> list[Turn]:
    """Two methods on one table that know of no other."""
    if "scratch" not in options.parts:
        return []
    plain = functools.partial(baseline, table, BASELINES["gp_ei"], options.seeds, None)
    tnas = functools.partial(scratch, table, Tnas(), options.seeds)
    return [Turn(name, "gp_ei", plain), Turn(name, "tnas_scratch", tnas)]


def turns(options: argparse.Namespace, named: dict[str, Table]) -> list[Turn]:
    """All that is measured on the tables `named`: on those of `options.tasks`."""
    found: list[Turn] = []
    for name, other in OTHER.items():
        if name in options.tasks:
            found += with_history(options, name, named[name], named[other])
    for name in options.tasks:
        found += without_history(options, name, named[name])
    return found


def run(report: Report, options: argparse.Namespace) -> None:
    """Measures and prints every method on every task of tables. Raises UserError."""
    named = {name: informed(tables.load(name, options.data)) for name in tables.FILES}
    say(f"{'task':<34}{'method':<20}median   5% .. 95% regret@5  @10    @20    @50    tau seconds")
    for turn in followed(
        BENCHMARK, turns(options, named), lambda turn: f"{turn.task}, {turn.method}"
    ):
        report.add(turn.task, turn.method, turn.measure())
    if "speed" in options.parts:
        with stages.at("how fast TNAS is"):
            learnt, trial = speed(named["nats_cifar100"], named["nats_cifar10"])
        say(f"meta-learning {learnt:.0f} s, with compilation; a trial {trial:.3f} s")
        names = (BENCHMARK, "speed", "tnas")
        report.extend([records.record(*names, "meta_train_seconds", learnt)])
        report.extend([records.record(*names, "trial_seconds", trial)])
    report.compare()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    records.add_data(parser)
    records.add_names(parser, "--methods", DEFAULT)
    records.add_names(parser, "--tasks", tables.FILES, "that are searched")
    records.add_names(parser, "--parts", PARTS, "'' for none")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--knowledge", default="", help="folder of the histories of image tasks")
    options = parser.parse_args(arguments)
    records.check_names(parser, "method", options.methods, [*VARIANTS, *BASELINES])
    records.check_names(parser, "part", options.parts, PARTS)
    records.check_names(parser, "task", options.tasks, tables.FILES)
    records.check_least(parser, options, 1, "seeds")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    report = Report(options.json)
    try:
        with stages.running():
            if options.parts:
                run(report, options)
            if options.knowledge:
                report.extend(image_transfer.run(options.knowledge, options.seeds))
        report.extend([])  # writes the file where there was nothing to measure
    except (UserError, OSError) as error:
        return records.fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
