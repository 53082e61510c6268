"""What each default of PGNAS changes: one key at a time has another value.

    python -m experiments.benchmarks.posterior_defaults --json OUT

The tasks of the benchmark `posterior`, with other seeds (from 100 on), which judge nothing there.
Every variant starts from the same weights with the same minibatches. Of the posterior that it ends
with:

mean_accuracy, best_accuracy: of `--samples` samples, on validation images with the weights they
    inherit;
entropy: nats of the posterior over all slots;
final_accuracy: of the best of the first `--search` samples, on test images, trained from fresh
    weights on all others for `--long` steps;
seconds: CPU seconds of the training without compilation;
.._minus_default: differences from `default`, seed by seed (medians).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments.benchmarks import records
from experiments.benchmarks.final_accuracy import final_accuracy
from experiments.benchmarks.posterior_setup import (
    TASKS,
    InheritedAccuracy,
    changed,
    compile_training,
    configuration,
    make_space,
    trained,
)
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices, stages
from fnas_jax.core.types import UserError
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.pgnas import build as pgnas
from fnas_jax.methods.pgnas import posterior
from fnas_jax.tasks import images
from fnas_jax.tasks.base import Task

BENCHMARK = "posterior_defaults"
FIRST_SEED = 100  # those of `posterior` begin with 0
DEFAULT = "default"
# Keys of the section `pgnas` that differ from the task's defaults
VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "gradient=concrete": {"gradient": "concrete"},
    "gradient=second": {"gradient": "second"},
    "gradient=score": {"gradient": "score"},
    "concrete+temperature=0.1": {"gradient": "concrete", "temperature": 0.1},
    "concrete+temperature_end=1": {"gradient": "concrete", "temperature_end": 1.0},
    "precision=0": {"precision": 0.0},
    "precision=1": {"precision": 1.0},
    "warmup=0": {"warmup": 0.0},
    "warmup=0.25": {"warmup": 0.25},
    "warmup=0.75": {"warmup": 0.75},
    "lr=0.1": {"lr": 0.1},
    "lr=1": {"lr": 1.0},
    "slots=4": {"slots": 4},
    "mc_samples=4+average": {"mc_samples": 4, "average": True},
}
FIGURES = ("mean_accuracy", "best_accuracy", "entropy", "final_accuracy", "seconds")
BETTER = FIGURES[:2] + FIGURES[3:4]  # of which more is better


def run_task(name: str, options: argparse.Namespace) -> list[Record]:
    """All figures of a task."""
    config = configuration(name, options)
    task = images.build(config, make_space(config))
    accuracy_of = InheritedAccuracy(task)
    found: dict[str, dict[str, list[float]]] = {}
    winners = []
    methods = built(name, config, task, options.variants)
    turns = itertools.product(methods, range(FIRST_SEED, FIRST_SEED + options.seeds))
    for variant, seed in followed(BENCHMARK, turns, lambda t: f"seed {t[1]} of {name}, {t[0]}"):
        if variant not in found:
            compile_training(methods[variant])
        figures = found.setdefault(variant, {})
        one, winner = run_seed(methods[variant], task, accuracy_of, seed, options)
        winners.append(winner)
        for metric, value in one.items():
            figures.setdefault(metric, []).append(value)
        text = ", ".join(f"{metric} {value:.4g}" for metric, value in one.items())
        say(f"{name} {variant} seed {seed}: {text}")
    with stages.at(f"final training of {len(winners)} winners"):
        final = final_accuracy(config, task, np.stack(winners), options.long)
    for variant, values in zip(found, final.reshape(len(found), -1), strict=True):
        found[variant]["final_accuracy"] = values.tolist()
    return [r for variant in found for r in summed_up(name, variant, found)]


def built(
    name: str, config: ml_collections.ConfigDict, task: Task, variants: list[str]
) -> dict[str, SearchMethod]:
    """PGNAS with the keys of each variant; says which the task's space has no estimator for."""
    found = {}
    for variant in variants:
        keys = {f"pgnas__{key}": value for key, value in VARIANTS[variant].items()}
        try:
            found[variant], _ = pgnas.build(changed(config, **keys), task.space, task, None)
        except UserError as error:
            say(f"{name}: {variant} left out: {error}")
    return found


def run_seed(
    method: SearchMethod,
    task: Task,
    accuracy_of: InheritedAccuracy,
    seed: int,
    options: argparse.Namespace,
) -> tuple[dict[str, float], np.ndarray]:
    """(figures, the best of the first samples [T])."""
    key, q = jax.random.key(seed), posterior.of_space(task.space)
    state, spent, _ = trained(method, key)
    phi, vector = state.learnt.phi, state.learnt.weights.vector
    z = q.draw(phi, q.noise(jax.random.fold_in(key, 1), options.samples))
    archs = np.asarray(q.to_archs(z))
    accuracy = accuracy_of(accuracy_of.params(vector), archs)
    figures = {
        "mean_accuracy": float(accuracy.mean()),
        "best_accuracy": float(accuracy.max()),
        "entropy": float(q.entropy(phi).sum()),
        "seconds": spent,
    }
    return figures, archs[accuracy[: options.search].argmax()]


def summed_up(task: str, variant: str, found: dict[str, dict[str, list[float]]]) -> list[Record]:
    """Means over the seeds, and how far the variant is from the default."""
    out = []
    for metric in FIGURES:
        values = found[variant][metric]
        out.append(records.over_seeds(BENCHMARK, task, variant, metric, values, records.mean))
        if variant != DEFAULT and DEFAULT in found and metric in BETTER:
            pair = (values, found[DEFAULT][metric], records.DIFFERENCE)
            out += records.paired(BENCHMARK, task, variant, metric, DEFAULT, *pair)
    return out


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    records.add_names(parser, "--tasks", TASKS)
    records.add_names(parser, "--variants", VARIANTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="networks that train it; 0: TASKS")
    parser.add_argument("--samples", type=int, default=64, help="from the posterior")
    parser.add_argument("--search", type=int, default=8, help="samples of which the best wins")
    parser.add_argument("--long", type=int, default=300, help="steps of the winners")
    options = parser.parse_args(arguments)
    records.check_names(parser, "task", options.tasks, TASKS)
    records.check_names(parser, "variant", options.variants, VARIANTS)
    records.check_least(parser, options, 1, "seeds", "samples", "search", "long")
    records.check_least(parser, options, 0, "steps")
    options.children, options.child_steps = 0, options.long
    return options


def run(options: argparse.Namespace) -> list[Record]:
    """All tasks."""
    devices.enable_compilation_cache(config_lib.default().jax.cache_dir)
    return [r for name in options.tasks for r in run_task(name, options)]


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
