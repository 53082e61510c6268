"""Methods on real children at equal numbers of training images: who has the better winner, when.

    python -m experiments.benchmarks.equal_images --json OUT

Every method searches until its children have been trained on the largest number of `--at`, in
thousand images (fair rounds of the knowledge pool included); whenever one of the numbers is passed,
the winner is who would win then. With the pool (`.._pool`) that needs second readings of the best
eight, which are held then, for each number anew, and are not counted. All winners are trained again
together, longer and from fresh weights, and judged on the test images, which no search has seen.
Settings are the product's, but for space and minibatches, which suit small images. `.._no_features`
are methods without what is known before training, `.._proxies` with zero-cost proxies, too, which
are measured once for all seeds and count as no images. Every method is compared with `fnas`, or
`fnas_pool`, seed by seed. An iteration trains up to a batch, so that numbers are passed by as much
as that: by hardly a child by FNAS, which trains about one at a time, and by up to seven by the
others, whose winners are so of a few more children (`trained`). A search that finds no more
networks to train is told, and has no figures from there on.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from experiments.benchmarks import image_methods, records
from experiments.benchmarks.image_methods import FRESH
from experiments.benchmarks.image_search import configuration, judged, prepared
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from fnas_jax import finals, iteration
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices
from fnas_jax.core.clock import Clock
from fnas_jax.methods.baselines import evolution, gp
from fnas_jax.registry import build_task, informed
from fnas_jax.tasks.base import Task

BENCHMARK = "equal_images"
BUILDERS = image_methods.BUILDERS | {"gp": gp.build, "evolution": evolution.build}
BLIND = {"features.structure": False, "features.costs": False}
PROXIES = {"features.proxies": True}
POOL = "_pool"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {}) for name in ("random", "evolution", "gp", "ppo", "fnas")
} | {
    "fnas_no_features": ("fnas", BLIND),
    "gp_no_features": ("gp", BLIND),
    "fnas_proxies": ("fnas", PROXIES),
    "gp_proxies": ("gp", PROXIES),
}
NAMES = (*METHODS, *(f"{name}{POOL}" for name in METHODS))
SPARE = 2  # places for each child that a search of so many images trains
PATIENCE = 40  # proposals for each place


class Winner(NamedTuple):
    """Who would win a search after so many images."""

    method: str  # with the images: "fnas@250k"
    seed: int
    arch: np.ndarray  # [T]
    found: float  # validation accuracy by which it won
    trained: int


def configure(
    config: ml_collections.ConfigDict, name: str, children: int
) -> ml_collections.ConfigDict:
    """`config` for a method of NAMES, which trains so many `children`."""
    _, settings = METHODS[name.removesuffix(POOL)]
    flat = config_lib.flatten(config) | settings | ({} if name.endswith(POOL) else FRESH)
    flat["search.budget"] = SPARE * children
    return config_lib.validate(config_lib.nest(flat))


def label(name: str, thousands: int) -> str:
    """A method at a number of images."""
    return f"{name}@{thousands}k"


def search(
    config: ml_collections.ConfigDict, task: Task, name: str, seed: int, at: list[int]
) -> list[Winner]:
    """The winner of a search at each of the thousands of images `at`, in rising order."""
    key, clock = jax.random.key(seed), Clock()
    kind, _ = METHODS[name.removesuffix(POOL)]
    method, evaluator = BUILDERS[kind](config, informed(task, kind), task, None)
    steps = iteration.compiled(method, evaluator)
    state = iteration.initial(method, evaluator, len(task.space.cardinalities), key)
    of_child = config.children.steps * config.children.batch_size
    state, prepared_ones = prepared(evaluator, state, key)
    found: list[Winner] = []
    while len(found) < len(at):
        if state.counts["proposed"] >= PATIENCE * config.search.budget:
            say(
                f"{name}, seed {seed}, has trained {state.counts['trained']} networks by"
                f" {state.counts['proposed']} proposals, and knows no others before"
                f" {at[len(found)]} thousand images"
            )
            break
        state, _, _ = iteration.iterate(steps, state, key, clock)
        images = (state.counts["trained"] + prepared_ones) * of_child
        while len(found) < len(at) and images >= 1000 * at[len(found)]:
            ended = finals.decide(state, finals.hold(evaluator, state, key, clock))
            now, trained = label(name, at[len(found)]), state.counts["trained"]
            found.append(Winner(now, seed, ended.best_arch, float(ended.best[0]), trained))
    clock.close()
    return found


def figures(
    task: str, names: list[str], at: list[int], tested: dict[Any, float], found: list[Winner]
) -> list[Record]:
    """Test and validation accuracy of each method at each number, and how it compares."""
    out: list[Record] = []
    by = {(w.method, w.seed): w for w in found}
    for name, thousands in itertools.product(names, at):
        now, fnas = label(name, thousands), "fnas" + (POOL if name.endswith(POOL) else "")
        seeds = sorted(seed for method, seed in by if method == now)
        metrics = {
            "test_accuracy": [tested[now, seed] for seed in seeds],
            "validation_accuracy": [by[now, seed].found for seed in seeds],
            "trained": [float(by[now, seed].trained) for seed in seeds],
        }
        out += [
            records.over_seeds(BENCHMARK, task, now, metric, values, records.mean)
            for metric, values in metrics.items()
            if values
        ]
        both = [seed for seed in seeds if (label(fnas, thousands), seed) in by]
        if fnas != name and both:
            mine, theirs = ([tested[of, s] for s in both] for of in (now, label(fnas, thousands)))
            of = BENCHMARK, task, now, "test_accuracy", fnas
            out += records.paired(*of, mine, theirs, records.DIFFERENCE)
    return out


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--task", default="mnist5k", choices=("digits", "mnist5k"))
    records.add_names(parser, "--methods", NAMES)
    records.add_names(parser, "--at", ("250", "500", "1000", "2000"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=150, help="of a child")
    parser.add_argument("--judge_steps", type=int, default=600, help="of a winner at the end")
    options = parser.parse_args(arguments)
    records.check_names(parser, "method", options.methods, NAMES)
    if not all(text.isdecimal() and int(text) for text in options.at):
        parser.error(f"--at is {','.join(options.at)}; it must be thousands of images, above 0")
    options.at = sorted({int(text) for text in options.at})
    records.check_least(parser, options, 1, "seeds", "steps", "judge_steps")
    options.proposals = 1  # of `configuration`; `configure` says how many there may be
    return options


def run(options: argparse.Namespace) -> list[Record]:
    """Searches with every method and seed in turn, then judges all winners together."""
    config = configuration(options)
    devices.enable_compilation_cache(config.jax.cache_dir)
    children = -(-1000 * options.at[-1] // (options.steps * config.children.batch_size))
    configs = {name: configure(config, name, children) for name in options.methods}
    # Searches that train children in the same way share the compiled programs.
    pooled = {name.endswith(POOL) for name in options.methods}
    tasks = {
        pool: build_task(configure(config, f"random{POOL if pool else ''}", children))
        for pool in pooled
    }
    # What is known is built, and proxies are measured, once for all seeds.
    known = {name: functools.cache(build_task(configs[name]).features) for name in options.methods}
    found: list[Winner] = []
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    turns = list(itertools.product(seeds, configs))
    for seed, name in followed(BENCHMARK, turns, lambda turn: f"seed {turn[0]}, {turn[1]}"):
        task = tasks[name.endswith(POOL)]._replace(features=known[name])
        new = search(configs[name], task, name, seed, options.at)
        say(" ".join(f"{w.method} seed {w.seed}: {w.found:.4f} of {w.trained}" for w in new))
        found += new
    task = next(iter(tasks.values()))
    searches: dict[Any, Any] = {(w.method, w.seed): w for w in found}
    tested = judged(config, task, searches, options.judge_steps)
    return figures(task.name, options.methods, options.at, tested, found)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
