"""Children judged with weights that one network for all of them has learnt; none is trained.

The statistics of a child's normalisations are estimated anew on training images, because those of
the other children are not its own. Children are judged as they were asked for, not in their
canonical form, because the same network may stand at places with other weights. After the search
the winner may be trained on from its inherited weights, and the best children's blocks enter the
knowledge pool.
"""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core import devices
from fnas_jax.core.types import Array, Metrics, UserError
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge import pool_store as stores
from fnas_jax.knowledge.pool import Layout, Pool
from fnas_jax.layers.ops import Params
from fnas_jax.networks import cost as costs
from fnas_jax.networks import elastic
from fnas_jax.networks.base import Network
from fnas_jax.tasks import cache, population_trainer
from fnas_jax.tasks.base import Evaluator, Hooks, OneShot
from fnas_jax.tasks.cache import Memo
from fnas_jax.tasks.children_evaluator import POOL_SEED, pool_capacity, pool_layout
from fnas_jax.tasks.population_trainer import Bench
from fnas_jax.training import child

TAUGHT = 8  # best children whose blocks enter the pool


class State(NamedTuple):
    """What the evaluator knows."""

    memo: Memo
    params: Params  # of the elastic network; zeros until they are loaded


def oneshot(bench: Bench) -> OneShot:
    """What one-shot methods need of an image task."""
    dataset, space = bench.dataset, bench.space
    wanted, mesh = bench.config.children.device_images, devices.children_mesh(most=1)
    if population_trainer.images_at_once(wanted, dataset, mesh) is not None:
        raise UserError(
            f"method.name is {bench.config.method.name!r}, which needs all images on the device;"
            " task.image_size or children.device_images (0) would have to change"
        )
    channels, classes = dataset.image_shape[-1], dataset.num_classes
    network = elastic.make(space, channels, classes, bench.config.children.backend)
    images = (dataset.train_images, dataset.train_labels, dataset.val_images, dataset.val_labels)
    data = child.Data(*map(jnp.asarray, images))
    return OneShot(
        network=network,
        pipeline=bench.pipeline,
        settings=bench.settings,
        data=data,
        classes=classes,
        vmap=jax.default_backend() != "cpu",
        cost=costs.cost(space, dataset.image_shape, dataset.num_classes),
        start=functools.partial(_start, bench, network),
        evaluator=evaluator(bench, network, data),
    )


def evaluator(bench: Bench, network: Network, data: child.Data) -> Evaluator:
    """Judges what the memo does not know; not jittable, because it measures time.

    Its `load_weights` takes the parameters of the elastic network. A fresh evaluation is one that
    was made now, although nothing was trained for it.
    """
    config, space, dataset = bench.config, bench.space, bench.dataset
    cost = jax.jit(costs.cost(space, dataset.image_shape, dataset.num_classes))
    look_up, remember, recall = (
        jax.jit(cache.look_up),
        jax.jit(cache.remember),
        jax.jit(cache.recall),
    )
    judge = judging(network, bench.settings, bench.pipeline, jax.default_backend() != "cpu")
    capacity = config.search.budget + config.search.batch
    decisions = len(space.cardinalities)

    def init() -> State:
        shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(decisions, jnp.int32))
        params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return State(cache.empty(capacity, decisions), params)

    def measure(params: Params, archs: Array, new: Array) -> Metrics:
        start = time.monotonic()
        outcome = jax.block_until_ready(judge(params, data, archs, new))
        weights, macs = cost(archs)
        latency = np.full(len(archs), np.nan, np.float32)
        if config.reward.cost == "latency_ms":
            for i in np.flatnonzero(new):
                latency[i] = bench.latency_ms(archs[i])
        seconds = (time.monotonic() - start) / max(int(new.sum()), 1)
        costs_of = (jnp.asarray(latency), macs / 1e6, weights / 1e6)
        ok = outcome.ok & new
        accuracy = jnp.where(ok, outcome.accuracy, 0.0)
        reward = jnp.where(ok, bench.reward(accuracy, *costs_of), 0.0)
        spent = jnp.full(len(archs), seconds, jnp.float32)
        return Metrics(accuracy, reward, *costs_of, seconds=spent, ok=ok, fresh=new)

    def evaluate(state: State, archs: Array, mask: Array, key: Array) -> tuple[State, Metrics]:
        forms = space.canonical(archs)
        found = look_up(state.memo, forms, mask)
        if found.new.any():
            measured = measure(state.params, archs, found.new)
            state = state._replace(memo=remember(state.memo, found, forms, measured))
        return state, recall(state.memo, found)

    def finalize(state: State, arch: Array, key: Array) -> dict[str, Any]:
        _teach(bench, network, state)
        facts: dict[str, Any] = {"searched_by": "judged with inherited weights"}
        if config.oneshot.finetune:
            facts["finetuned"] = finetune(bench, network, state.params, arch, key)
        return facts

    return Evaluator(
        init,
        evaluate,
        jittable=False,
        hooks=Hooks(
            load_weights=lambda state, params: state._replace(params=params), finalize=finalize
        ),
    )


def judging(
    network: Network, settings: child.Settings, pipeline: child.Pipeline, vmap: bool
) -> Any:
    """The jitted function (params, data, archs [N, T], active [N]) -> Outcome of [N]."""

    def one(params: Params, data: child.Data, arch: Array, active: Array) -> child.Outcome:
        return child.evaluate(network, settings, pipeline, data, arch, params, active)[1]

    @jax.jit
    def run(params: Params, data: child.Data, archs: Array, active: Array) -> child.Outcome:
        if vmap:
            return jax.vmap(lambda arch: one(params, data, arch, jnp.bool_(True)))(archs)
        return lax.map(lambda item: one(params, data, *item), (archs, active))

    return run


def finetune(
    bench: Bench, network: Network, params: Params, arch: Array, key: Array
) -> dict[str, Any]:
    """Test accuracy of `arch` [T] trained on from its inherited weights, on all other images."""
    dataset, config = bench.dataset, bench.config
    everything = child.Data(
        jnp.concatenate([dataset.train_images, dataset.val_images]),
        jnp.concatenate([dataset.train_labels, dataset.val_labels]),
        jnp.asarray(dataset.test_images),
        jnp.asarray(dataset.test_labels),
    )
    # The weights are trained already: they go on at a tenth of the rate.
    settings = bench.settings._replace(lr=bench.settings.lr / 10)
    parts = (network, settings, bench.pipeline)

    @jax.jit
    def run(data: child.Data, arch: Array, params: Params, steps: Array) -> child.Outcome:
        tuned = child.train(*parts, data, arch, key, steps, params)
        return child.evaluate(*parts, data, arch, tuned, jnp.bool_(True))[1]

    start = time.monotonic()
    outcome = jax.block_until_ready(run(everything, arch, params, config.oneshot.finetune))
    return {
        "accuracy": float(outcome.accuracy) if outcome.ok else None,
        "loss": float(outcome.loss) if outcome.ok else None,
        "steps": config.oneshot.finetune,
        "seconds": time.monotonic() - start,
        "measures": "accuracy on test images of the inherited weights after some more training",
    }


def _start(bench: Bench, network: Network, fresh: Params) -> Params:
    """`fresh`, or the pool's blocks where other runs have left trained ones."""
    if bench.store is None:
        return fresh
    lay, _, pool, _ = _load(bench, network)
    if not pools.is_trained(pool):
        return fresh
    # The largest network contains all others.
    largest = jnp.asarray([k - 1 for k in bench.space.cardinalities], jnp.int32)
    entry = pools.find(lay, pool, bench.space.canonical(largest[None])).entry[0]
    return pools.inherit(lay, pool, largest, entry)


def _teach(bench: Bench, network: Network, state: State) -> None:
    """Puts the blocks of the best judged children into the pool on disk.

    Doing it twice, after a kill, does no harm: what is loaded is without the run's own blocks.
    """
    if bench.store is None:
        return
    lay, store, pool, seen = _load(bench, network)
    known = jax.device_get(state.memo)
    order = np.argsort(np.where(known.metrics.ok, -known.metrics.reward, np.inf))[:TAUGHT]
    use = jnp.asarray(known.metrics.ok[order])
    archs = jnp.asarray(np.maximum(known.forms[order], 0))

    @jax.jit
    def deposit(pool: Pool, params: Params) -> Pool:
        many = jax.tree.map(lambda p: jnp.broadcast_to(p, (len(order), *p.shape)), params)
        accuracy = jnp.asarray(known.metrics.accuracy[order])
        learnt = pools.deposit(lay, pool, archs, many, accuracy, use, store.owner)
        return pools.tally(lay, learnt, archs, use)

    stores.exchange(store, lay, deposit(pool, state.params), seen)


def _load(bench: Bench, network: Network) -> tuple[Layout, stores.Store, Pool, int]:
    assert bench.store is not None
    lay = pool_layout(bench.config, bench.space, network)
    entries = pool_capacity(bench.config, lay)
    store = bench.store._replace(capacity=entries)
    fresh = jax.jit(lambda key: pools.init(lay, entries, key))(jax.random.key(POOL_SEED))
    return lay, store, *stores.load(store, lay, fresh)
