"""What is known of networks before training, against how they do when they are trained.

    python -m experiments.benchmarks.proxies --json OUT

Trains random networks, each once, from fresh weights, by the product's settings, but for space and
minibatches, which suit small images. With `--data DIR` instead: cells of NATS-Bench, whose tables
know the accuracy. CIFAR's images are not there, so that proxies see noise of random classes.

`rank_correlation` is Spearman's with the accuracy, on validation images where networks are trained:
of what is known for nothing (parameters, counts of layers, ..), of each zero-cost proxy as measured
(`snip`, ..) and as methods have it (`snip_predicted`: by a regression on other networks); the span
is 95% of what comes of drawing these networks again, with replacement.

What it is worth to a method: the accuracies of a few of the networks are known, a ridge regression
predicts the others, `of_N`: of so many. `free` goes by decisions, structure and costs, `proxies` by
the predicted proxies, too, and `proxies_measured` by those that were measured. Means over divisions
of the networks, and the share of divisions in which proxies are better.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.stats import spearmanr

from experiments.benchmarks import records
from experiments.benchmarks.image_methods import FRESH
from experiments.benchmarks.image_search import configuration
from experiments.benchmarks.progress import followed
from experiments.benchmarks.records import Record
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices
from fnas_jax.core.sections import Features as Chosen
from fnas_jax.core.types import Array, Features, UserError
from fnas_jax.networks.proxies import NAMES, Batch
from fnas_jax.registry import build_task
from fnas_jax.spaces.base import Space, distinct
from fnas_jax.tasks import images, proxy_features, table_features, table_index, tables
from fnas_jax.tasks.base import Task
from fnas_jax.tasks.table_features import CLASSES, IMAGE
from fnas_jax.tasks.tables import Table

BENCHMARK = "proxies"
TABLES = ("nats_cifar10", "nats_cifar100")
AGAIN = 1000  # draws for an interval
DIVISIONS = 100
KNOWN = (16, 32, 64)  # networks whose accuracy is known
LEFT = 8  # networks that are predicted, or more
Look = Callable[[np.ndarray], np.ndarray]  # archs [n, T] -> their proxies [n, 5]


class Networks(NamedTuple):
    """Random networks with their proxies."""

    archs: np.ndarray  # [n, T]
    proxies: np.ndarray  # [n, 5]
    others: np.ndarray  # [m, T] from which methods would predict
    of_others: np.ndarray  # [m, 5]


def networks(space: Space, count: int, look: Look) -> Networks:
    """At most `count` different ones, and others."""
    others = proxy_features.drawn(space)
    found = distinct(space, jax.random.key(1), 4 * count)
    apart = {tuple(arch) for arch in others.tolist()}
    archs = found[[tuple(arch) not in apart for arch in found.tolist()]][:count]
    return Networks(archs, look(archs), others, look(others))


def compare(
    task: str, space: Space, free: Features | None, seen: Networks, accuracy: np.ndarray
) -> list[Record]:
    """All figures of networks with `accuracy` [n], NaN of what failed. Raises UserError."""
    if free is None:
        raise UserError(f"nothing is known of the networks of {task}")
    part = proxy_features.predicted(space, free, seen.others, seen.of_others)
    said = np.asarray(free.of(jnp.asarray(seen.archs)))
    columns = dict(zip(free.names, said.T, strict=True))
    columns |= dict(zip(NAMES, seen.proxies.T, strict=True))
    beside = {"proxies_measured": seen.proxies}
    if part is not None:
        predicted = np.asarray(part.of(jnp.asarray(seen.archs)), np.float64)
        columns |= {f"{name}_predicted": x for name, x in zip(part.names, predicted.T, strict=True)}
        beside["proxies"] = predicted
    code = np.asarray(proxy_features.code(space, free.of, jnp.asarray(seen.archs)), np.float64)
    return [
        records.over_seeds(BENCHMARK, task, "all", "accuracy", accuracy, records.mean),
        *(correlation(task, name, x, accuracy) for name, x in columns.items()),
        *worth(task, code, beside, accuracy),
    ]


def correlation(task: str, name: str, mine: np.ndarray, accuracy: np.ndarray) -> Record:
    """Spearman's, of networks of which both are known, with its interval."""
    there = np.isfinite(mine) & np.isfinite(accuracy)
    x, y, rng = mine[there], accuracy[there], np.random.default_rng(0)
    rows = rng.integers(0, len(x), (AGAIN, len(x)))
    again = [float(spearmanr(x[own], y[own])[0]) for own in rows]
    span = records.quantile(again, 0.025), records.quantile(again, 0.975)
    value = float(spearmanr(x, y)[0])
    return records.record(BENCHMARK, task, name, "rank_correlation", value, len(x), span)


def worth(
    task: str, code: np.ndarray, beside: dict[str, np.ndarray], accuracy: np.ndarray
) -> list[Record]:
    """How well some accuracies [n] say the others by `code` [n, D], and with more `beside` it.

    Of networks of which all is known.
    """
    there = np.isfinite(accuracy) & np.isfinite(np.concatenate([*beside.values()], axis=1)).all(1)
    judged, out, rng = accuracy[there], [], np.random.default_rng(1)
    orders = [rng.permutation(len(judged)) for _ in range(DIVISIONS)]
    inputs = {"free": code[there]}
    for name, more in beside.items():
        ranks = np.stack([proxy_features.scores(x) for x in more[there].T], axis=1)
        inputs[name] = np.concatenate([code[there], ranks], axis=1)
    for known in KNOWN:
        if len(judged) - known < LEFT:
            continue
        metric = f"rank_correlation_of_{known}"
        found = {name: [said(x, judged, o, known) for o in orders] for name, x in inputs.items()}
        for name, values in found.items():
            out.append(records.over_seeds(BENCHMARK, task, name, metric, values, records.mean))
        for name in beside:
            names = BENCHMARK, task, name, metric, "free"
            out += records.paired(*names, found[name], found["free"], records.DIFFERENCE)
    return out


def said(x: np.ndarray, accuracy: np.ndarray, order: np.ndarray, known: int) -> float:
    """Spearman's of accuracies that are predicted by those of the first `known` of `order`."""
    seen, others = order[:known], order[known:]
    line = proxy_features.regression(x[seen], proxy_features.scores(accuracy[seen]))
    return float(spearmanr(x[others] @ line.weights, accuracy[others])[0])


def trained(task: Task, archs: np.ndarray, batch: int) -> np.ndarray:
    """[n] validation accuracies; NaN of what failed."""
    state, found, key = task.evaluator.init(), [], jax.random.key(2)
    starts = list(range(0, len(archs), batch))
    for start in followed(BENCHMARK, starts, lambda start: f"training from network {start}"):
        rows = np.arange(start, start + batch)
        asked, own = archs[rows % len(archs)], jax.random.fold_in(key, start)
        state, metrics = task.evaluator.evaluate(state, jnp.asarray(asked), rows < len(archs), own)
        found.append(np.where(metrics.ok, metrics.accuracy, np.nan))
    return np.concatenate(found)[: len(archs)].astype(np.float64)


def on_images(options: argparse.Namespace) -> list[Record]:
    """Figures of networks that are trained."""
    flat = config_lib.flatten(configuration(options)) | FRESH
    config = config_lib.validate(config_lib.nest(flat))
    task = build_task(config)
    ctx = images.train_context(config, task.space, images.load(config))
    loss = functools.partial(proxy_features.loss_of, ctx.objective)
    batch, outputs = proxy_features.minibatch(ctx), ctx.dataset.outputs
    look = functools.partial(proxy_features.measured, task.space, outputs, loss, batch)
    seen = networks(task.space, options.networks, look)
    accuracy = trained(task, seen.archs, config.search.batch)
    return compare(task.name, task.space, task.features(), seen, accuracy)


def on_tables(options: argparse.Namespace) -> list[Record]:
    """Figures of cells whose accuracy is known: the same ones by the same noise on both tables."""
    named = [tables.load(name, options.data) for name in TABLES]
    space, (_, count) = named[0].space, proxy_features.IMAGES
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((count, *IMAGE)).astype(np.float32)
    batch = Batch(noise, rng.integers(0, CLASSES, count).astype(np.int32))
    look = functools.partial(proxy_features.measured, space, CLASSES, cross_entropy, batch)
    seen = networks(space, options.networks, look)
    found: list[Record] = []
    for table in named:
        where, rows = looked_up(table, seen.archs)
        free = table_features.of(Chosen(), table, where, None)
        found += compare(table.name, space, free, seen, rows)
    return found


def looked_up(table: Table, archs: np.ndarray) -> tuple[Any, np.ndarray]:
    """(where the table holds networks, the accuracies [n] of `archs`)."""
    where = table_index.of(table)
    return where, np.asarray(table.judged[np.asarray(where.row_of(jnp.asarray(archs)))], np.float64)


def cross_entropy(logits: Array, targets: Array) -> Array:
    """[] mean over images."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--task", default="mnist5k", choices=("digits", "mnist5k"))
    parser.add_argument("--data", default="", help="folder of the tables: cells instead of --task")
    parser.add_argument("--networks", type=int, default=320)
    parser.add_argument("--steps", type=int, default=150, help="of a child")
    options = parser.parse_args(arguments)
    records.check_least(parser, options, 8, "networks")
    records.check_least(parser, options, 1, "steps")
    options.proposals = options.networks  # of `configuration`
    return options


def run(options: argparse.Namespace) -> list[Record]:
    """Measures proxies, trains or looks up, compares. Raises UserError."""
    devices.enable_compilation_cache(config_lib.default().jax.cache_dir)
    return on_tables(options) if options.data else on_images(options)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
