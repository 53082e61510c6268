"""How many architectures a search must train before it finds one of the best 0.1%.

    python -m experiments.benchmarks.sample_efficiency --data DIR --json OUT

On the tables NAS-Bench-Macro (a query sees one of three noisy trainings) and NATS-Bench (CIFAR-10
and CIFAR-100), or any file given as `--table NAME=PATH`. All seeds of a method run side by side in
one jitted function. Both tables hold test accuracies only, so nothing here compares with results
of searches on validation accuracy. Known architectures are free: evaluations count distinct ones.

Every method starts from the same seeds, so that it is compared with `gp_ei` seed by seed where both
are measured: `evals_to_top0.1pct_over_gp_ei` is the median ratio, `.._won_from_gp_ei` the share of
seeds that needed fewer. The methods of `rivals.py` (`optuna_tpe`, ..) run when they are named.

Where a table has training times (a column `train_seconds`, or the one that `--time` names),
`simulated_seconds_to_top0.1pct` says how long the networks trained up to there took by it, one
after another: the axis of a search's time in papers.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from experiments.benchmarks import records, rivals
from experiments.benchmarks.presets import ABLATIONS, OTHER, PRESETS, Preset
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from experiments.benchmarks.rivals import RIVALS, Rival
from experiments.benchmarks.table_search import REGRET_AT, Outcome, comparable, informed, measure
from experiments.benchmarks.theory import random_quantiles
from fnas_jax.core.types import UserError
from fnas_jax.tasks import tables
from fnas_jax.tasks.plain_table import Asked
from fnas_jax.tasks.tables import Table

BENCHMARK = "sample_efficiency"
AGAINST = "gp_ei"  # the method that the others are compared with, seed by seed


def figures(task: str, method: str, outcome: Outcome) -> list[Record]:
    """The records of one method on one table."""
    names, n = (BENCHMARK, task, method), len(outcome.hits)
    over_seeds = functools.partial(records.over_seeds, *names)
    times = outcome.hit_seconds
    reached = float(np.isfinite(outcome.hits).mean())
    known = [
        over_seeds("evals_to_best", outcome.best_hits),
        *(over_seeds(f"regret@{k}", outcome.regret[:, i]) for i, k in enumerate(REGRET_AT)),
    ]
    return [
        over_seeds("evals_to_top0.1pct", outcome.hits),
        *(r for r in known if r["n"]),  # rivals end at the top
        records.record(*names, "reached", reached, n),
        *(
            over_seeds(name, values)
            for name, values in (("coverage", outcome.coverage), ("kendall_tau", outcome.tau))
            if np.isfinite(values).all()
        ),
        *(over_seeds(f"trained_for_{rule}", share) for rule, share in outcome.shares.items()),
        over_seeds("evals_spent", outcome.evaluations),
        *([] if times is None else [over_seeds("simulated_seconds_to_top0.1pct", times)]),
        records.record(*names, "seconds", outcome.seconds, n),
    ]


def theory(table: Table, task: str) -> Record:
    """The record of what random search should need, computed without searching."""
    median, *span = random_quantiles(table, (0.5, records.LOW, records.HIGH))
    names = (BENCHMARK, task, "random_theory", "evals_to_top0.1pct")
    return records.record(*names, median, 0, (span[0], span[1]))


def row(found: list[Record]) -> str:
    """One line of the printed table."""
    by = {r["metric"]: r for r in found}

    number = functools.partial(records.text, form=".0f", none="inf")
    hit = by["evals_to_top0.1pct"]
    cells = [f"{hit['task']:<24}{hit['method']:<15}{number(hit['value']):>6}"]
    cells.append(f"{number(hit['low']):>6} ..{number(hit['high']):>5}")
    regret = [by.get(f"regret@{k}", {"value": None})["value"] for k in REGRET_AT]
    cells += [f"{records.text(value, '.2f'):>7}" for value in regret if "seconds" in by]
    if "seconds" in by:
        cells.append(f"{by['reached']['value']:8.2f}{by['seconds']['value']:8.1f}")
    if "simulated_seconds_to_top0.1pct" in by:
        times = by["simulated_seconds_to_top0.1pct"]
        cells.append(f"  {records.text(times['value'], ',.0f', 'inf')} s of training to the top")
    if "coverage" in by:
        cells.append(f"{by['coverage']['value']:8.2f}{by['kendall_tau']['value']:6.2f}")
    return " ".join(cells)


def chosen() -> dict[str, Preset | Rival]:
    """All methods that can be named."""
    return PRESETS | ABLATIONS | RIVALS


class Turn(NamedTuple):
    """What is measured at once: all seeds of a method on a table."""

    table: str
    task: str  # of its records
    method: str
    noisy: bool


def planned(named: dict[str, Table], methods: Iterable[str], clean: bool) -> list[Turn]:
    """Every method on every table; where there is nothing to start warm from, it says so."""
    found = []
    for name, method in itertools.product(named, methods):
        if chosen()[method].warm and OTHER.get(name, "") not in named:
            say(f"{name:<24}{method:<15}there is no other task of this space among the tasks")
            continue
        found.append(Turn(name, name, method, True))
        if clean and named[name].readings.shape[1] > 1:
            found.append(Turn(name, f"{name}_noise_free", method, False))
    return found


def run(named: dict[str, Table], methods: Iterable[str], seeds: int, clean: bool) -> list[Record]:
    """Measures and prints every method on every table. Returns all records."""
    regret = " ".join(f"{f'@{k}':>7}" for k in REGRET_AT)
    say(f"{'task':<24}{'method':<15}median     5% .. 95% {regret}  reached seconds  coverage tau")
    found: list[Record] = []
    turns = followed(BENCHMARK, planned(named, methods, clean), lambda t: f"{t.task}, {t.method}")
    for name, of_table in itertools.groupby(turns, lambda turn: turn.table):
        outcomes: dict[str, dict[str, Outcome]] = {}
        for _, task, method, noisy in of_table:
            how, other = chosen()[method], named.get(OTHER.get(name, ""))
            measuring = rivals.measure if isinstance(how, Rival) else measure
            outcome = measuring(named[name], how, seeds, noisy, other)
            outcomes.setdefault(task, {})[method] = outcome
            new = figures(task, method, outcome)
            say(row(new))
            found += new
        if "random" in methods:
            found.append(theory(named[name], name))
            say(row(found[-1:]))
        new = [r for task, each in outcomes.items() for r in against(task, each)]
        if new:
            say("\n".join(records.lines(new)))
        found += new
    say(
        "Evaluations until one of the top 0.1% is trained, and regret in points after n"
        " evaluations; medians over seeds. Accuracies are the tables' test accuracies."
    )
    return found


def against(task: str, outcomes: dict[str, Outcome]) -> list[Record]:
    """How every other method compares with `AGAINST`, seed by seed; none where that is missing."""
    if AGAINST not in outcomes:
        return []
    found = []
    for method, outcome in outcomes.items():
        if method != AGAINST:
            pairs = comparable(outcome, outcomes[AGAINST])
            names = (BENCHMARK, task, method, "evals_to_top0.1pct")
            found += records.paired(*names, AGAINST, *pairs, records.RATIO)
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    records.add_data(parser)
    records.add_names(parser, "--methods", PRESETS)
    records.add_names(parser, "--tasks", tables.FILES)
    parser.add_argument("--table", action="append", default=[], help="NAME=PATH of a plain CSV")
    parser.add_argument("--time", default="", help="column of training seconds of each --table")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--noise_free", action="store_true", help="macro without noise as well")
    options = parser.parse_args(arguments)
    records.check_names(parser, "method", options.methods, chosen())
    records.check_least(parser, options, 1, "seeds")
    options.tables = {}
    for pair in options.table:
        name, _, path = pair.partition("=")
        if not (name and path):
            parser.error(f"--table is {pair!r}; it must be NAME=PATH")
        options.tables[name] = path
    options.tasks = [] if options.tables else options.tasks
    if options.time and not options.tables:
        parser.error("--time names a column of --table files, and there is none")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    try:
        rivals.check(options.methods)
        named = {name: tables.load(name, options.data) for name in options.tasks}
        asked = Asked(time=options.time)
        named |= {n: tables.load(path, options.data, asked) for n, path in options.tables.items()}
        named = {name: informed(table) for name, table in named.items()}
        records.write(options.json, [])  # an unwritable place shows before the work
    except (UserError, OSError) as error:
        return records.fail(error)
    found = run(named, options.methods, options.seeds, options.noise_free)
    records.write(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
