"""How many architectures a search must train before it finds one of the best 0.1%.

    python -m experiments.benchmarks.sample_efficiency --data DIR --json OUT

On the tables NAS-Bench-Macro (a query sees one of three noisy trainings) and NATS-Bench (CIFAR-10
and CIFAR-100), or any file given as `--table NAME=PATH`. All seeds of a method run side by side in
one jitted function. Both tables hold test accuracies only, so nothing here compares with results
of searches on validation accuracy. Known architectures are free: evaluations count distinct ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.theory import random_quantiles
from fnas_jax import scan
from fnas_jax.core.types import UserError
from fnas_jax.methods import scores
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.baselines import evolution, gp, local, ppo, random
from fnas_jax.methods.baselines.config import Evolution, Gp
from fnas_jax.methods.fnas import method as fnas
from fnas_jax.methods.fnas import transfer
from fnas_jax.methods.fnas.config import Aeb, Config, Fnas, Uac
from fnas_jax.methods.rl.config import Ppo
from fnas_jax.tasks import tables, tabular
from fnas_jax.tasks.tables import Table

BENCHMARK = "sample_efficiency"
REGRET_AT = (25, 50, 100, 200, 500)


class Preset(NamedTuple):
    """A method as it runs here; the only place where its numbers are set."""

    make: Callable[..., SearchMethod]  # of the space, and of samples of a source task where `warm`
    iterations: int  # long enough for 95% of the seeds to arrive
    warm: bool = False  # starts from rows of the other task of the same file


# The product's numbers, but for a buffer that a hundred seeds side by side find room for.
# One architecture an iteration is trained, the best predicted; the other seven of the batch teach
# the controller by predictions, unless the critic is quite unsure of them.
FNAS = Config(batch=8, aeb=Aeb(capacity=192))
PRESETS = {
    "random": Preset(lambda space: random.make(space, batch=32), 200),
    "evolution": Preset(lambda space: evolution.make(space, Evolution(), batch=1), 2500),
    "local": Preset(lambda space: local.make(space, batch=1), 1500),
    "gp_ei": Preset(lambda space: gp.make(space, Gp(), batch=1, capacity=150), 150),
    "gp_ucb": Preset(lambda space: gp.make(space, Gp("ucb"), batch=1, capacity=150), 150),
    "ppo": Preset(lambda space: ppo.make(space, Ppo(), batch=8), 200),
    "fnas": Preset(lambda space: fnas.make(space, FNAS), 145),
    "fnas_warm": Preset(lambda space, source: fnas.make(space, FNAS, source), 60, warm=True),
}


def _changed(**sections: Any) -> Preset:
    config = FNAS._replace(**sections)
    return Preset(lambda space: fnas.make(space, config), 145)


# FNAS with one part off, or another kind of uncertainty; only run when they are named.
ABLATIONS = {
    "fnas_no_uac": _changed(uac=Uac(enabled=False)),
    "fnas_no_aeb": _changed(aeb=Aeb(enabled=False)),
    "fnas_no_imagination": _changed(fnas=Fnas(imagination=0)),
    "fnas_residual": _changed(uac=Uac(uncertainty="residual")),
}


SOURCE_ROWS = 200  # of the other task, drawn anew for each seed
OTHER = {"nats_cifar10": "nats_cifar100", "nats_cifar100": "nats_cifar10"}


class Outcome(NamedTuple):
    """What S seeds of a method reached on a table."""

    hits: np.ndarray  # [S] evaluations until the first top architecture; inf: never
    regret: np.ndarray  # [S, len(REGRET_AT)] accuracy points, incumbent by observed value
    evaluations: np.ndarray  # [S] evaluations spent in all
    seconds: float  # of all seeds together, after compilation
    coverage: np.ndarray  # [S] share of errors within U, second half; NaN without a critic
    tau: np.ndarray  # [S] Kendall's tau of predictions and first readings, second half


def measure(
    table: Table, preset: Preset, seeds: int, noisy: bool = True, other: Table | None = None
) -> Outcome:
    """Runs `seeds` searches of one method side by side; a warm one knows rows of `other`."""
    where = tabular.index(table)
    evaluator = tabular.evaluator(table, where, lambda accuracy, *costs: accuracy, noisy)
    method = preset.make(table.space, *([source(other)] if preset.warm and other else []))
    judged, top = jnp.asarray(table.judged), jnp.asarray(tabular.top_rows(table))
    best = float(np.nanmax(table.judged))

    def search(key: jax.Array) -> tuple[jax.Array, ...]:
        _, _, trace = scan.run(method, evaluator, key, preset.iterations)
        rows = where.row_of(trace.archs.reshape(-1, trace.archs.shape[-1])).reshape(trace.ok.shape)
        progress = scan.progress(trace, judged[rows], top[rows])
        counts = progress.evaluations
        last = jnp.array([jnp.sum(counts <= n) - 1 for n in REGRET_AT])
        regret = 100 * (best - progress.incumbent[last])
        return progress.hit, regret, counts[-1], *foresight(trace)

    keys = jax.random.split(jax.random.key(0), seeds)
    compiled = jax.jit(jax.vmap(search)).lower(keys).compile()
    start = time.perf_counter()
    hits, regret, spent, coverage, tau = jax.block_until_ready(compiled(keys))
    seconds = time.perf_counter() - start
    hits = np.where(np.asarray(hits) < 0, np.inf, np.asarray(hits, np.float64))
    return Outcome(hits, *map(np.asarray, (regret, spent)), seconds, np.asarray(coverage), tau)


def foresight(trace: scan.Trace) -> tuple[jax.Array, jax.Array]:
    """Coverage and Kendall's tau of a critic in the second half; NaN where there is none."""
    if "checked" not in trace.stats:
        return jnp.float32(jnp.nan), jnp.float32(jnp.nan)
    half = len(trace.ok) // 2
    covered, checked = (trace.stats[name][half:].sum() for name in ("covered", "checked"))
    fresh = (trace.ok & trace.fresh)[half:].reshape(-1)
    predicted, reward = (x[half:].reshape(-1) for x in (trace.predicted, trace.reward))
    return covered / checked, scores.kendall(predicted, reward, fresh)


def source(table: Table) -> transfer.SourceTasks:
    """All rows of a table, of which each search draws its own."""
    task, nothing = np.zeros(len(table.archs), np.int32), np.zeros((2, 0), np.float32)
    return transfer.SourceTasks(table.archs, table.judged, task, nothing, SOURCE_ROWS)


def quantile(values: np.ndarray, q: float) -> float:
    """The smallest value that a share `q` of the seeds does not exceed; may be infinite."""
    ordered = np.sort(values)
    return float(ordered[max(0, math.ceil(q * len(ordered)) - 1)])


def records(task: str, method: str, outcome: Outcome) -> list[dict[str, Any]]:
    """The flat records of one method on one table."""
    n = len(outcome.hits)

    def record(metric: str, value: float, low: float | None, high: float | None) -> dict[str, Any]:
        return {
            "benchmark": BENCHMARK,
            "task": task,
            "method": method,
            "metric": metric,
            "value": finite(value),
            "low": finite(low),
            "high": finite(high),
            "n": n,
        }

    def spread(metric: str, values: np.ndarray) -> dict[str, Any]:
        return record(metric, *(quantile(values, q) for q in (0.5, 0.05, 0.95)))

    return [
        spread("evals_to_top0.1pct", outcome.hits),
        *(spread(f"regret@{k}", outcome.regret[:, i]) for i, k in enumerate(REGRET_AT)),
        record("reached", float(np.isfinite(outcome.hits).mean()), None, None),
        *(
            spread(name, values)
            for name, values in (("coverage", outcome.coverage), ("kendall_tau", outcome.tau))
            if np.isfinite(values).all()
        ),
        record("evals_spent", float(np.median(outcome.evaluations)), None, None),
        record("seconds", outcome.seconds, None, None),
    ]


def theory(table: Table, task: str) -> dict[str, Any]:
    """The record of what random search should need, computed without searching."""
    median, low, high = random_quantiles(table, (0.5, 0.05, 0.95))
    return {
        "benchmark": BENCHMARK,
        "task": task,
        "method": "random_theory",
        "metric": "evals_to_top0.1pct",
        "value": median,
        "low": low,
        "high": high,
        "n": 0,
    }


def finite(value: float | None) -> float | None:
    """JSON has no infinity: null."""
    return None if value is None or not math.isfinite(value) else value


def row(found: list[dict[str, Any]]) -> str:
    """One line of the printed table."""
    by = {r["metric"]: r for r in found}

    def number(value: float | None) -> str:
        return "inf" if value is None else f"{value:.0f}"

    hit = by["evals_to_top0.1pct"]
    cells = [f"{hit['task']:<24}{hit['method']:<15}{number(hit['value']):>6}"]
    cells.append(f"{number(hit['low']):>6} ..{number(hit['high']):>5}")
    cells += [f"{by[f'regret@{k}']['value'] or 0:7.2f}" for k in REGRET_AT if f"regret@{k}" in by]
    if "seconds" in by:
        cells.append(f"{by['reached']['value']:8.2f}{by['seconds']['value']:8.1f}")
    if "coverage" in by:
        cells.append(f"{by['coverage']['value']:8.2f}{by['kendall_tau']['value']:6.2f}")
    return " ".join(cells)


def run(
    named: dict[str, Table], methods: Iterable[str], seeds: int, clean: bool
) -> list[dict[str, Any]]:
    """Measures and prints every method on every table. Returns all records."""
    regret = " ".join(f"{f'@{k}':>7}" for k in REGRET_AT)
    print(f"{'task':<24}{'method':<15}median     5% .. 95% {regret}  reached seconds  coverage tau")
    found: list[dict[str, Any]] = []
    for name, table in named.items():
        noise = [True] + [False] * (clean and table.readings.shape[1] > 1)
        for method in methods:
            other = named.get(OTHER.get(name, ""))
            preset = (PRESETS | ABLATIONS)[method]
            if preset.warm and other is None:
                print(f"{name:<24}{method:<15}there is no other task of this space among the tasks")
                continue
            for noisy in noise:
                task = name if noisy else f"{name}_noise_free"
                new = records(task, method, measure(table, preset, seeds, noisy, other))
                print(row(new), flush=True)
                found += new
        if "random" in methods:
            found.append(theory(table, name))
            print(row(found[-1:]), flush=True)
    print(
        "Evaluations until one of the top 0.1% is trained, and regret in points after n"
        " evaluations; medians over seeds. Accuracies are the tables' test accuracies."
    )
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    data = os.environ.get("FNAS_DATA", str(shared))
    parser.add_argument("--data", default=data, help="folder of the tables (FNAS_DATA)")
    parser.add_argument("--methods", default=",".join(PRESETS), help="joined by commas")
    parser.add_argument("--tasks", default=",".join(tables.FILES), help="joined by commas")
    parser.add_argument("--table", action="append", default=[], help="NAME=PATH of a plain CSV")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--noise_free", action="store_true", help="macro without noise as well")
    parser.add_argument("--json", help="write the records there")
    options = parser.parse_args(arguments)
    options.methods = [m for m in options.methods.split(",") if m]
    for method in options.methods:
        if method not in PRESETS | ABLATIONS:
            names = ", ".join(PRESETS | ABLATIONS)
            parser.error(f"unknown method {method!r}; allowed are {names}")
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; it must be at least 1")
    options.tables = {}
    for pair in options.table:
        name, _, path = pair.partition("=")
        if not (name and path):
            parser.error(f"--table is {pair!r}; it must be NAME=PATH")
        options.tables[name] = path
    options.tasks = [] if options.tables else [t for t in options.tasks.split(",") if t]
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    try:
        named = {name: tables.load(name, options.data) for name in options.tasks}
        named |= {name: tables.load(path, options.data) for name, path in options.tables.items()}
        if options.json:
            Path(options.json).write_text("[]\n")  # an unwritable place shows before the work
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = run(named, options.methods, options.seeds, options.noise_free)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
