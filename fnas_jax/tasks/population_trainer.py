"""Where children are trained: on all devices of all hosts, and from one input pipeline."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fnas_jax.core import devices, hosts
from fnas_jax.core.types import Array
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge.pool import Layout, Pool, Source
from fnas_jax.networks.base import Network
from fnas_jax.tasks import long_batches, ways
from fnas_jax.tasks.context import Batch, TrainContext
from fnas_jax.training import population, streaming
from fnas_jax.training.child import Outcome
from fnas_jax.training.minibatches import Data, in_memory
from fnas_jax.training.population import Population, Trained


class Trainer(NamedTuple):
    """Compiled functions and data on the devices; nothing that changes."""

    context: TrainContext
    layout: Layout | None  # of the pool that children start from; None: from fresh weights
    mesh: Mesh
    population: Population
    examples: Data
    steps: Array  # [] int32 of a child
    # Compiled; None without a pool. (pool, canonical archs [N, T]) -> Source of the children
    find: Any = None
    deposit: Any = None  # `deposit` below


class Work(NamedTuple):
    """A batch as all hosts train it, padded to M children, a multiple of the devices; numpy."""

    batch: Batch  # leaves [M, ..]
    keys: Any  # [M, 2] uint32, the data of the children's keys
    order: Any  # [M] int32 in which the children are dealt to the devices
    owner: Any  # [] uint32 the run
    learns: Any  # [] bool: the pool learns from it


def make(ctx: TrainContext, network: Network, layout: Layout | None) -> Trainer:
    """Trains children of `network` that start from a pool of `layout`, or from fresh weights."""
    dataset, settings = ctx.dataset, ctx.settings
    mesh = devices.children_mesh(most=ctx.config.search.batch)
    trained = ways.children_by(ctx, network, mesh)
    if layout is not None:
        trained = trained._replace(start=functools.partial(pools.inherit, layout))
    chunk = ways.images_at_once(settings.device_images, dataset, mesh)
    images = (dataset.train_images, dataset.train_labels, dataset.val_images, dataset.val_labels)
    examples = Data(*images)
    if chunk is None:
        examples = devices.replicate(in_memory(examples), mesh)
    if long_batches.are_long(ctx):
        train = long_batches.make(ctx, trained, chunk)
    else:
        train = population.make(trained) if chunk is None else streaming.make(trained, chunk)
    return Trainer(
        context=ctx,
        layout=layout,
        mesh=mesh,
        population=train,
        examples=examples,
        steps=devices.replicate(np.int32(settings.steps), mesh),
        find=None if layout is None else jax.jit(functools.partial(pools.find, layout)),
        deposit=None if layout is None else jax.jit(functools.partial(deposit, layout)),
    )


def train_population(
    trainer: Trainer, pool: Pool | None, batch: Batch, key: Array
) -> tuple[Pool | None, dict[str, Array], Outcome]:
    """(the pool that has learnt from the new ones of `batch`, its statistics, outcomes [N]).

    Without a pool: None and no statistics.
    """
    return _order(trainer, pool, batch, key, learns=True)


def judge_population(trainer: Trainer, pool: Pool | None, batch: Batch, key: Array) -> Outcome:
    """Outcomes [N] as of `train_population`, of which the pool learns nothing."""
    return _order(trainer, pool, batch, key, learns=False)[-1]


def _order(
    trainer: Trainer, pool: Pool | None, batch: Batch, key: Array, learns: bool
) -> tuple[Pool | None, dict[str, Array], Outcome]:
    """What `carry_out` gives for `batch`, after the other hosts have been told to do the same."""
    work = work_of(trainer, batch, key, learns)
    hosts.broadcast_command(len(work.order))
    pool, stats, outcome = carry_out(trainer, pool, hosts.broadcast(work))
    return pool, stats, _cut(outcome, len(batch.new))


def work_of(trainer: Trainer, batch: Batch, key: Array, learns: bool) -> Work:
    """What all hosts have to know of `batch` and its `key`."""
    size = devices.padded_size(len(batch.new), trainer.mesh)
    padded = jax.tree.map(lambda x: _padded(x, size), batch)
    # A child's key depends on neither the number of devices nor the order.
    keys = jax.random.key_data(jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(size)))
    order = devices.balanced(np.where(padded.new, padded.macs, 0.0), trainer.mesh)
    nothing: Any = np.zeros(size, np.int32)
    padded = padded._replace(params=nothing, macs=nothing)  # what the others have no use for
    order = order.astype(np.int32)
    return Work(padded, np.asarray(keys), order, _owner(trainer), np.bool_(learns))


def carry_out(
    trainer: Trainer, pool: Pool | None, work: Work
) -> tuple[Pool | None, dict[str, Array], Outcome]:
    """(the pool that has learnt what is to be learnt, its statistics, outcomes [M]).

    Called on every host with the same `work`. Each keeps the pool, and has it learn the same as the
    others, so that it is sent only where it is another one: at first, and after other runs have
    written to the store.
    """
    batch, order = work.batch, np.asarray(work.order)
    source = entry = None
    if pool is not None:
        pool = devices.on_first(hosts.shared(pool), trainer.mesh)
        source = trainer.find(pool, batch.canonical)
        entry = np.asarray(hosts.broadcast(np.asarray(source.entry)))[order]
    # Trained in canonical form, so that equal networks get equal parameters too.
    children = jax.tree.map(lambda x: np.asarray(x)[order], (batch.canonical, batch.new, work.keys))
    trained = train_everywhere(trainer, children, pool, entry)
    back = np.argsort(order)
    outcome = jax.tree.map(lambda x: x[back], trained.outcome)
    if pool is None or not work.learns:
        return pool, {}, outcome
    learnt = (batch, source, outcome, trained.params, back, work.owner)
    return *trainer.deposit(pool, *learnt), outcome


def train_everywhere(trainer: Trainer, children: Any, pool: Pool | None, entry: Any) -> Trained:
    """(outcomes on the host, parameters), in the order of `children`.

    Called on every host, with the same arguments. Parameters are large, so those of a single host
    stay on its devices.
    """
    given = devices.shard(children, trainer.mesh)
    if pool is None:
        trained = trainer.population(trainer.examples, *given, trainer.steps)
        return Trained(hosts.gather(trained.outcome), None)
    start_from = devices.replicate(pool, trainer.mesh), devices.shard(entry, trainer.mesh)
    trained = trainer.population(trainer.examples, *given, trainer.steps, *start_from)
    params = devices.collect(trained.params, trainer.mesh)
    return Trained(hosts.gather(trained.outcome), params)


def deposit(
    layout: Layout,
    pool: Pool,
    batch: Batch,
    source: Source,
    outcome: Outcome,
    params: Any,
    back: Array,
    owner: Array,
) -> tuple[Pool, dict[str, Array]]:
    """The pool with what the children of `batch` have learnt, and its statistics.

    `back` [N] puts `params` in the order of the batch; `owner` [] uint32 is the run.
    """
    use = batch.new & outcome.ok
    params = jax.tree.map(lambda x: jnp.take(x, back, axis=0, mode="clip"), params)
    known = (params, outcome.accuracy, use)
    pool = pools.deposit(layout, pool, batch.canonical, *known, owner)
    pool = pools.tally(layout, pool, batch.asked, use)
    return pool, pools.statistics(layout, pool, source, use)


def worker_loop(trainer: Trainer, pool: Pool | None) -> None:
    """Trains children for the first host until its command is 0.

    `pool` has the shapes of the first host's.
    """
    decisions = len(trainer.context.space.cardinalities)
    key = jax.random.key_data(jax.random.key(0))
    while size := hosts.broadcast_command():
        archs: Any = np.zeros((size, decisions), np.int32)
        numbers: Any = np.zeros(size, np.int32)
        batch = Batch(archs, archs, numbers > 0, numbers, numbers)
        keys = np.zeros((size, *key.shape), np.uint32)
        shapes = Work(batch, keys, numbers, np.uint32(0), np.bool_(False))
        pool, _, _ = carry_out(trainer, pool, hosts.broadcast(shapes))


def _cut(outcome: Outcome, n: int) -> Outcome:
    """Of the first `n`, without padding."""
    return jax.tree.map(lambda x: x[:n], outcome)


def _padded(x: Any, size: int) -> np.ndarray:
    """`x` [N, ..] as a numpy array of `size` rows, the last ones zeros."""
    x = np.asarray(x)
    return np.pad(x, ((0, size - len(x)), *[(0, 0)] * (x.ndim - 1)))


def _owner(trainer: Trainer) -> np.uint32:
    """The run, an argument and not a constant: compiled programs must not depend on it."""
    store = trainer.context.store
    return np.uint32(0 if store is None else store.owner)
