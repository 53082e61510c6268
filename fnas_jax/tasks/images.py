"""Search on images: an evaluation trains the child on the training images and validates it.

The search sees validation images only. After it, `final` trains the winner on training and
validation images together and reports its accuracy on the test images, once.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import devices
from fnas_jax.core import reward as rewards
from fnas_jax.core.types import Array, UserError
from fnas_jax.knowledge import pool_store as stores
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.knowledge.pool_store import Store
from fnas_jax.networks import cost as costs
from fnas_jax.networks import elastic, flax_reference
from fnas_jax.networks.base import Network
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import augment, data, inherited, population_trainer
from fnas_jax.tasks.base import Task
from fnas_jax.tasks.children_evaluator import evaluator
from fnas_jax.tasks.data import Dataset
from fnas_jax.tasks.population_trainer import Bench
from fnas_jax.training import child, population, streaming


def build(config: Any, space: Space, knowledge: Knowledge | None = None) -> Task:
    """The image task of `config.task`, whose blocks are kept with `knowledge`.

    Raises UserError for bad data or a space without network.
    """
    kind, _, name = config.task.name.partition("/")
    if kind != "images" or not name:
        raise UserError(f"task.name is {config.task.name!r}; image tasks are images/NAME")
    if space.spec is None:
        raise UserError(f"space.name is {space.name!r}, which has no networks to train on images")
    task = config.task
    dataset = data.load(
        name,
        task.data_dir,
        task.image_size,
        task.val_fraction,
        task.test_fraction,
        task.split_seed,
    )
    bench = make_bench(config, space, dataset, knowledge)
    if bench.store is not None:
        stores.check(bench.store)
    return Task(
        name=config.task.name,
        space=space,
        evaluator=evaluator(bench),
        final=functools.partial(final, bench),
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
        oneshot=functools.partial(inherited.oneshot, bench),
    )


def make_bench(
    config: Any, space: Space, dataset: Dataset, knowledge: Knowledge | None = None
) -> Bench:
    """What `config` says about training and data, on the images of `dataset`."""
    store = None
    if knowledge is not None and knowledge.pool is not None and config.akp.enabled:
        store = Store(
            folder=knowledge.pool,
            space=space,
            channels=dataset.image_shape[-1],
            classes=dataset.num_classes,
            capacity=config.akp.capacity,
            run=knowledge.run,
        )
    return Bench(
        config=config,
        space=space,
        dataset=dataset,
        pipeline=_pipeline(config, dataset),
        settings=_settings(config),
        reward=rewards.from_config(config),
        latency_ms=functools.partial(latency_ms, config, space, dataset),
        store=store,
    )


def _pipeline(config: Any, dataset: Dataset) -> child.Pipeline:
    options = config.task.augment
    return child.Pipeline(
        normalise=lambda images: data.normalise(images, dataset.mean, dataset.std),
        augment=lambda key, images: augment.augment(
            key, images, options.flip, options.crop, options.cutout
        ),
    )


def _settings(config: Any) -> child.Settings:
    children = config.children
    return child.Settings(
        batch_size=children.batch_size,
        lr=children.lr,
        momentum=children.momentum,
        weight_decay=children.weight_decay,
        label_smoothing=children.label_smoothing,
        warmup=children.warmup,
        eval_batch=children.eval_batch,
    )


def latency_ms(config: Any, space: Space, dataset: Dataset, arch: Array) -> float:
    """Milliseconds of one forward pass of the plain network of `arch` [T] on this device."""
    options = config.latency
    module = flax_reference.build(space, arch, dataset.num_classes)
    # Time does not depend on the weights, and drawing them would compile longer than the network.
    image = jnp.zeros((1, *dataset.image_shape))
    shapes = jax.eval_shape(lambda key: module.init(key, image, train=False), jax.random.key(0))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return costs.measure_latency_ms(
        module, variables, dataset.image_shape, options.batch_size, options.repeats
    )


def final(bench: Bench, arch: Array, key: Array) -> dict[str, Any]:
    """Trains the winner `arch` [T] and the reference network alike, and tests both.

    The reference is the smallest network of MobileNetV2's kind in this space that costs no less.
    JSON-ready; accuracies are None where `winner.steps` is 0.
    """
    config, dataset, space = bench.config, bench.dataset, bench.space
    params, macs = costs.one_cost(space, arch, dataset.image_shape, dataset.num_classes)
    winner: dict[str, Any] = {
        "accuracy": None,
        "mflops": macs / 1e6,
        "params_m": params / 1e6,
        "latency_ms": bench.latency_ms(arch),
        "seconds": 0.0,
        "measures": "accuracy on test images after training on all others",
    }
    if config.winner.steps == 0:
        return winner
    shape, classes = dataset.image_shape, dataset.num_classes
    backend = config.children.backend
    entrants = [elastic.fixed_network(space, arch, shape, classes, backend=backend)]
    if config.winner.reference:
        width, mflops, params_m = flax_reference.reference(space, classes, winner["mflops"], shape)
        standard = flax_reference.reference_arch(space)
        winner["reference"] = {
            "arch": standard.tolist(),
            "width": width,
            "mflops": mflops,
            "params_m": params_m,
        }
        entrants.append(elastic.fixed_network(space, standard, shape, classes, width, backend))
    tested = _train_and_test(bench, entrants, key)
    winner |= tested[0]
    if config.winner.reference:
        winner["reference"] |= tested[1]
    return winner


def _train_and_test(bench: Bench, entrants: list[Network], key: Array) -> list[dict[str, Any]]:
    """{"accuracy", "loss", "steps", "seconds"} of networks after `winner.steps` steps.

    Each on a device of its own where there are as many, and at the same time.
    """
    dataset, steps = bench.dataset, jnp.int32(bench.config.winner.steps)
    examples = child.Data(
        np.concatenate([dataset.train_images, dataset.val_images]),
        np.concatenate([dataset.train_labels, dataset.val_labels]),
        dataset.test_images,
        dataset.test_labels,
    )
    own = jax.local_devices()
    running = []
    for i, network in enumerate(entrants):
        start = time.monotonic()
        mesh = devices.children_mesh([own[i % len(own)]])
        chunk = population_trainer.images_at_once(
            bench.config.children.device_images, dataset, mesh
        )
        made = (network, bench.settings, bench.pipeline, mesh)
        if chunk is None:
            run, data = population.make(*made), devices.replicate(examples, mesh)
        else:
            run, data = streaming.make(*made, 1, chunk=chunk), examples
        one = (jnp.zeros((1, 0), jnp.int32), jnp.ones(1, bool), key[None])
        given = (*devices.shard(one, mesh), devices.replicate(steps, mesh))
        running.append((start, run(data, *given).outcome))
    tested = []
    for start, outcome in running:
        accuracy, loss, ok = (x[0] for x in jax.device_get(outcome))
        tested.append(
            {
                "accuracy": float(accuracy) if ok else None,
                "loss": float(loss) if ok else None,
                "steps": int(steps),
                "seconds": time.monotonic() - start,
            }
        )
    return tested
