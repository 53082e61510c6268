"""A short trial of a few learning rates, and of mirror images, before a search is planned.

A child of middle cost is trained by each of `RATES`, all on the same images in the same order, and
judged on validation images. One that has never seen mirror images then judges these, too: where it
takes them for what they are, mirroring does no harm. It reads digits and letters worse.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core import devices
from fnas_jax.core.types import Array
from fnas_jax.planning import speed
from fnas_jax.planning.schedule import Facts, Size, Speed
from fnas_jax.tasks import trained
from fnas_jax.tasks.context import TrainContext
from fnas_jax.training import child as child_lib
from fnas_jax.training import population
from fnas_jax.training.minibatches import Data, in_memory
from fnas_jax.training.population import Child, Shared

FACTORS = (0.5, 1.0, 2.0, 4.0)  # times `children.lr`
SHARE = 0.04  # of the time, at most
LEAST_STEPS, MOST_STEPS = 60, 300  # of a training; fewer tell nothing
JUDGED = 2048  # validation images
# Of the accuracy on mirror images: they are of the same classes. After 150 steps, MNIST and the
# digits of scikit-learn keep 0.34 of it, Fashion-MNIST 0.84 (of validation images).
KEPT = 0.6


class Trial(NamedTuple):
    """What each of the rates [R] came to."""

    steps: int
    rates: np.ndarray  # [R] float
    loss: np.ndarray  # [R] on validation images
    accuracy: np.ndarray  # [R] there
    mirrored: np.ndarray  # [R] on the same images, mirrored left to right

    @property
    def best(self) -> int:
        """The place of the lowest loss; one that is not finite is no loss."""
        return int(np.argmin(np.where(np.isfinite(self.loss), self.loss, np.inf)))

    @property
    def flips(self) -> bool:
        """Whether mirror images are taken for what they are."""
        return bool(self.mirrored[self.best] >= KEPT * self.accuracy[self.best])


def steps_within(facts: Facts, measured: Speed, size: Size, seconds: float) -> int:
    """Steps of each training, for which `SHARE` of `seconds` suffices; 0: too few."""
    left = SHARE * seconds - measured.compilation
    rounds = -(-len(FACTORS) // facts.devices)
    steps = int(left / rounds * measured.macs / size.mean / facts.batch)
    return min(steps, MOST_STEPS) if steps >= LEAST_STEPS else 0


def run(ctx: TrainContext, steps: int) -> Trial:
    """Trains the architecture of the middle cost for `steps` by each rate, over all devices."""
    archs, macs = speed.sampled(ctx)
    arch = archs[int(np.argsort(macs)[len(macs) // 2])]
    mesh = devices.children_mesh(most=len(FACTORS))
    count = devices.padded_size(len(FACTORS), mesh)
    rates = ctx.settings.lr * np.resize(np.asarray(FACTORS, np.float32), count)
    dataset = ctx.dataset
    judged = slice(JUDGED)
    images = in_memory(
        Data(
            dataset.train_images,
            dataset.train_labels,
            dataset.val_images[judged],
            dataset.val_labels[judged],
        )
    )
    trainee = child_lib.Context(
        trained.elastic_network(ctx), ctx.settings, ctx.pipeline, ctx.objective
    )
    made = population.Context(trainee, mesh)
    key = jnp.broadcast_to(jax.random.key(0), count)  # the same for all: rates alone differ
    children = Child(jnp.tile(arch, (count, 1)), jnp.ones(count, bool), key, jnp.asarray(rates))
    shared = devices.replicate(Shared(images, jnp.int32(steps)), mesh)
    run = jax.jit(population.over_children(made, of_rate))
    loss, accuracy = jax.device_get(run(shared, children))
    loss, accuracy = loss[: len(FACTORS)], accuracy[: len(FACTORS)]
    return Trial(steps, rates[: len(FACTORS)], loss[:, 0], accuracy[:, 0], accuracy[:, 1])


def of_rate(ctx: population.Context, shared: Shared, child: Child) -> tuple[Array, Array]:
    """([2] loss, [2] accuracy) on images and on mirror images, after training by one rate.

    The rate is `child.source` [], data, so that all rates are one program.
    """
    settings: Any = dataclasses.replace(ctx.child.settings, lr=child.source)
    own, data = ctx.child._replace(settings=settings), shared.data
    params = child_lib.train(own, data, child.arch, child.key, shared.steps)

    def judged(images: Array) -> child_lib.Outcome:
        among = data._replace(eval_images=images)
        return child_lib.evaluate(own, among, child.arch, params, child.active)[1]

    images = jnp.asarray(data.eval_images)
    found = lax.map(judged, jnp.stack([images, images[:, :, ::-1]]))
    return jnp.where(found.ok, found.loss, jnp.inf), found.accuracy
