"""The task of the benchmark `pool_convergence`: children from fresh and from inherited weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fnas_jax.core import config as config_lib
from fnas_jax.core import devices
from fnas_jax.core.types import Array
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge.pool import Pool
from fnas_jax.networks import elastic
from fnas_jax.networks.base import Network
from fnas_jax.spaces.base import Space, fair_round
from fnas_jax.tasks import images, pool_access
from fnas_jax.tasks.data import Dataset
from fnas_jax.training import child
from fnas_jax.training import population as population_lib
from fnas_jax.training.minibatches import Data

BATCH = 8


class Setup(NamedTuple):
    """A data set with the compiled functions of its children."""

    space: Space
    layout: pools.Layout
    empty: Pool
    examples: Data
    population: Callable[..., Any]  # see `training.population.make`
    find: Callable[..., Any]  # see `knowledge.pool.find`, of this layout
    deposit: Callable[..., Pool]  # see `knowledge.pool.deposit`, of this layout
    size: int  # children of a batch


def configuration() -> ml_collections.ConfigDict:
    """Small networks for images of 28x28 pixels."""
    config = config_lib.default()
    config.task.name = "images/mnist5k"
    config.space.blocks = 3
    config.space.width = 0.5
    config.space.strides = (1, 2, 2)
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


def setup(config: ml_collections.ConfigDict, space: Space, dataset: Dataset) -> Setup:
    """One compiled program trains children from fresh and from inherited weights."""
    ctx = images.train_context(config, space, dataset)
    network = elastic.make(space, dataset.image_shape[-1], dataset.num_classes)
    layout = pool_access.pool_layout(config.akp, space, network)
    mesh = devices.children_mesh()
    begin = functools.partial(start, layout, network)
    trained = child.Context(network, ctx.settings, ctx.pipeline, ctx.objective)
    population = population_lib.make(population_lib.Context(trained, mesh, start=begin))
    names = ("train_images", "train_labels", "val_images", "val_labels")
    return Setup(
        space,
        layout,
        pools.init(layout, config.akp.capacity, jax.random.key(0)),
        Data(*(jnp.asarray(getattr(dataset, name)) for name in names)),
        population,
        jax.jit(functools.partial(pools.find, layout)),
        jax.jit(functools.partial(pools.deposit, layout)),
        devices.padded_size(BATCH, mesh),
    )


def start(
    layout: pools.Layout, network: Network, pool: Pool, arch: Array, own: tuple[Array, Array, Array]
) -> Any:
    """A child's first weights: `own` is (entries of the pool, key, whether to inherit them)."""
    entry, key, inherit = own
    inherited, fresh = pools.inherit(layout, pool, arch, entry), network.init(key, arch)
    return jax.tree.map(lambda a, b: jnp.where(inherit, a, b), inherited, fresh)


def train(
    ctx: Setup, pool: Pool, archs: np.ndarray, keys: Array, inherit: bool, steps: int
) -> tuple[np.ndarray, Pool]:
    """(accuracies [N] of archs [N, T], the pool that has learnt from them if they `inherit`)."""
    accuracy, learnt = [], pool
    for i in range(0, len(archs), ctx.size):
        some = np.resize(archs[i : i + ctx.size], (ctx.size, archs.shape[1]))
        some_keys = keys[i + np.arange(ctx.size) % len(archs[i : i + ctx.size])]
        active = jnp.arange(ctx.size) < len(archs[i : i + ctx.size])
        # Children of a batch start from the pool as it is before the batch.
        own = (ctx.find(learnt, some).entry, some_keys, jnp.full(ctx.size, inherit))
        trained = ctx.population(
            ctx.examples, jnp.asarray(some), active, some_keys, jnp.int32(steps), learnt, own
        )
        accuracy.append(np.asarray(trained.outcome.accuracy)[np.asarray(active)])
        if inherit:
            use = active & trained.outcome.ok
            known = (trained.params, trained.outcome.accuracy, use)
            learnt = ctx.deposit(learnt, jnp.asarray(some), *known, jnp.uint32(0))
    return np.concatenate(accuracy), learnt


def taught_pool(
    ctx: Setup, archs: np.ndarray, key: Array, rounds: int, steps: int
) -> tuple[Pool, int]:
    """(a pool that has learnt from `rounds` fair rounds and then from `archs`, children of these).

    Each of them trains for `steps` steps.
    """
    key_rounds, key_train = jax.random.split(key)
    fair = [
        np.asarray(ctx.space.canonical(fair_round(ctx.space.cardinalities, k)))
        for k in jax.random.split(key_rounds, rounds)
    ]
    everyone = np.concatenate([*fair, archs])
    keys = jax.random.split(key_train, len(everyone))
    return train(ctx, ctx.empty, everyone, keys, True, steps)[1], len(everyone) - len(archs)
