"""Search on images: an evaluation trains the child on the training images and validates it.

The search sees validation images only. After it, `final` trains the winner on training and
validation images together and reports its accuracy on the test images, once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fnas_jax.core import config as config_lib
from fnas_jax.core import limits
from fnas_jax.core import memory as memory_lib
from fnas_jax.core import reward as rewards
from fnas_jax.core.keep import NOWHERE
from fnas_jax.core.types import Array, UserError
from fnas_jax.knowledge import pool_store as stores
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.knowledge.pool_store import Store
from fnas_jax.networks import cost as costs
from fnas_jax.networks import elastic
from fnas_jax.objectives import base as objectives
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import (
    augment_choice,
    cheapest,
    data,
    features,
    inherited,
    latency,
    limited,
    memory,
    policy,
    pricing,
    proxy_features,
    trained,
    winner,
)
from fnas_jax.tasks import recipe as recipes
from fnas_jax.tasks.augment_choice import Applied
from fnas_jax.tasks.base import Task
from fnas_jax.tasks.context import TrainContext
from fnas_jax.tasks.data import Dataset
from fnas_jax.timing import whole
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Pipeline


def build(
    config: Any,
    space: Space,
    knowledge: Knowledge | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Task:
    """The image task of `config.task`, whose blocks are kept with `knowledge`.

    `arrays`: the image set, where it is in memory (`data.load`).

    Raises UserError for bad data or a space without network.
    """
    kind, _, name = config.task.name.partition("/")
    if kind != "images" or not name:
        raise UserError(f"task.name is {config.task.name!r}; image tasks are images/NAME")
    if not elastic.has_networks(space):
        raise UserError(f"space.name is {space.name!r}, which has no networks to train on images")
    task = config.task
    for name in ("decisions", "time"):
        if task[name]:
            raise UserError(f"task.{name} names columns of a .csv table, and the task is of images")
    dataset = load(config, arrays)
    ctx = train_context(config, space, dataset, knowledge)
    if task.direction not in ("", ctx.objective.measure.direction):
        raise UserError(
            f"task.direction is {task.direction!r}, and {ctx.objective.measure.name} is"
            f" {ctx.objective.measure.direction}d: that key is for .csv tables"
        )
    recipes.check(ctx)
    held_out = {"validation": dataset.val_labels, "test": dataset.test_labels}
    objectives.check_judged(ctx.objective, held_out)
    if ctx.store is not None:
        stores.check(ctx.store)
    policy.check(recipes.of(ctx))
    memory_lib.return_after_compiling()
    return Task(
        name=config.task.name,
        space=space,
        evaluator=trained.evaluator(ctx),
        final=functools.partial(winner.final, ctx),
        compare=functools.partial(winner.compare, ctx),
        keeps=True,
        trains=True,
        statistics={
            "images": float(len(dataset.train_labels)),
            "classes": float(dataset.num_classes),
            "height": float(dataset.image_shape[0]),
            "channels": float(dataset.image_shape[-1]),
            "mean": float(np.mean(dataset.mean)),
            "deviation": float(np.mean(dataset.std)),
        },
        sample_images=data.sample_images(dataset),
        dataset=dataset,
        measure=ctx.objective.measure,
        features=functools.partial(
            features.of_networks,
            config.features,
            space,
            dataset.image_shape,
            dataset.outputs,
            ctx.latency,
            measure=functools.partial(proxy_features.part, ctx),
        ),
        oneshot=functools.partial(inherited.oneshot, ctx),
        allowed=limited.allowed(ctx),
        refuses=limited.free(ctx) != ctx.limits,
        check=functools.partial(cheapest.check, ctx),
        fits=functools.partial(memory.check, ctx),
        said=(augment_choice.of(config, dataset).said,),
        layers=elastic.described(space, config.children.backend, dataset.outputs),
    )


def load(config: Any, arrays: Mapping[str, np.ndarray] | None = None) -> Dataset:
    """The image set of `config.task`; `arrays` and errors as those of `data.load`."""
    task = config.task
    return data.load(
        task.name.partition("/")[2],
        task.data_dir,
        task.image_size,
        task.val_fraction,
        task.test_fraction,
        task.split_seed,
        task.alpha,
        task.labels,
        task.cache_dir,
        arrays,
        task.objective,
    )


def train_context(
    config: Any, space: Space, dataset: Dataset, knowledge: Knowledge | None = None
) -> TrainContext:
    """What `config` says about training and data, on the images of `dataset`. Raises UserError."""
    objective = objectives.of(
        config.task.objective,
        config.task.metric,
        dataset.train_labels,
        dataset.num_classes,
        config.task.class_weights == "balanced",
    )
    applied = augment_choice.of(config, dataset).applied
    store = None
    if knowledge is not None and knowledge.pool is not None and config.akp.enabled:
        store = Store(
            folder=knowledge.pool,
            space=space,
            channels=dataset.image_shape[-1],
            classes=dataset.outputs,
            capacity=config.akp.capacity,
            run=knowledge.run,
            images=dataset.names,
            objective=config.task.objective,
        )
    of_networks = costs.cost(space, dataset.image_shape, dataset.outputs)
    return TrainContext(
        config=config,
        space=space,
        dataset=dataset,
        objective=objective,
        pipeline=_pipeline(dataset, applied),
        settings=config_lib.read(Children, config.children),
        reward=rewards.from_config(config, objective.measure),
        latency_ms=functools.partial(latency_ms, config, space, dataset),
        canonical=jax.jit(space.canonical),
        cost=of_networks,
        store=store,
        limits=limits.from_config(config),
        latency=latency.open_(config, space, dataset),
        price=pricing.of(config, space, dataset, objective.measure, of_networks),
        augment=applied,
        keep=NOWHERE if knowledge is None else knowledge.keep,
    )


def _pipeline(dataset: Dataset, applied: Applied) -> Pipeline:
    return Pipeline(
        normalise=functools.partial(data.normalise, mean=dataset.mean, std=dataset.std),
        augment=augment_choice.make(applied, dataset),
    )


def latency_ms(config: Any, space: Space, dataset: Dataset, arch: Array) -> float:
    """Milliseconds of a pass of the network of `arch` [T] on this device, as it ships."""
    options = config.latency
    images = latency.images_of(dataset)
    return whole.latency_ms(space, arch, images, options.batch_size, options.repeats)
