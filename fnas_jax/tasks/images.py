"""Search on images: an evaluation trains the child on the training images and validates it.

The search sees validation images only. After it, `final` trains the winner on training and
validation images together and reports its accuracy on the test images, once.
"""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fnas_jax.children import cost as costs
from fnas_jax.children import networks, plain, train
from fnas_jax.core import devices
from fnas_jax.core import reward as rewards
from fnas_jax.core.types import Array, Metrics, UserError
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import augment, data, memo
from fnas_jax.tasks.base import Evaluator, Task
from fnas_jax.tasks.data import Dataset
from fnas_jax.tasks.memo import Memo


class Bench(NamedTuple):
    """What children are trained and measured with."""

    config: Any  # the run's ConfigDict
    space: Space
    dataset: Dataset
    pipeline: train.Pipeline
    settings: train.Settings


def build(config: Any, space: Space) -> Task:
    """The image task of `config.task`. Raises UserError for bad data or a space without network."""
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
    bench = make_bench(config, space, dataset)
    return Task(
        name=config.task.name,
        space=space,
        evaluator=evaluator(bench),
        final=functools.partial(final, bench),
        info={
            "images": [len(p) for p in (dataset.train_labels, dataset.val_labels)]
            + [len(dataset.test_labels)],
            "shape": list(dataset.image_shape),
            "classes": dataset.num_classes,
            "measures": "accuracy on validation images; the winner's on test images",
        },
        statistics={
            "images": float(len(dataset.train_labels)),
            "classes": float(dataset.num_classes),
            "height": float(dataset.image_shape[0]),
            "channels": float(dataset.image_shape[-1]),
            "mean": float(np.mean(dataset.mean)),
            "deviation": float(np.mean(dataset.std)),
        },
    )


def make_bench(config: Any, space: Space, dataset: Dataset) -> Bench:
    """What `config` says about training and data, on the images of `dataset`."""
    return Bench(config, space, dataset, _pipeline(config, dataset), _settings(config))


def _pipeline(config: Any, dataset: Dataset) -> train.Pipeline:
    options = config.task.augment
    return train.Pipeline(
        normalise=lambda images: data.normalise(images, dataset.mean, dataset.std),
        augment=lambda key, images: augment.augment(
            key, images, options.flip, options.crop, options.cutout
        ),
    )


def _settings(config: Any) -> train.Settings:
    children = config.children
    return train.Settings(
        batch_size=children.batch_size,
        lr=children.lr,
        momentum=children.momentum,
        weight_decay=children.weight_decay,
        label_smoothing=children.label_smoothing,
        warmup=children.warmup,
        eval_batch=children.eval_batch,
    )


def mode(name: str) -> str:
    """The training mode called `name`: "auto" is "map" on CPUs and "vmap" elsewhere."""
    if name != "auto":
        return name
    return "map" if jax.default_backend() == "cpu" else "vmap"


def evaluator(bench: Bench) -> Evaluator:
    """Trains what the memo does not know; not jittable, because it measures time.

    The compiled program serves every batch of the same size N, with empty places for known ones.
    """
    config, space, dataset = bench.config, bench.space, bench.dataset
    mesh = devices.children_mesh()
    network = networks.elastic(space, dataset.image_shape[-1], dataset.num_classes)
    population = train.population(
        network, bench.settings, bench.pipeline, mesh, mode(config.children.mode)
    )
    # Explicit placements: arguments placed otherwise would compile everything once more.
    spread = NamedSharding(mesh, PartitionSpec(devices.CHILDREN))
    everywhere = NamedSharding(mesh, PartitionSpec())
    examples = jax.device_put(
        _on_device(
            dataset.train_images, dataset.train_labels, dataset.val_images, dataset.val_labels
        ),
        everywhere,
    )
    steps = jax.device_put(np.int32(config.children.steps), everywhere)
    cost = jax.jit(costs.cost(space, dataset.image_shape, dataset.num_classes))
    reward = rewards.from_config(config)
    look_up, remember, recall = jax.jit(memo.look_up), jax.jit(memo.remember), jax.jit(memo.recall)
    # A batch may start when one evaluation is left of the budget.
    capacity = config.search.budget + config.search.batch
    decisions = len(space.cardinalities)

    def measure(archs: Array, new: Array, key: Array) -> Metrics:
        n = archs.shape[0]
        size = devices.padded_size(n, mesh)
        padded = jnp.pad(archs, ((0, size - n), (0, 0)))
        active, keys = jnp.pad(new, (0, size - n)), jax.random.split(key, size)
        start = time.monotonic()
        padded, active, keys = jax.device_put((padded, active, keys), spread)
        outcome = population(examples, padded, active, keys, steps)
        outcome = jax.tree.map(lambda x: np.asarray(x)[:n], outcome)
        params, macs = cost(archs)
        latency = np.full(n, np.nan, np.float32)
        if config.reward.cost == "latency_ms":
            for i in np.flatnonzero(new):
                latency[i] = latency_ms(bench, archs[i])
        seconds = (time.monotonic() - start) / max(int(new.sum()), 1)
        figures = (jnp.asarray(latency), macs / 1e6, params / 1e6)
        ok = outcome.ok & new
        accuracy = jnp.where(ok, outcome.accuracy, 0.0)
        return Metrics(
            accuracy=accuracy,
            reward=jnp.where(ok, reward(accuracy, *figures), 0.0),
            latency_ms=figures[0],
            mflops=figures[1],
            params_m=figures[2],
            seconds=jnp.full(n, seconds, jnp.float32),
            ok=ok,
            fresh=new,
        )

    def evaluate(known: Memo, archs: Array, mask: Array, key: Array) -> tuple[Memo, Metrics]:
        forms = space.canonical(archs)
        found = look_up(known, forms, mask)
        if found.new.any():
            # Trained in canonical form, so that equal networks get equal parameters too.
            known = remember(known, found, forms, measure(forms, found.new, key))
        return known, recall(known, found)

    return Evaluator(lambda: memo.empty(capacity, decisions), evaluate, jittable=False)


def _on_device(*arrays: np.ndarray) -> train.Data:
    return train.Data(*(jnp.asarray(a) for a in arrays))


def latency_ms(bench: Bench, arch: Array) -> float:
    """Milliseconds of one forward pass of the plain network of `arch` [T] on this device."""
    dataset, options = bench.dataset, bench.config.latency
    module = plain.build(bench.space, arch, dataset.num_classes)
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
        "latency_ms": latency_ms(bench, arch),
        "seconds": 0.0,
        "measures": "accuracy on test images after training on all others",
    }
    if config.winner.steps == 0:
        return winner
    module = plain.build(space, arch, dataset.num_classes)
    winner |= _train_and_test(bench, module, key)
    if config.winner.reference:
        reference, mflops, params_m, width = plain.reference(
            space, dataset.num_classes, winner["mflops"], dataset.image_shape
        )
        winner["reference"] = {
            "arch": plain.reference_arch(space).tolist(),
            "width": width,
            "mflops": mflops,
            "params_m": params_m,
            **_train_and_test(bench, reference, key),
        }
    return winner


def _train_and_test(bench: Bench, module: Any, key: Array) -> dict[str, Any]:
    """{"accuracy", "loss", "seconds"} of a plain network after `winner.steps` steps."""
    dataset = bench.dataset
    examples = _on_device(
        np.concatenate([dataset.train_images, dataset.val_images]),
        np.concatenate([dataset.train_labels, dataset.val_labels]),
        dataset.test_images,
        dataset.test_labels,
    )
    network = networks.from_module(module, dataset.image_shape)
    steps = jnp.int32(bench.config.winner.steps)
    start = time.monotonic()
    fitted = train.fit(network, bench.settings, bench.pipeline)
    _, _, outcome = fitted(examples, jnp.zeros(0, jnp.int32), key, steps)
    outcome = jax.block_until_ready(outcome)
    return {
        "accuracy": float(outcome.accuracy) if outcome.ok else None,
        "loss": float(outcome.loss) if outcome.ok else None,
        "steps": int(steps),
        "seconds": time.monotonic() - start,
    }
