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
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from scipy import stats

from fnas_jax.core import config as config_lib
from fnas_jax.core import devices
from fnas_jax.core.types import Array
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge.pool import Pool
from fnas_jax.networks import elastic
from fnas_jax.spaces import mnas
from fnas_jax.spaces.base import Space, fair_round
from fnas_jax.tasks import data, images, pool_access
from fnas_jax.tasks.data import Dataset
from fnas_jax.training import child
from fnas_jax.training import population as population_lib
from fnas_jax.training.minibatches import Data

BENCHMARK = "pool_convergence"
SHARES = (0.25, 0.375, 0.5, 0.7)  # of the steps, at which inherited children stop
SHORT = 0.25  # share of the steps after which children are ranked
BATCH = 8


class Bed(NamedTuple):
    """A data set with the compiled functions of its children."""

    space: Space
    layout: pools.Layout
    empty: Pool
    # (pool, archs [N, T], keys [N], inherit: bool, steps) -> (accuracy [N], pool that learnt)
    run: Callable[..., tuple[np.ndarray, Pool]]


class Curves(NamedTuple):
    """Validation accuracies of N architectures."""

    scratch: np.ndarray  # [N] after all steps
    inherited: np.ndarray  # [len(SHARES), N]
    short: np.ndarray  # [N] from fresh weights after SHORT of the steps
    long: np.ndarray  # [N] from fresh weights after many times the steps
    hits: float  # share of the blocks that found an entry


def configuration() -> ml_collections.ConfigDict:
    """Small networks for images of 28x28 pixels."""
    config = config_lib.default()
    config.task.name = "images/mnist5k"
    config.space.blocks = 3
    config.space.width = 0.5
    config.space.strides = (1, 2, 2)
    config.space.stem_stride = 2
    config.space.head = 128
    config.children.batch_size = 32
    return config_lib.validate(config)


def halves(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """The first and the second half of the classes, each as a data set of its own."""
    count = dataset.num_classes // 2

    def part(first: int) -> Dataset:
        changes: dict[str, Any] = {}
        for name in ("train", "val", "test"):
            labels = getattr(dataset, f"{name}_labels")
            use = (labels >= first) & (labels < first + count)
            changes[f"{name}_images"] = getattr(dataset, f"{name}_images")[use]
            changes[f"{name}_labels"] = labels[use] - first
        return dataset._replace(num_classes=count, **changes)

    return part(0), part(count)


def bed(config: ml_collections.ConfigDict, space: Space, dataset: Dataset) -> Bed:
    """One compiled program trains children from fresh and from inherited weights."""
    ctx = images.train_context(config, space, dataset)
    network = elastic.make(space, dataset.image_shape[-1], dataset.num_classes)
    lay = pool_access.pool_layout(config.akp, space, network)

    def start(pool: Pool, arch: Array, own: tuple[Array, Array, Array]) -> Any:
        entry, key, inherit = own
        inherited, fresh = pools.inherit(lay, pool, arch, entry), network.init(key, arch)
        return jax.tree.map(lambda a, b: jnp.where(inherit, a, b), inherited, fresh)

    mesh = devices.children_mesh()
    population = population_lib.make(
        population_lib.Context(
            child.Context(network, ctx.settings, ctx.pipeline), mesh, start=start
        )
    )
    examples = Data(
        *map(
            jnp.asarray,
            (
                dataset.train_images,
                dataset.train_labels,
                dataset.val_images,
                dataset.val_labels,
            ),
        )
    )
    find = jax.jit(functools.partial(pools.find, lay))
    deposit = jax.jit(functools.partial(pools.deposit, lay))
    size = devices.padded_size(BATCH, mesh)

    def run(
        pool: Pool, archs: np.ndarray, keys: Array, inherit: bool, steps: int
    ) -> tuple[np.ndarray, Pool]:
        accuracy, learnt = [], pool
        for i in range(0, len(archs), size):
            some = np.resize(archs[i : i + size], (size, archs.shape[1]))
            some_keys = keys[i + np.arange(size) % len(archs[i : i + size])]
            active = jnp.arange(size) < len(archs[i : i + size])
            # Children of a batch start from the pool as it is before the batch.
            own = (find(learnt, some).entry, some_keys, jnp.full(size, inherit))
            trained = population(
                examples, jnp.asarray(some), active, some_keys, jnp.int32(steps), learnt, own
            )
            accuracy.append(np.asarray(trained.outcome.accuracy)[np.asarray(active)])
            if inherit:
                use = active & trained.outcome.ok
                known = (trained.params, trained.outcome.accuracy, use)
                learnt = deposit(learnt, jnp.asarray(some), *known, jnp.uint32(0))
        return np.concatenate(accuracy), learnt

    return Bed(space, lay, pools.init(lay, config.akp.capacity, jax.random.key(0)), run)


def grown(place: Bed, archs: np.ndarray, key: Array, rounds: int, steps: int) -> Pool:
    """A pool that has learnt from `rounds` fair rounds and then from `archs`."""
    key_rounds, key_train = jax.random.split(key)
    fair = [
        np.asarray(place.space.canonical(fair_round(place.space.cardinalities, k)))
        for k in jax.random.split(key_rounds, rounds)
    ]
    archs = np.concatenate([*fair, archs])
    return place.run(place.empty, archs, jax.random.split(key_train, len(archs)), True, steps)[1]


def measure(place: Bed, pool: Pool, archs: np.ndarray, key: Array, steps: int, long: int) -> Curves:
    """Trains `archs` [N, T] in every way; the pool stays as it is."""
    keys = jax.random.split(key, len(archs))

    def accuracy(inherit: bool, count: float) -> np.ndarray:
        # Each batch sees the same pool, because what it learns is thrown away with it.
        parts = [
            place.run(pool, archs[i : i + BATCH], keys[i : i + BATCH], inherit, round(count))[0]
            for i in range(0, len(archs), BATCH)
        ]
        return np.concatenate(parts)

    return Curves(
        scratch=accuracy(False, steps),
        inherited=np.stack([accuracy(True, share * steps) for share in SHARES]),
        short=accuracy(False, SHORT * steps),
        long=accuracy(False, long * steps) if long else np.full(len(archs), np.nan),
        hits=float(pools.find(place.layout, pool, archs).hit.mean()),
    )


def steps_ratio(curves: Curves) -> np.ndarray:
    """[N] the smallest of SHARES that is enough; inf where none is."""
    enough = curves.inherited >= curves.scratch
    return np.where(enough.any(axis=0), np.asarray(SHARES)[enough.argmax(axis=0)], np.inf)


def interval(figure: Callable[[np.ndarray], float], n: int) -> tuple[float, float]:
    """5% and 95% of a figure of resampled architectures (indices [n])."""
    rng = np.random.default_rng(0)
    low, high = np.quantile([figure(rng.integers(0, n, n)) for _ in range(1000)], (0.05, 0.95))
    return float(low), float(high)


def record(task: str, method: str, metric: str, value: float, span: Any, n: int) -> dict[str, Any]:
    """A flat record; what is not finite is null."""
    value, low, high = (v if np.isfinite(v) else None for v in (value, *span))
    names = ("benchmark", "task", "method", "metric", "value", "low", "high", "n")
    return dict(zip(names, (BENCHMARK, task, method, metric, value, low, high, n), strict=True))


def records(task: str, found: list[Curves]) -> list[dict[str, Any]]:
    """The figures of all seeds together."""
    ratio = np.concatenate([steps_ratio(c) for c in found])
    n, nothing = len(ratio), (np.nan, np.nan)

    def median(which: np.ndarray) -> float:
        return float(np.median(ratio[which]))

    out = [
        record(task, "inherited", "steps_ratio", median(np.arange(n)), interval(median, n), n),
        record(task, "inherited", "hit_ratio", min(c.hits for c in found), nothing, len(found)),
    ]
    quarter = SHARES.index(SHORT)
    for method, of in (
        ("inherited", lambda c: c.inherited[quarter]),
        ("scratch", lambda c: c.short),
    ):
        short, scratch = (np.concatenate([g(c) for c in found]) for g in (of, lambda c: c.scratch))
        gain = 100 * (short - scratch)
        out.append(
            record(
                task,
                method,
                "points_after_quarter",
                float(gain.mean()),
                np.quantile(gain, (0.05, 0.95)),
                n,
            )
        )
        if np.isnan(found[0].long).any():
            continue
        groups = np.repeat(np.arange(len(found)), [len(c.long) for c in found])
        long = np.concatenate([c.long for c in found])

        def tau(
            which: np.ndarray,
            short: np.ndarray = short,
            long: np.ndarray = long,
            groups: np.ndarray = groups,
        ) -> float:
            taus = [
                stats.kendalltau(short[which][groups[which] == g], long[which][groups[which] == g])[
                    0
                ]
                for g in range(len(found))
            ]
            return float(np.nanmean(taus))

        out.append(record(task, method, "kendall_tau", tau(np.arange(n)), interval(tau, n), n))
    return out


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--tasks", default="mnist5k,transfer", help="joined by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--archs", type=int, default=24, help="architectures per seed")
    parser.add_argument("--steps", type=int, default=120, help="of a child from fresh weights")
    parser.add_argument("--long", type=int, default=3, help="times the steps, for the ranking")
    parser.add_argument("--pool", type=int, default=64, help="architectures that teach the pool")
    parser.add_argument("--rounds", type=int, default=2, help="fair rounds before these")
    parser.add_argument("--pool_steps", type=int, default=120, help="of each of them")
    parser.add_argument("--json", help="write the records there")
    options = parser.parse_args(arguments)
    tasks = [t for t in options.tasks.split(",") if t]
    for name in tasks:
        if name not in ("mnist5k", "transfer"):
            parser.error(f"unknown task {name!r}; allowed are mnist5k, transfer")
    if min(options.seeds, options.archs, options.pool, options.pool_steps) < 1 or options.steps < 8:
        parser.error("--seeds, --archs, --pool and --pool_steps must be at least 1, --steps 8")
    config = configuration()
    devices.enable_compilation_cache(config.jax.cache_dir)
    space = mnas.make(
        *(config.space[k] for k in ("blocks", "width", "strides", "stem")),
        config.space.stem_stride,
        config.space.head,
    )
    whole = data.load("mnist5k")
    out: list[dict[str, Any]] = []
    for task in tasks:
        source, target = halves(whole) if task == "transfer" else (whole, whole)
        here = bed(config, space, target)
        there = here if task == "mnist5k" else bed(config, space, source)
        found = []
        for seed in range(options.seeds):
            start = time.monotonic()
            keys = jax.random.split(jax.random.key(seed), 4)
            archs = np.asarray(
                space.canonical(space.sample(keys[0], 4 * options.archs + options.pool))
            )
            _, first = np.unique(archs, axis=0, return_index=True)
            archs = archs[np.sort(first)]
            taught, unseen = archs[: options.pool], archs[options.pool :][: options.archs]
            pool = grown(there, taught, keys[1], options.rounds, options.pool_steps)
            pool = jax.device_get(pool)
            long = options.long if task == "mnist5k" else 0
            found.append(measure(here, pool, unseen, keys[2], options.steps, long))
            c = found[-1]
            print(
                f"{task} seed {seed}: from fresh weights {c.scratch.mean():.4f} after"
                f" {options.steps} steps; inherited"
                + "".join(
                    f" {a.mean():.4f} after {s:g}" for s, a in zip(SHARES, c.inherited, strict=True)
                )
                + f"; median ratio {np.median(steps_ratio(c)):g}, {time.monotonic() - start:.0f} s",
                flush=True,
            )
        out += records(task, found)
    for r in out:
        span = "" if r["low"] is None else f"{r['low']:.3f} .. {r['high']:.3f}"
        value = "never" if r["value"] is None else f"{r['value']:.3f}"
        print(f"{r['task']:<10}{r['method']:<11}{r['metric']:<22}{value:>8}   {span}")
    if options.json:
        Path(options.json).write_text(json.dumps(out, indent=1, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
