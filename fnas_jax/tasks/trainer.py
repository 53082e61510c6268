"""The evaluator of image tasks: children are trained, from fresh weights or from a pool's blocks.

With a pool (AKP), all children of a batch inherit all their blocks, and what they learn goes back
when all are trained; before the search, fair rounds train every choice of every decision equally
often. Nothing is measured in these, so that no architecture is judged by a young pool.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.children import cost as costs
from fnas_jax.children import networks, train
from fnas_jax.children.elastic import Network
from fnas_jax.core import devices, hosts
from fnas_jax.core.types import Array, Metrics
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge import store as stores
from fnas_jax.knowledge.pool import Pool
from fnas_jax.knowledge.store import Store
from fnas_jax.spaces import mnas
from fnas_jax.spaces.base import Space, fair_round
from fnas_jax.tasks import memo
from fnas_jax.tasks.base import Evaluator
from fnas_jax.tasks.data import Dataset
from fnas_jax.tasks.memo import Memo

LOG = logging.getLogger(__name__)
POOL_SEED = 0  # of the first, shared initialisation: the same for all runs


class Bench(NamedTuple):
    """What children are trained and measured with."""

    config: Any  # the run's ConfigDict
    space: Space
    dataset: Dataset
    pipeline: train.Pipeline
    settings: train.Settings
    reward: Callable[..., Array]  # (accuracy, latency_ms, mflops, params_m) -> reward, each [N]
    latency_ms: Callable[[Array], float]  # of arch [T]
    store: Store | None = None  # where the pool is kept; None: nowhere


class State(NamedTuple):
    """What an evaluator has learnt."""

    memo: Memo
    pool: Pool | None  # None without AKP
    rounds: Array  # [] int32 fair rounds so far
    seen: Array  # [] int32 newest version of the stored pool by another run that this one knows
    stats: dict[str, Array]  # of the pool, at the last evaluation


def mode(name: str) -> str:
    """The training mode called `name`: "auto" is "map" on CPUs and "vmap" elsewhere."""
    if name != "auto":
        return name
    return "map" if jax.default_backend() == "cpu" else "vmap"


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
    network = networks.elastic(space, dataset.image_shape[-1], dataset.num_classes)
    lay = pool_layout(config, space, network) if config.akp.enabled else None
    entries = 0 if lay is None else pool_capacity(config, lay)
    store = None if bench.store is None else bench.store._replace(capacity=entries)
    cost = jax.jit(costs.cost(space, dataset.image_shape, dataset.num_classes))
    nursery = _nursery(bench, network, lay, cost)
    breed = nursery.breed
    look_up, remember, recall = jax.jit(memo.look_up), jax.jit(memo.remember), jax.jit(memo.recall)
    # A batch may start when one evaluation is left of the budget.
    capacity = config.search.budget + config.search.batch
    decisions = len(space.cardinalities)

    def init() -> State:
        known, rounds, seen = memo.empty(capacity, decisions), jnp.int32(0), 0
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

    def serve() -> None:
        nursery.serve(init)

    if lay is None:
        return Evaluator(init, evaluate, jittable=False, serve=serve, close=nursery.close)

    def exchange(state: State) -> State:
        assert lay is not None and state.pool is not None
        if store is None:
            return state
        pool, seen = stores.exchange(store, lay, state.pool, int(state.seen))
        return state._replace(pool=pool, seen=jnp.int32(seen))

    return Evaluator(
        init,
        evaluate,
        jittable=False,
        prepare=prepare,
        exchange=exchange,
        stats=lambda state: state.stats,
        serve=serve,
        close=nursery.close,
    )


class _Nursery(NamedTuple):
    """Where children are trained: on all devices of all hosts."""

    # (pool, archs [N, T], new [N], key) -> (pool that has learnt from the children, its
    # statistics, outcomes [N]); pool None and no statistics without AKP
    breed: Callable[..., Any]
    serve: Callable[[Callable[[], Any]], None]  # what the other hosts do; see `Evaluator.serve`
    close: Callable[[], None]  # ends `serve` on the other hosts


def _nursery(bench: Bench, network: Network, lay: pools.Layout | None, cost: Any) -> _Nursery:
    config, space, dataset = bench.config, bench.space, bench.dataset
    mesh = devices.children_mesh(most=config.search.batch)
    start = None if lay is None else functools.partial(pools.inherit, lay)
    population = train.population(
        network, bench.settings, bench.pipeline, mesh, mode(config.children.mode), start
    )
    images = (dataset.train_images, dataset.train_labels, dataset.val_images, dataset.val_labels)
    examples = devices.replicate(train.Data(*map(jnp.asarray, images)), mesh)
    steps = devices.replicate(np.int32(config.children.steps), mesh)
    # An argument, not a constant: compiled programs must not depend on the run.
    owner = np.uint32(0 if bench.store is None else bench.store.owner)

    @jax.jit
    def find(pool: Pool, archs: Array) -> pools.Source:
        assert lay is not None
        return pools.find(lay, pool, space.canonical(archs))

    @functools.partial(jax.jit, donate_argnames="pool")
    def deposit(
        pool: Pool,
        archs: Array,
        source: pools.Source,
        trained: train.Trained,
        new: Array,
        owner: Array,
    ) -> tuple[Pool, dict[str, Array]]:
        assert lay is not None
        use = new & trained.outcome.ok
        forms = space.canonical(archs)
        known = (trained.params, trained.outcome.accuracy, use)
        pool = pools.deposit(lay, pool, forms, *known, owner)
        pool = pools.tally(lay, pool, archs, use)
        return pool, pools.statistics(lay, pool, source, use)

    def trained_on_all(children: Any, pool: Pool | None, entry: Any) -> train.Trained:
        """Called on every host, with the same arguments."""
        given = devices.spread(children, mesh)
        if lay is None:
            return hosts.gather(population(examples, *given, steps))
        start_from = devices.replicate(pool, mesh), devices.spread(entry, mesh)
        return hosts.gather(population(examples, *given, steps, *start_from))

    def breed(pool: Pool | None, proposed: Array, new: Array, key: Array) -> Any:
        n = proposed.shape[0]
        size = devices.padded_size(n, mesh)
        archs, active = np.pad(proposed, ((0, size - n), (0, 0))), np.pad(new, (0, size - n))
        # A child's key depends on neither the number of devices nor the order.
        keys = jax.random.key_data(jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(size)))
        order = devices.balanced(
            np.where(active, np.asarray(cost(jnp.asarray(archs))[1]), 0.0), mesh
        )
        # Trained in canonical form, so that equal networks get equal parameters too.
        forms = space.canonical(jnp.asarray(archs))
        source = None if lay is None else find(pool, archs)
        entry = None if source is None else source.entry
        children, entry = jax.tree.map(
            lambda x: np.asarray(x)[order], ((forms, active, keys), entry)
        )
        if hosts.count() > 1:
            hosts.share(np.int32(size))
            hosts.share((children, pool, entry))
        trained = trained_on_all(children, pool, entry)
        trained = jax.tree.map(lambda x: x[np.argsort(order)], trained)
        outcome = jax.tree.map(lambda x: x[:n], trained.outcome)
        if lay is None:
            return None, {}, outcome
        return *deposit(pool, archs, source, trained, active, owner), outcome

    def serve(init: Callable[[], Any]) -> None:
        pool = init().pool
        decisions = len(space.cardinalities)
        while (size := int(hosts.share(np.int32(0)))) > 0:
            archs = np.zeros((size, decisions), np.int32)
            keys = np.zeros((size, *jax.random.key_data(jax.random.key(0)).shape), np.uint32)
            entry = None if lay is None else jax.tree.map(np.asarray, find(pool, archs).entry)
            children, pool, entry = hosts.share(((archs, np.zeros(size, bool), keys), pool, entry))
            trained_on_all(children, pool, entry)

    def close() -> None:
        if hosts.count() > 1:
            hosts.share(np.int32(0))

    return _Nursery(breed, serve, close)
