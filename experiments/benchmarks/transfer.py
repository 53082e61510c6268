"""What TNAS saves where another task of the space is known, and what it costs where none is.

    python -m experiments.benchmarks.transfer --data DIR --json OUT

Tables: NATS-Bench CIFAR-10 to CIFAR-100 and back. The history is 200 random rows of the other task,
drawn and meta-learnt anew for each seed; `_full`: the whole other task, learnt once; `_misled`: the
200 rows with their accuracies permuted; the tasks without an arrow: no history at all. Evaluations
count distinct networks. Both tables hold test accuracies only. Tasks without images have no use for
the data-set encoder: phi of the one known task is learnt, that of the new one is 0.

With `--knowledge DIR`, the image tasks of `image_tasks.py`, too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import image_tasks, sample_efficiency
from experiments.benchmarks.sample_efficiency import finite, quantile, source
from experiments.benchmarks.transfer_methods import (
    BASELINES,
    DEFAULT,
    EVALUATIONS,
    VARIANTS,
    Baseline,
)
from fnas_jax import scan
from fnas_jax.core.types import Array, UserError
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.scores import kendall
from fnas_jax.methods.tnas import meta, networks, source_tasks, surrogate
from fnas_jax.methods.tnas import method as tnas
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.networks import Weights
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.enumerate import enumerate_networks
from fnas_jax.tasks import tables, tabular
from fnas_jax.tasks.tables import Table

BENCHMARK = "transfer"
REGRET_AT = (1, 2, 3, 5, 10, 20, 30, 40, 50)
ROWS = 200  # of the history
KINDS = ("", "_full", "_misled")  # of the history


class Outcome(NamedTuple):
    """What S seeds of a method reached on a task."""

    hits: np.ndarray  # [S] evaluations until the first top architecture; inf: never
    regret: np.ndarray  # [S, len(REGRET_AT)] accuracy points, incumbent by observed value
    seconds: float  # of all seeds together, with compilation
    tau: np.ndarray  # [S] zero-shot Kendall's tau on the whole table; NaN without a history


def searches(
    table: Table, make: Callable[[Any], SearchMethod], each: Any, iterations: int, seeds: int
) -> tuple[np.ndarray, np.ndarray]:
    """(hits [S], regret [S, ..]) of S searches by `make(each[s])`, one after another."""
    where = tabular.index(table)
    evaluator = tabular.evaluator(table, where, lambda accuracy, *costs: accuracy, True)
    judged, top = jnp.asarray(table.judged), jnp.asarray(tabular.top_rows(table))
    best = float(np.nanmax(table.judged))

    def one(pair: tuple[Array, Any]) -> tuple[Array, Array]:
        key, own = pair
        _, _, trace = scan.run(make(own), evaluator, key, iterations)
        rows = where.row_of(trace.archs.reshape(-1, trace.archs.shape[-1])).reshape(trace.ok.shape)
        progress = scan.progress(trace, judged[rows], top[rows])
        last = jnp.array([jnp.sum(progress.evaluations <= n) - 1 for n in REGRET_AT])
        regret = jnp.where(last < 0, jnp.inf, 100 * (best - progress.incumbent[last]))
        return progress.hit, regret

    keys = jax.random.split(jax.random.key(0), seeds)
    hits, regret = jax.jit(lambda pairs: jax.lax.map(one, pairs))((keys, each))
    hits = np.where(np.asarray(hits) < 0, np.inf, np.asarray(hits, np.float64))
    return hits, np.asarray(regret)


def baseline(table: Table, chosen: Baseline, seeds: int, other: Table | None) -> Outcome:
    """A method that needs no meta-learning; a warm one knows rows of `other`."""
    start = time.perf_counter()
    given = [source(other)] if chosen.warm and other is not None else []
    hits, regret = searches(
        table,
        lambda _: chosen.make(table.space, *given),
        jnp.zeros(seeds),
        chosen.iterations,
        seeds,
    )
    return Outcome(hits, regret, time.perf_counter() - start, np.full(seeds, np.nan))


def draw(space: Space, other: Table, key: Array, misled: bool) -> SourceTasks:
    """`ROWS` random rows of the other task; with their accuracies permuted where `misled`."""
    key_rows, key_permute = jax.random.split(key)
    rows = jax.random.choice(key_rows, len(other.archs), (ROWS,), replace=False)
    reward = jnp.asarray(other.judged)[rows]
    reward = jax.random.permutation(key_permute, reward) if misled else reward
    everyone = jnp.ones(ROWS, bool)
    forms = space.canonical(jnp.asarray(other.archs)[rows])
    return SourceTasks(
        forms[None], source_tasks.standardise(reward, everyone)[None], everyone[None]
    )


def learn(space: Space, config: Tnas, known: SourceTasks, key: Array) -> Weights:
    """The weights that one history teaches."""
    key_weights, key_meta = jax.random.split(key)
    weights = networks.init(key_weights, space, config, 1, 1)
    return meta.fit(meta.Context(space, config, known), weights, key_meta).best


def search(
    space: Space,
    config: Tnas,
    known: SourceTasks,
    w: Weights,
    support: SourceTasks | None = None,
) -> SearchMethod:
    """TNAS with weights that were learnt from the `known` tasks."""
    ctx = tnas.context(
        space, config, capacity=EVALUATIONS, source=known, weights=w, support=support
    )
    return tnas.make(ctx)


def sampled(table: Table) -> tuple[Array, Array]:
    """(forms [m, T], accuracies [m]) of at most 1000 networks of the table."""
    forms = np.random.default_rng(0).permutation(enumerate_networks(table.space))[:1000]
    rows = np.asarray(tabular.index(table).row_of(jnp.asarray(forms)))
    return jnp.asarray(forms), jnp.asarray(table.judged[rows])


def zero_shot(
    space: Space, some: tuple[Array, Array], config: Tnas, w: Weights, known: SourceTasks
) -> Array:
    """[] Kendall's tau of what is predicted of `some` networks without any evaluation."""
    model = surrogate.condition(space, config, w, known)
    mean = surrogate.conditioned(space, config, model, some[0]).mean
    return kendall(mean, some[1], jnp.isfinite(some[1]))


def transferred(table: Table, config: Tnas, seeds: int, other: Table, kind: str) -> Outcome:
    """TNAS on `table` with a history of the `other` task."""
    space, some, start = table.space, sampled(table), time.perf_counter()
    keys = jax.random.split(jax.random.key(1), seeds)
    if kind == "_full":
        task = np.zeros(len(other.archs), np.int32)
        whole = source_tasks.gather(space, other.archs, other.judged, task)
        support = source_tasks.support(whole, config.support)
        w = jax.jit(lambda key: learn(space, config, whole, key))(keys[0])
        print(f"  learnt from the full history in {time.perf_counter() - start:.0f} s", flush=True)
        hits, regret = searches(
            table,
            lambda _: search(space, config, whole, w, support),
            jnp.zeros(seeds),
            EVALUATIONS,
            seeds,
        )
        tau = zero_shot(space, some, config, w, support)
        return Outcome(hits, regret, time.perf_counter() - start, np.full(seeds, tau))

    def prepared(key: Array) -> tuple[SourceTasks, Weights, Array]:
        key_rows, key_learn = jax.random.split(key)
        known = draw(space, other, key_rows, kind == "_misled")
        w = learn(space, config, known, key_learn)
        return known, w, zero_shot(space, some, config, w, known)

    known, w, tau = jax.block_until_ready(jax.jit(lambda k: jax.lax.map(prepared, k))(keys))
    spent = (time.perf_counter() - start) / seeds
    print(f"  {spent:.1f} s a seed of meta-learning", flush=True)
    hits, regret = searches(
        table, lambda own: search(space, config, *own), (known, w), EVALUATIONS, seeds
    )
    return Outcome(hits, regret, time.perf_counter() - start, np.asarray(tau))


def scratch(table: Table, config: Tnas, seeds: int) -> Outcome:
    """TNAS without any history: the deep kernel, not meta-learnt."""
    start = time.perf_counter()
    ctx = tnas.context(table.space, config, capacity=2 * EVALUATIONS)
    hits, regret = searches(
        table,
        lambda _: tnas.make(ctx),
        jnp.zeros(seeds),
        2 * EVALUATIONS,
        seeds,
    )
    return Outcome(hits, regret, time.perf_counter() - start, np.full(seeds, np.nan))


def speed(table: Table, other: Table) -> list[dict[str, Any]]:
    """Seconds of meta-learning on a whole task and of a trial, by the product's default sizes."""
    space, config = table.space, Tnas()
    whole = source_tasks.gather(
        space, other.archs, other.judged, np.zeros(len(other.archs), np.int32)
    )
    start = time.perf_counter()
    learning = jax.jit(lambda key: learn(space, config, whole, key))
    w = jax.block_until_ready(learning(jax.random.key(0)))
    learnt = time.perf_counter() - start
    method = search(space, config, whole, w, source_tasks.support(whole, config.support))
    state, ask = jax.jit(method.init)(jax.random.key(1)), jax.jit(method.ask)
    spent = []
    for i in range(11):
        start = time.perf_counter()
        jax.block_until_ready(ask(state, jax.random.key(i)))
        spent.append(time.perf_counter() - start)
    trial = float(np.median(spent[1:]))  # the first compiles
    print(f"meta-learning {learnt:.0f} s, with compilation; a trial {trial:.3f} s", flush=True)
    figures = {"meta_train_seconds": learnt, "trial_seconds": trial}
    names = {"benchmark": BENCHMARK, "task": "speed", "method": "tnas"}
    empty = {"low": None, "high": None, "n": 1}
    return [{**names, "metric": m, "value": value, **empty} for m, value in figures.items()]


def records(task: str, method: str, outcome: Outcome) -> list[dict[str, Any]]:
    """The flat records of one method on one task."""
    n = len(outcome.hits)

    def record(metric: str, values: np.ndarray | float) -> dict[str, Any]:
        found = [values, None, None]
        if isinstance(values, np.ndarray):
            found = [quantile(values, q) for q in (0.5, 0.05, 0.95)]
        value, low, high = (finite(v) for v in found)
        names = {"benchmark": BENCHMARK, "task": task, "method": method, "metric": metric}
        return {**names, "value": value, "low": low, "high": high, "n": n}

    found = [record("evals_to_top0.1pct", outcome.hits)]
    found += [record(f"regret@{k}", outcome.regret[:, i]) for i, k in enumerate(REGRET_AT)]
    if np.isfinite(outcome.tau).all():
        found.append(record("tau_zero_shot", outcome.tau))
    found.append(record("reached", float(np.isfinite(outcome.hits).mean())))
    return [*found, record("seconds", outcome.seconds)]


def row(found: list[dict[str, Any]]) -> str:
    """One line of the printed table."""
    by = {r["metric"]: r for r in found}

    def number(value: float | None, form: str = ".0f") -> str:
        return "inf" if value is None else f"{value:{form}}"

    hit = by["evals_to_top0.1pct"]
    cells = [f"{hit['task']:<34}{hit['method']:<20}{number(hit['value']):>6}"]
    cells.append(f"{number(hit['low']):>5} ..{number(hit['high']):>5}")
    cells += [f"{number(by[f'regret@{k}']['value'], '.2f'):>7}" for k in (5, 10, 20, 50)]
    tau = by.get("tau_zero_shot", {"value": math.nan})["value"]
    return " ".join([*cells, f"{tau:7.2f}{by['seconds']['value']:8.0f}"])


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures and prints every method on every task of tables. Raises UserError."""
    named = {name: tables.load(name, options.data) for name in tables.FILES}
    print(
        f"{'task':<34}{'method':<20}median   5% .. 95% regret@5  @10    @20    @50    tau seconds"
    )
    found: list[dict[str, Any]] = []

    def add(task: str, method: str, outcome: Outcome) -> None:
        found.extend(records(task, method, outcome))
        print(row(found[-len(REGRET_AT) - 4 :]), flush=True)
        if options.json:  # what is measured stays, whatever happens
            Path(options.json).write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")

    for name, other_name in sample_efficiency.OTHER.items():
        table, other = named[name], named[other_name]
        arrow = f"{other_name}_to_{name.removeprefix('nats_')}"
        for method in options.methods:
            if method in BASELINES:
                if "history" in options.parts:
                    chosen = BASELINES[method]
                    add(arrow, method, baseline(table, chosen, options.seeds, other))
                continue
            for kind, part in zip(KINDS, ("history", "full", "misled"), strict=True):
                if part in options.parts and (not kind or method == "tnas"):
                    config = VARIANTS[method]
                    outcome = transferred(table, config, options.seeds, other, kind)
                    add(arrow + kind, method, outcome)
    if "speed" in options.parts:
        found += speed(named["nats_cifar100"], named["nats_cifar10"])
    if "scratch" in options.parts:
        for name, table in named.items():
            add(name, "gp_ei", baseline(table, BASELINES["gp_ei"], options.seeds, None))
            add(name, "tnas_scratch", scratch(table, Tnas(), options.seeds))
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    data = os.environ.get("FNAS_DATA", str(shared))
    parser.add_argument("--data", default=data, help="folder of the tables (FNAS_DATA)")
    parser.add_argument("--methods", default=",".join(DEFAULT), help="joined by commas")
    parts = ("history", "full", "misled", "scratch", "speed")
    parser.add_argument("--parts", default=",".join(parts), help="joined by commas; '' for none")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--knowledge", default="", help="folder of the histories of image tasks")
    parser.add_argument("--json", help="write the records there")
    options = parser.parse_args(arguments)
    options.methods = [m for m in options.methods.split(",") if m]
    options.parts = [p for p in options.parts.split(",") if p]
    for given, allowed, what in (
        (options.methods, [*VARIANTS, *BASELINES], "method"),
        (options.parts, parts, "part"),
    ):
        for name in given:
            if name not in allowed:
                parser.error(f"unknown {what} {name!r}; allowed are {', '.join(allowed)}")
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; it must be at least 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    try:
        found = run(options) if options.parts else []
        if options.knowledge:
            found += image_tasks.run(options.knowledge, options.seeds)
        if options.json:
            Path(options.json).write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
