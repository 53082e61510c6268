"""A short trial of a few learning rates before a search is planned.

A child of middle cost is trained by each of them, on the same images in the same order, and judged
on validation images.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import devices
from fnas_jax.planning import speed
from fnas_jax.planning.schedule import Facts, Size, Speed
from fnas_jax.tasks import trained, ways
from fnas_jax.tasks.context import TrainContext
from fnas_jax.tasks.data import Dataset
from fnas_jax.training import population
from fnas_jax.training.minibatches import Data
from fnas_jax.training.population import Child, Shared

FACTORS = (0.5, 1.0, 2.0, 4.0)  # times `children.lr`
SHARE = 0.04  # of the time, at most
LEAST_STEPS, MOST_STEPS = 60, 300  # of a training; fewer tell nothing
JUDGED = 2048  # validation images


class Trial(NamedTuple):
    """What each of the rates [R] came to."""

    steps: int
    rates: np.ndarray  # [R] float
    loss: np.ndarray  # [R] on validation images; infinite where it is no number
    accuracy: np.ndarray  # [R] as `Outcome` has it

    @property
    def best(self) -> int:
        """The place of the lowest loss."""
        return int(np.argmin(self.loss))


def steps_within(facts: Facts, measured: Speed, size: Size, seconds: float) -> int:
    """Steps of each training, for which `SHARE` of `seconds` suffices; 0: too few."""
    left = SHARE * seconds - measured.compilation
    rounds = -(-len(FACTORS) // min(facts.devices, len(jax.local_devices())))
    steps = int(left / rounds * measured.macs / size.mean / facts.batch)
    return min(steps, MOST_STEPS) if steps >= LEAST_STEPS else 0


def run(ctx: TrainContext, steps: int) -> Trial:
    """Trains the architecture of the middle cost for `steps` by each rate, over all devices."""
    arch, _ = speed.of_cost(ctx, 0.5)
    mesh = devices.children_mesh(jax.local_devices()[: len(FACTORS)])  # of the host that plans
    count = devices.padded_size(len(FACTORS), mesh)
    rates = ctx.settings.lr * np.resize(np.asarray(FACTORS, np.float32), count)
    images = some_of(ctx.dataset, steps * ctx.settings.batch_size)
    made = ways.children_by(ctx, trained.elastic_network(ctx), mesh)
    key = jnp.broadcast_to(jax.random.key(0), count)  # the same for all: rates alone differ
    children = Child(jnp.tile(arch, (count, 1)), jnp.ones(count, bool), key, jnp.asarray(rates))
    shared = devices.replicate(Shared(images, jnp.int32(steps)), mesh)
    run = population.compiled(made, population.of_rate)
    found = jax.device_get(run(shared, devices.shard(children, mesh)))
    return Trial(steps, *(x[: len(FACTORS)] for x in (rates, *found)))


def some_of(dataset: Dataset, count: int) -> Data:
    """`count` random training images, of which no more are seen, and `JUDGED` to validate."""
    rng, chosen = np.random.default_rng(0), []
    for labels, most in ((dataset.train_labels, count), (dataset.val_labels, JUDGED)):
        rows = rng.choice(len(labels), min(most, len(labels)), replace=False)
        chosen.append(np.sort(rows))
    train, val = chosen
    return Data(
        np.asarray(dataset.train_images[train]),
        dataset.train_labels[train],
        np.asarray(dataset.val_images[val]),
        dataset.val_labels[val],
    )
