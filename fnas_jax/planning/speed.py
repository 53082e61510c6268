"""How fast children train here: some steps of a few, on all devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import devices
from fnas_jax.core.types import Array
from fnas_jax.planning.schedule import Size, Speed
from fnas_jax.tasks import population_trainer, trained
from fnas_jax.tasks.context import TrainContext
from fnas_jax.training import child, parts, population
from fnas_jax.training.minibatches import Data

_SAMPLE = 256  # architectures that stand for a space
_IMAGES = 1024  # of the data set, which suffice for a few steps
_LEAST = 1.0  # seconds that are timed, so that a clock and a neighbour matter little
_MOST_STEPS = 512


def sampled(ctx: TrainContext) -> tuple[Array, np.ndarray]:
    """(random architectures [`_SAMPLE`, T], multiply-adds of each)."""
    archs = ctx.canonical(ctx.space.sample(jax.random.key(0), _SAMPLE))
    return archs, np.asarray(jax.jit(ctx.cost)(archs)[1], np.float64)


def of_cost(ctx: TrainContext, share: float) -> tuple[Array, float]:
    """(the architecture [T] of `sampled` that costs more than this share of them, its own cost)."""
    archs, macs = sampled(ctx)
    place = int(np.argsort(macs)[int(share * len(macs))])
    return archs[place], float(macs[place])


def size_of(ctx: TrainContext) -> Size:
    """Of `_SAMPLE` random architectures."""
    _, macs = sampled(ctx)
    return Size(float(macs.mean()), float(np.quantile(macs, 0.75)))


def measure(ctx: TrainContext) -> Speed:
    """Times the architecture of the middle cost, on every device as many as it trains at once."""
    arch, macs = of_cost(ctx, 0.5)
    network, mesh = trained.elastic_network(ctx), devices.children_mesh()
    network, group = population_trainer.children_at_once(ctx, network, mesh)
    trainee = child.Context(network, ctx.settings, ctx.pipeline, ctx.objective)
    run = population.make(population.Context(trainee, mesh, group))
    count = group * mesh.shape[devices.CHILDREN]
    given = devices.shard(
        (
            jnp.tile(arch, (count, 1)),
            jnp.ones(count, bool),
            jax.random.key_data(jax.random.split(jax.random.key(1), count)),
        ),
        mesh,
    )
    dataset = ctx.dataset
    images = np.asarray(dataset.train_images[:_IMAGES]), dataset.train_labels[:_IMAGES]
    examples = devices.replicate(Data(*images, *(part[:1] for part in images)), mesh)

    def seconds(steps: int) -> float:
        last = devices.replicate(np.int32(steps), mesh)
        return parts.timed(lambda: run(examples, *given, last))[1]

    compilation = seconds(1)
    few, steps = seconds(1), 8
    while (taken := seconds(1 + steps) - few) < _LEAST and steps < _MOST_STEPS:
        steps *= 2
    batch = min(ctx.settings.batch_size, len(images[1]))
    return Speed(group * macs * batch * steps / max(taken, 1e-6), compilation)
