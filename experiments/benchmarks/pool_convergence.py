"""How much training the knowledge pool saves a child, and whether short training ranks children.

    python -m experiments.benchmarks.pool_convergence --json OUT

A pool learns from fair rounds and from random architectures of a small MNAS space. Then random
architectures that it has not seen are trained on MNIST images, from fresh weights and from the
pool, for several numbers of steps, each with its own full learning-rate schedule. `steps_ratio` is
the smallest of some shares of `--steps` after which the inherited child is as accurate on
validation images as the same child from fresh weights after all of them: the median over
architectures and seeds.
`kendall_tau` compares the ranking after a quarter of the steps with that after `--long` times the
steps from fresh weights. For the task `transfer`, the pool has learnt from images of the digits 0
to 4, and the children are trained on 5 to 9.

A pool costs what its teachers have trained (`teachers_steps`). `break_even_children` says after how
many inherited children it has paid for that, each of which saves 1 - `steps_ratio` of `--steps`;
never, where that is nothing. In a search the teachers are children that it wants to know anyway,
but for those of fair rounds: `rounds_break_even_children` is of these alone.

`low` and `high` are over the figures of the seeds alone; `value` is of all architectures together.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from experiments.benchmarks import records
from experiments.benchmarks.pool_setup import (
    BATCH,
    Setup,
    configuration,
    halves,
    setup,
    taught_pool,
    train,
)
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from fnas_jax.core import devices, stages
from fnas_jax.core.types import Array
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge.pool import Pool
from fnas_jax.registry import SPACES
from fnas_jax.tasks import data
from fnas_jax.tasks.data import Dataset

BENCHMARK = "pool_convergence"
TASKS = ("mnist5k", "transfer")
SHARES = (0.25, 0.375, 0.5, 0.7)  # of the steps, at which inherited children stop
SHORT = 0.25  # share of the steps after which children are ranked


class Cost(NamedTuple):
    """Training steps that a pool has cost, over those of a child from fresh weights."""

    rounds: float  # of its fair rounds
    others: float  # of the other architectures that taught it


class Curves(NamedTuple):
    """Validation accuracies of N architectures, and what their pool was."""

    scratch: np.ndarray  # [N] after all steps
    inherited: np.ndarray  # [len(SHARES), N]
    short: np.ndarray  # [N] from fresh weights after SHORT of the steps
    long: np.ndarray  # [N] from fresh weights after many times the steps
    hits: float  # share of the blocks that found an entry
    cost: Cost


def measure(
    ctx: Setup, pool: Pool, cost: Cost, archs: np.ndarray, key: Array, steps: int, long: int
) -> Curves:
    """Trains `archs` [N, T] in every way; the pool, which has cost `cost`, stays as it is."""
    keys = jax.random.split(key, len(archs))

    def accuracy(inherit: bool, count: float) -> np.ndarray:
        # Each batch sees the same pool, because what it learns is thrown away with it.
        weights, starts = "inherited" if inherit else "fresh", range(0, len(archs), BATCH)
        with stages.at(f"{len(archs)} children, {round(count)} steps from {weights} weights"):
            parts = [
                train(ctx, pool, archs[i : i + BATCH], keys[i : i + BATCH], inherit, round(count))
                for i in starts
            ]
        return np.concatenate([accuracies for accuracies, _ in parts])

    return Curves(
        scratch=accuracy(False, steps),
        inherited=np.stack([accuracy(True, share * steps) for share in SHARES]),
        short=accuracy(False, SHORT * steps),
        long=accuracy(False, long * steps) if long else np.full(len(archs), np.nan),
        hits=float(pools.find(ctx.layout, pool, archs).hit.mean()),
        cost=cost,
    )


def steps_ratio(curves: Curves) -> np.ndarray:
    """[N] the smallest of SHARES that is enough; inf where none is."""
    enough = curves.inherited >= curves.scratch
    return np.where(enough.any(axis=0), np.asarray(SHARES)[enough.argmax(axis=0)], np.inf)


def kendall_tau(short: np.ndarray, long: np.ndarray) -> float:
    """Of two accuracies of the same architectures; NaN where it is not defined."""
    return float(stats.kendalltau(short, long)[0])


def break_even(cost: float, ratio: float) -> float:
    """Children after which a pool has saved its `cost`, if each needs `ratio` of its steps."""
    return cost / (1 - ratio) if ratio < 1 else np.inf


def paid_back(task: str, found: list[Curves], ratios: list[np.ndarray], steps: int) -> list[Record]:
    """What the pools have cost and when that is saved; a child's own training is `steps` steps."""
    names, together = (BENCHMARK, task, "inherited"), records.median(np.concatenate(ratios))
    costs = [sum(c.cost) for c in found]
    out = [records.over_seeds(*names, "teachers_steps", [steps * c for c in costs], records.mean)]
    rounds = [c.cost.rounds for c in found]
    for metric, spent in (("break_even", costs), ("rounds_break_even", rounds)):
        each = [break_even(c, records.median(r)) for c, r in zip(spent, ratios, strict=True)]
        value = break_even(records.mean(spent), together)
        out.append(records.over_seeds(*names, f"{metric}_children", each, value))
    return out


def figures(task: str, found: list[Curves], steps: int) -> list[Record]:
    """The records of all seeds; a child from fresh weights trains for `steps` steps."""
    ratios = [steps_ratio(c) for c in found]
    hits = [c.hits for c in found]
    out = [
        over_seeds(task, "inherited", "steps_ratio", ratios, records.median),
        records.over_seeds(BENCHMARK, task, "inherited", "hit_ratio", hits, min),
        *paid_back(task, found, ratios, steps),
    ]
    quarter = SHARES.index(SHORT)
    of_method = {
        "inherited": [c.inherited[quarter] for c in found],
        "scratch": [c.short for c in found],
    }
    for method, short in of_method.items():
        gains = [100 * (s - c.scratch) for s, c in zip(short, found, strict=True)]
        out.append(over_seeds(task, method, "points_after_quarter", gains, np.mean))
        if np.isnan(found[0].long).any():
            continue
        taus = [kendall_tau(s, c.long) for s, c in zip(short, found, strict=True)]
        names = (BENCHMARK, task, method, "kendall_tau")
        out.append(records.over_seeds(*names, taus, records.mean))
    return out


def over_seeds(
    task: str, method: str, metric: str, parts: list[np.ndarray], summary: Callable[..., Any]
) -> Record:
    """The summary of all architectures; low and high of those of each seed's architectures."""
    together = float(summary(np.concatenate(parts)))
    each = [float(summary(part)) for part in parts]
    return records.over_seeds(BENCHMARK, task, method, metric, each, together)


def run_seed(
    here: Setup,
    there: Setup,
    seed: int,
    options: argparse.Namespace,
    long: int,
) -> Curves:
    """A pool that learns `there`, and children that it has not seen, trained `here`."""
    space, keys = here.space, jax.random.split(jax.random.key(seed), 4)
    archs = np.asarray(space.canonical(space.sample(keys[0], 4 * options.archs + options.pool)))
    _, first = np.unique(archs, axis=0, return_index=True)
    archs = archs[np.sort(first)]
    taught, unseen = archs[: options.pool], archs[options.pool :][: options.archs]
    with stages.at("teaching the pool"):
        pool, fair = taught_pool(there, taught, keys[1], options.rounds, options.pool_steps)
    pool, each = jax.device_get(pool), options.pool_steps / options.steps
    cost = Cost(each * fair, each * len(taught))
    return measure(here, pool, cost, unseen, keys[2], options.steps, long)


def run_task(task: str, whole: Dataset, options: argparse.Namespace) -> list[Record]:
    """All seeds of a task."""
    config = configuration()
    space = SPACES[config.space.name](config.space)
    source, target = halves(whole) if task == "transfer" else (whole, whole)
    here = setup(config, space, target)
    there = here if task == "mnist5k" else setup(config, space, source)
    found = []
    for seed in followed(BENCHMARK, range(options.seeds), lambda seed: f"seed {seed} of {task}"):
        start = time.monotonic()
        long = options.long if task == "mnist5k" else 0
        found.append(run_seed(here, there, seed, options, long))
        c = found[-1]
        means = zip(SHARES, c.inherited, strict=True)
        say(
            f"{task} seed {seed}: from fresh weights {c.scratch.mean():.4f} after"
            f" {options.steps} steps; inherited"
            + "".join(f" {a.mean():.4f} after {s:g}" for s, a in means)
            + f"; median ratio {np.median(steps_ratio(c)):g}, {time.monotonic() - start:.0f} s"
        )
    return figures(task, found, options.steps)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    records.add_names(parser, "--tasks", TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--archs", type=int, default=24, help="architectures per seed")
    parser.add_argument("--steps", type=int, default=120, help="of a child from fresh weights")
    parser.add_argument("--long", type=int, default=3, help="times the steps, for the ranking")
    parser.add_argument("--pool", type=int, default=64, help="architectures that teach the pool")
    parser.add_argument("--rounds", type=int, default=2, help="fair rounds before these")
    parser.add_argument("--pool_steps", type=int, default=120, help="of each of them")
    options = parser.parse_args(arguments)
    records.check_names(parser, "task", options.tasks, TASKS)
    records.check_least(parser, options, 1, "seeds", "archs", "pool", "pool_steps")
    records.check_least(parser, options, 8, "steps")
    return options


def run(options: argparse.Namespace) -> list[Record]:
    """All tasks."""
    devices.enable_compilation_cache(configuration().jax.cache_dir)
    whole = data.load("mnist5k")
    return [r for task in options.tasks for r in run_task(task, whole, options)]


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
