"""What is known of networks before training, against how real children do.

    python -m experiments.benchmarks.proxies --json OUT

Trains random networks, each once, from fresh weights, by the product's settings, but for space and
minibatches, which suit small images. `rank_correlation` is Spearman's with the validation accuracy:
of what is known for nothing (parameters, counts of layers, ..), of each zero-cost proxy as measured
(`snip`, ..) and as methods have it (`snip_predicted`: by a regression on MEASURED others); 95% of
what comes of drawing these networks again, with replacement.

What it is worth to a method: the accuracies of a few of the networks are known, a ridge regression
predicts the others, `of_N`: of so many. `free` goes by decisions, structure and costs, `proxies` by
the predicted proxies, too. Means over splits, and the share of splits in which proxies are better.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from experiments.benchmarks import records
from experiments.benchmarks.image_methods import FRESH
from experiments.benchmarks.image_search import configuration
from experiments.benchmarks.progress import followed
from experiments.benchmarks.records import Record
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices
from fnas_jax.core.types import UserError
from fnas_jax.networks.proxies import NAMES
from fnas_jax.registry import build_task
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import images, proxy_features
from fnas_jax.tasks.base import Task

BENCHMARK = "proxies"
AGAIN = 1000  # draws for an interval
SPLITS = 100
KNOWN = (16, 32, 64)  # networks whose accuracy is known


def networks(space: Space, count: int, apart: np.ndarray) -> np.ndarray:
    """[n, T] different canonical networks, none of those of `apart`; n at most `count`."""
    several = space.canonical(space.sample(jax.random.key(1), 4 * count))
    _, first = np.unique(np.asarray(several), axis=0, return_index=True)
    found = np.asarray(several)[np.sort(first)]
    others = {tuple(arch) for arch in apart.tolist()}
    return found[[tuple(arch) not in others for arch in found.tolist()]][:count]


def trained(task: Task, archs: np.ndarray, batch: int) -> np.ndarray:
    """[n] validation accuracies; NaN of what failed. n is a multiple of `batch`."""
    state, found = task.evaluator.init(), []
    key, parts = jax.random.key(2), np.split(archs, len(archs) // batch)
    for number, part in enumerate(followed(BENCHMARK, parts, lambda _: "training")):
        own = jax.random.fold_in(key, number)
        state, metrics = task.evaluator.evaluate(
            state, jnp.asarray(part), np.ones(batch, bool), own
        )
        found.append(np.where(metrics.ok, metrics.accuracy, np.nan))
    return np.concatenate(found).astype(np.float64)


def correlation(task: str, name: str, mine: np.ndarray, accuracy: np.ndarray) -> Record:
    """Spearman's, of networks of which both are known, with its interval."""
    there = np.isfinite(mine) & np.isfinite(accuracy)
    x, y, rng = mine[there], accuracy[there], np.random.default_rng(0)
    rows = rng.integers(0, len(x), (AGAIN, len(x)))
    again = [float(spearmanr(x[own], y[own])[0]) for own in rows]
    span = records.quantile(again, 0.025), records.quantile(again, 0.975)
    value = float(spearmanr(x, y)[0])
    return records.record(BENCHMARK, task, name, "rank_correlation", value, len(x), span)


def worth(task: str, free: np.ndarray, more: np.ndarray, accuracy: np.ndarray) -> list[Record]:
    """How well some accuracies [n] say the others by `free` [n, D], and by `more` beside it."""
    out, rng = [], np.random.default_rng(1)
    orders = [rng.permutation(len(accuracy)) for _ in range(SPLITS)]
    for known in KNOWN:
        if known >= len(accuracy) - 1:
            continue
        both = {}
        for name, x in (("free", free), ("proxies", np.concatenate([free, more], axis=1))):
            both[name] = [said(x, accuracy, order, known) for order in orders]
            names = BENCHMARK, task, name, f"rank_correlation_of_{known}"
            out.append(records.over_seeds(*names, both[name], records.mean))
        names = BENCHMARK, task, "proxies", f"rank_correlation_of_{known}", "free"
        out += records.paired(*names, both["proxies"], both["free"], records.DIFFERENCE)
    return out


def said(x: np.ndarray, accuracy: np.ndarray, order: np.ndarray, known: int) -> float:
    """Spearman's of accuracies that are predicted by those of the first `known` of `order`."""
    seen, others = order[:known], order[known:]
    line = proxy_features.regression(x[seen], proxy_features.scores(accuracy[seen]))
    return float(spearmanr(x[others] @ line.weights, accuracy[others])[0])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--task", default="mnist5k", choices=("digits", "mnist5k"))
    parser.add_argument("--networks", type=int, default=320)
    parser.add_argument("--steps", type=int, default=150, help="of a child")
    options = parser.parse_args(arguments)
    records.check_least(parser, options, 8, "networks")
    records.check_least(parser, options, 1, "steps")
    options.proposals = options.networks  # of `configuration`
    return options


def run(options: argparse.Namespace) -> list[Record]:
    """Measures proxies, trains, compares. Raises UserError where nothing can be predicted."""
    config = config_lib.flatten(configuration(options)) | FRESH
    config = config_lib.validate(config_lib.nest(config))
    devices.enable_compilation_cache(config.jax.cache_dir)
    task = build_task(config)
    ctx = images.train_context(config, task.space, images.load(config))
    free = task.features()
    if free is None:
        raise UserError("nothing is known of these networks")
    others, batch = proxy_features.drawn(task.space), config.search.batch
    archs = networks(task.space, options.networks, others)
    archs = archs[: len(archs) // batch * batch]
    look = functools.partial(proxy_features.measured, ctx, proxy_features.minibatch(ctx))
    part = proxy_features.predicted(task.space, free, others, look(others))
    measured, accuracy = look(archs), trained(task, archs, batch)
    columns = dict(zip(free.names, np.asarray(free.of(jnp.asarray(archs))).T, strict=True))
    columns |= dict(zip(NAMES, measured.T, strict=True))
    code = np.asarray(proxy_features.code(task.space, free.of, jnp.asarray(archs)), np.float64)
    found: list[Record] = []
    if part is not None:
        predicted = np.asarray(part.of(jnp.asarray(archs)), np.float64)
        columns |= {f"{name}_predicted": x for name, x in zip(part.names, predicted.T, strict=True)}
        there = np.isfinite(accuracy)
        found = worth(task.name, code[there], predicted[there], accuracy[there])
    spread = records.over_seeds(BENCHMARK, task.name, "trained", "accuracy", accuracy, records.mean)
    each = [correlation(task.name, name, x, accuracy) for name, x in columns.items()]
    return list(itertools.chain([spread], each, found))


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
