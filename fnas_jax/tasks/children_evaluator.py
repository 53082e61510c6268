"""The evaluator of image tasks: children are trained, from fresh weights or from a pool's blocks.

With a pool (AKP), all children of a batch inherit all their blocks, and what they learn goes back
when all are trained; before the search, fair rounds train every choice of every decision equally
often. Nothing is measured in these, so that no architecture is judged by a young pool.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, Metrics
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge import pool_store as stores
from fnas_jax.knowledge.pool import Pool
from fnas_jax.networks import cost as costs
from fnas_jax.networks import elastic
from fnas_jax.networks.base import Network
from fnas_jax.spaces import mnas
from fnas_jax.spaces.base import Space, fair_round
from fnas_jax.tasks import cache
from fnas_jax.tasks import population_trainer as nurseries
from fnas_jax.tasks.base import Evaluator, Hooks
from fnas_jax.tasks.cache import Memo
from fnas_jax.tasks.population_trainer import Bench

LOG = logging.getLogger(__name__)
POOL_SEED = 0  # of the first, shared initialisation: the same for all runs


class State(NamedTuple):
    """What an evaluator has learnt."""

    memo: Memo
    pool: Pool | None  # None without AKP
    rounds: Array  # [] int32 fair rounds so far
    seen: Array  # [] int32 newest version of the stored pool by another run that this one knows
    stats: dict[str, Array]  # of the pool, at the last evaluation


def pool_layout(config: Any, space: Space, network: Network) -> pools.Layout:
    """The pool of the elastic `network` of `space`, with the similarity of `config.akp`."""
    weights = None
    if isinstance(space.spec, mnas.MnasSpec):
        weights = mnas.descriptor_weights(config.akp.weights)
    return pools.layout(network, space, weights)


def pool_capacity(config: Any, lay: pools.Layout) -> int:
    """Entries of each place: `akp.capacity`, or as many (at least 2) as fit into `akp.mib`."""
    fit = config.akp.mib * 2**20 // pools.entry_bytes(lay)
    if fit < config.akp.capacity:
        LOG.info("the knowledge pool keeps %d blocks of each place (akp.mib)", max(fit, 2))
    return min(config.akp.capacity, max(fit, 2))


def evaluator(bench: Bench) -> Evaluator:
    """Trains what the memo does not know; not jittable, because it measures time.

    The compiled program serves every batch of the same size N, with empty places for known ones.
    """
    config, space, dataset = bench.config, bench.space, bench.dataset
    channels, classes = dataset.image_shape[-1], dataset.num_classes
    network = elastic.make(space, channels, classes, config.children.backend)
    lay = pool_layout(config, space, network) if config.akp.enabled else None
    entries = 0 if lay is None else pool_capacity(config, lay)
    store = None if bench.store is None else bench.store._replace(capacity=entries)
    cost = jax.jit(costs.cost(space, dataset.image_shape, dataset.num_classes))
    nursery = nurseries.make(bench, network, lay, cost)
    breed = nursery.breed
    look_up, remember, recall = (
        jax.jit(cache.look_up),
        jax.jit(cache.remember),
        jax.jit(cache.recall),
    )
    # A batch may start when one evaluation is left of the budget.
    capacity = config.search.budget + config.search.batch
    decisions = len(space.cardinalities)

    def init() -> State:
        known, rounds, seen = cache.empty(capacity, decisions), jnp.int32(0), 0
        if lay is None:
            return State(known, None, rounds, jnp.int32(seen), {})
        fresh = jax.jit(lambda key: pools.init(lay, entries, key))
        pool = fresh(jax.random.key(POOL_SEED))
        if store is not None:
            pool, seen = stores.load(store, lay, pool)
            if pools.is_trained(pool):  # by another run: nothing has to be warmed up
                rounds = jnp.int32(config.akp.rounds)
        names = jax.eval_shape(
            lambda pool, archs: pools.statistics(
                lay, pool, pools.find(lay, pool, archs), jnp.ones(1, bool)
            ),
            *(pool, jnp.zeros((1, decisions), jnp.int32)),
        )
        nothing = dict.fromkeys(names, jnp.float32(0))
        return State(known, pool, rounds, jnp.int32(seen), nothing)

    def measure(
        pool: Pool | None, archs: Array, new: Array, key: Array
    ) -> tuple[Pool | None, dict[str, Array], Metrics]:
        start = time.monotonic()
        pool, figures, outcome = breed(pool, archs, new, key)
        params, macs = cost(archs)
        latency = np.full(len(archs), np.nan, np.float32)
        if config.reward.cost == "latency_ms":
            for i in np.flatnonzero(new):
                latency[i] = bench.latency_ms(archs[i])
        work = np.where(new, np.asarray(macs), 0.0)  # what a child's share of the time is by
        seconds = (time.monotonic() - start) * work / max(work.sum(), 1.0)
        costs_of = (jnp.asarray(latency), macs / 1e6, params / 1e6)
        ok = outcome.ok & new
        accuracy = jnp.where(ok, outcome.accuracy, 0.0)
        return (
            pool,
            figures,
            Metrics(
                accuracy=accuracy,
                reward=jnp.where(ok, bench.reward(accuracy, *costs_of), 0.0),
                latency_ms=costs_of[0],
                mflops=costs_of[1],
                params_m=costs_of[2],
                seconds=jnp.asarray(seconds, jnp.float32),
                ok=ok,
                fresh=new,
            ),
        )

    def evaluate(state: State, archs: Array, mask: Array, key: Array) -> tuple[State, Metrics]:
        forms = space.canonical(archs)
        found = look_up(state.memo, forms, mask)
        if found.new.any():
            pool, figures, measured = measure(state.pool, archs, found.new, key)
            known = remember(state.memo, found, forms, measured)
            state = state._replace(memo=known, pool=pool, stats=figures)
        return state, recall(state.memo, found)

    def prepare(state: State, key: Array) -> Iterator[tuple[State, dict[str, Any]]]:
        assert state.pool is not None and lay is not None
        while state.rounds < config.akp.rounds:
            pool, size = state.pool, config.search.batch
            key_round, key_train = jax.random.split(jax.random.fold_in(key, state.rounds))
            archs = fair_round(space.cardinalities, key_round)
            for i in range(0, len(archs), size):
                part = archs[i : i + size]
                use = jnp.arange(size) < len(part)
                part = jnp.pad(part, ((0, size - len(part)), (0, 0)))
                pool, figures, _ = breed(pool, part, use, jax.random.fold_in(key_train, i))
            state = state._replace(pool=pool, rounds=state.rounds + 1, stats=figures)
            yield state, {"children": len(archs), **figures}

    def worker_loop() -> None:
        nursery.worker_loop(init)

    if lay is None:
        return Evaluator(init, evaluate, jittable=False, hooks=Hooks(worker_loop=worker_loop))

    def sync(state: State) -> State:
        assert lay is not None and state.pool is not None
        if store is None:
            return state
        pool, seen = stores.exchange(store, lay, state.pool, int(state.seen))
        return state._replace(pool=pool, seen=jnp.int32(seen))

    return Evaluator(
        init,
        evaluate,
        jittable=False,
        stats=lambda state: state.stats,
        hooks=Hooks(prepare, sync, worker_loop),
    )
