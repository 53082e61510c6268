"""How many children FNAS really trains, and whether its winner is as good as plain PPO's.

    python -m experiments.benchmarks.image_search --json OUT

Both methods make the same number of proposals on the bundled digits, with the same controller.
PPO trains all of them. Then the winners of all searches are trained again together, longer, on
training and validation images, and judged on the test images, which no search has seen.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fnas_jax import iteration
from fnas_jax.build import build_task
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices
from fnas_jax.core.clock import Clock
from fnas_jax.methods.baselines import ppo
from fnas_jax.methods.fnas import build as fnas
from fnas_jax.tasks import data, images
from fnas_jax.tasks.base import Task

BENCHMARK = "image_search"
BUILDERS = {"fnas": fnas.build, "ppo": ppo.build}


class Search(NamedTuple):
    """What one search came to."""

    method: str
    seed: int
    arch: np.ndarray  # [T]
    found: float  # validation accuracy of the winner, as the search saw it
    trained: int
    predicted: int
    coverage: float  # share of errors within U in the second half; NaN without a critic
    tau: float  # mean Kendall's tau of V on the newly trained, second half
    seconds: float


def configuration(options: argparse.Namespace) -> ml_collections.ConfigDict:
    """Small children on images of 8x8 pixels."""
    config = config_lib.default()
    config.task.name = f"images/{options.task}"
    config.space.blocks = 2
    config.space.strides = (1, 2)
    config.space.stem = 16
    config.space.stem_stride = 1
    config.space.head = 64
    config.children.steps = options.steps
    config.search.batch = 8
    config.search.budget = options.proposals
    return config_lib.validate(config)


def search(
    config: ml_collections.ConfigDict, task: Task, name: str, seed: int, most: int
) -> Search:
    """One search of `most` proposals, without files."""
    method, evaluator = BUILDERS[name](config, task.space, task, None)
    key, clock, start = jax.random.key(seed), Clock(), time.monotonic()
    steps = iteration.compiled(method, evaluator)
    state = iteration.initial(method, evaluator, len(task.space.cardinalities), key)
    log: list[dict[str, Any]] = []
    while state.counts["proposed"] < most:
        state, _, scalars = iteration.iterate(steps, state, key, clock)
        log.append(scalars)
    clock.close()
    late = log[len(log) // 2 :]
    checked = sum(float(s.get("checked", 0)) for s in late)
    covered = sum(float(s.get("covered", 0)) for s in late)
    taus = [float(s["tau"]) for s in late if np.isfinite(s.get("tau", np.nan))]
    return Search(
        name,
        seed,
        state.best_arch,
        float(state.best[0]),
        state.counts["trained"],
        state.counts["predicted"],
        covered / checked if checked else float("nan"),
        float(np.mean(taus)) if taus else float("nan"),
        time.monotonic() - start,
    )


def judge(
    config: ml_collections.ConfigDict, task: Task, archs: np.ndarray, steps: int
) -> np.ndarray:
    """[N] test accuracies of `archs` [N, T] after `steps` steps on all other images."""
    options = config.task
    found = data.load(
        options.name.partition("/")[2],
        options.data_dir,
        options.image_size,
        options.val_fraction,
        options.test_fraction,
        options.split_seed,
    )
    swapped = found._replace(
        train_images=np.concatenate([found.train_images, found.val_images]),
        train_labels=np.concatenate([found.train_labels, found.val_labels]),
        val_images=found.test_images,
        val_labels=found.test_labels,
    )
    longer = ml_collections.ConfigDict(config)
    with longer.unlocked():
        longer.children.steps = steps
        longer.search.budget = len(archs)
    evaluator = images.evaluator(images.make_bench(longer, task.space, swapped))
    everyone = jnp.ones(len(archs), bool)
    _, metrics = evaluator.evaluate(
        evaluator.init(), jnp.asarray(archs), everyone, jax.random.key(0)
    )
    return np.asarray(metrics.accuracy)


def records(task: str, method: str, metrics: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Flat records: means, with the smallest and the largest of the seeds."""
    found = []
    for metric, values in metrics.items():
        known = [v for v in values if np.isfinite(v)]
        if known:
            figures = (statistics.mean(known), min(known), max(known))
            value, low, high = figures
            found.append(
                {
                    "benchmark": BENCHMARK,
                    "task": task,
                    "method": method,
                    "metric": metric,
                    "value": value,
                    "low": low,
                    "high": high,
                    "n": len(known),
                }
            )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--task", default="digits", choices=("digits", "mnist5k"))
    parser.add_argument("--methods", default="fnas,ppo", help="joined by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--proposals", type=int, default=128)
    parser.add_argument("--steps", type=int, default=30, help="of a child in the search")
    parser.add_argument("--judge_steps", type=int, default=300, help="of a winner at the end")
    parser.add_argument("--json", help="write the records there")
    options = parser.parse_args(arguments)
    methods = [m for m in options.methods.split(",") if m]
    for name in methods:
        if name not in BUILDERS:
            parser.error(f"unknown method {name!r}; allowed are fnas, ppo")
    if min(options.seeds, options.proposals, options.steps, options.judge_steps) < 1:
        parser.error("--seeds, --proposals, --steps and --judge_steps must be at least 1")
    config = configuration(options)
    devices.enable_compilation_cache(config.jax.cache_dir)
    task = build_task(config)
    searches: list[Search] = []
    for seed in range(options.seeds):
        for name in methods:
            found = search(config, task, name, seed, options.proposals)
            searches.append(found)
            print(
                f"seed {seed} {name:<6} trained {found.trained:>4}, predicted {found.predicted:>4},"
                f" best {found.found:.4f} (validation), coverage {found.coverage:.2f},"
                f" tau {found.tau:.2f}, {found.seconds:.0f} s",
                flush=True,
            )
    accuracy = judge(config, task, np.stack([s.arch for s in searches]), options.judge_steps)
    out: list[dict[str, Any]] = []
    for name in methods:
        mine = [i for i, s in enumerate(searches) if s.method == name]
        rows = [searches[i] for i in mine]
        out += records(
            task.name,
            name,
            {
                "test_accuracy": [float(accuracy[i]) for i in mine],
                "validation_accuracy": [s.found for s in rows],
                "trained_share": [s.trained / options.proposals for s in rows],
                "coverage": [s.coverage for s in rows],
                "kendall_tau": [s.tau for s in rows],
                "seconds": [s.seconds for s in rows],
            },
        )
    for r in out:
        span = f"{r['low']:.4f} .. {r['high']:.4f}"
        print(f"{r['method']:<6}{r['metric']:<22}{r['value']:8.4f}   {span}")
    if options.json:
        Path(options.json).write_text(json.dumps(out, indent=1, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
