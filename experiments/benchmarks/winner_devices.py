"""The final training of one network by 1, 2 and 4 devices: test accuracy, and time.

    python -m experiments.benchmarks.winner_devices --json OUT

A random network of the Macro space (a quarter of its channels) on MNIST of 14x14 pixels, from the
weights of `--seeds` seeds, by each number of devices in turn. On CPUs devices are made, as many as
are asked for, whatever the cores; where these are fewer, time cannot fall. Differences of accuracy
are seed by seed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.benchmarks import records
from experiments.benchmarks.progress import followed
from experiments.benchmarks.records import Record
from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices, stages
from fnas_jax.core.keep import NOWHERE
from fnas_jax.core.mapped import joined
from fnas_jax.core.types import UserError
from fnas_jax.tasks import entrants, images, winner
from fnas_jax.tasks import recipe as recipes
from fnas_jax.tasks.context import TrainContext
from fnas_jax.training import child, parallel
from fnas_jax.training.minibatches import Data

BENCHMARK = "winner_devices"
TASK = "mnist5k"


def context(steps: int) -> TrainContext:
    """The task whose winner is trained for so many steps."""
    config = config_lib.default()
    config.task.name, config.task.image_size = f"images/{TASK}", 14
    config.space.name, config.space.width = "macro", 0.25
    config.winner.steps = steps
    config = config_lib.validate(config)
    dataset = images.load(config)
    return images.train_context(config, registry.build_space(config), dataset)


def runs(ctx: TrainContext, counts: Sequence[int]) -> dict[int, entrants.Run]:
    """The training by each number of devices, compiled; its key is to be set."""
    dataset, (arch,) = ctx.dataset, ctx.space.sample(jax.random.key(0), 1)
    network = winner.own_network(ctx, ctx.canonical(arch[None])[0])
    how = recipes.settings(ctx), recipes.pipeline(ctx)
    trainee = child.Context(network, *how, ctx.objective, recipes.of(ctx))
    examples = Data(
        joined(dataset.train_images, dataset.val_images),
        np.concatenate([dataset.train_labels, dataset.val_labels]),
        dataset.test_images,
        dataset.test_labels,
    )
    found = {}
    for count in counts:
        mesh = Mesh(np.asarray(jax.devices()[:count]), (devices.BATCH,))
        own, compiled = parallel.make(trainee, mesh)
        placed, steps = parallel.place(own, examples, None), ctx.config.winner.steps
        run = entrants.Run(own, compiled, placed, jax.random.key(0), steps, None)
        entrants.tested(run._replace(steps=2), "", "", NOWHERE)
        found[count] = run
    return found


def run(options: argparse.Namespace) -> list[Record]:
    """All seeds by each number of devices in turn, so that other programs disturb all alike."""
    counts = sorted(set(options.devices))
    force(max(counts))
    ctx = context(options.steps)
    with stages.at("compiling"):
        trainings = runs(ctx, counts)
    accuracy: dict[int, list[float]] = {count: [] for count in counts}
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    turns = itertools.product(range(options.seeds), trainings)
    for seed, count in followed(BENCHMARK, turns, lambda t: f"seed {t[0]}, {t[1]} devices"):
        own = trainings[count]._replace(key=jax.random.key(seed))
        facts = entrants.tested(own, "", "", NOWHERE).facts
        accuracy[count].append(facts["accuracy"] or 0.0)
        seconds[count].append(facts["seconds"])
    found = []
    for count in counts:
        method = f"devices_{count}"
        against_one = list(np.subtract(accuracy[count], accuracy[counts[0]]))
        for metric, values in (
            ("test_accuracy", accuracy[count]),
            (f"test_accuracy_minus_devices_{counts[0]}", against_one),
            ("seconds", seconds[count]),
        ):
            found.append(records.over_seeds(BENCHMARK, TASK, method, metric, values))
    return found


def force(count: int) -> None:
    """Makes JAX see so many devices on a CPU. Raises UserError where there are fewer."""
    if jax.config.jax_num_cpu_devices < 1:  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):  # JAX was used before: its devices stay
            jax.config.update("jax_num_cpu_devices", count)
    here = len(jax.devices())
    if here < count:
        raise UserError(f"--devices asks for {count}, and there are {here}")


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--devices", type=lambda t: [int(n) for n in t.split(",")], default="1,2,4")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args(arguments)
    records.check_least(parser, options, 1, "seeds", "steps")
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
