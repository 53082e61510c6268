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
from fnas_jax.tasks import halved, long_batches, ways
from fnas_jax.tasks.context import Batch, TrainContext
from fnas_jax.tasks.halved import Halved, Ranked
from fnas_jax.training import halving, population, streaming
from fnas_jax.training.child import Outcome
from fnas_jax.training.halving import Ladder
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
    halved: halved.How | None = None  # None: `children.halving` stops nobody


class Work(NamedTuple):
    """A batch as all hosts train it, padded to M children, a multiple of the devices; numpy."""

    batch: Batch  # leaves [M, ..]
    keys: Any  # [M, 2] uint32, the data of the children's keys
    order: Any  # [M] int32 in which the children are dealt to the devices
    owner: Any  # [] uint32 the run
    learns: Any  # [] bool: the pool learns from it
    halves: Any  # [] bool: children that fall behind stop early
    by: halved.Ranked | None = None  # what children are compared by then, in order of the batch


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
        halved=halved.make(ctx, trained, chunk) if halved.rungs(ctx) else None,
    )


def train_population(
    trainer: Trainer, pool: Pool | None, batch: Batch, key: Array, ladder: Ladder | None = None
) -> tuple[Pool | None, dict[str, Array], Outcome, Ladder | None]:
    """(the pool that has learnt from the new ones of `batch`, statistics, outcomes [N], ladder).

    Without a pool: None and no statistics. With a `ladder` children stop that fall behind those
    that it knows, and it learns from them; without one, all are trained in full.
    """
    work = work_of(trainer, batch, key, learns=True, ladder=ladder)
    pool, stats, outcome, ended = _order(trainer, pool, work)
    if ladder is not None and ended is not None and work.by is not None:
        ladder, outcome = settle(trainer, ladder, outcome, ended, work.batch.new, work.by.brackets)
    return pool, stats, _cut(outcome, len(batch.new)), ladder


def judge_population(trainer: Trainer, pool: Pool | None, batch: Batch, key: Array) -> Outcome:
    """Outcomes [N] as of `train_population`, of which the pool learns nothing."""
    work = work_of(trainer, batch, key, learns=False)
    return _cut(_order(trainer, pool, work)[2], len(batch.new))


def settle(
    trainer: Trainer, ladder: Ladder, outcome: Outcome, ended: Halved, new: Any, brackets: Any
) -> tuple[Ladder, Outcome]:
    """The ladder that knows the M children of these `brackets` [M], and comparable outcomes."""
    at, total = halved.rungs(trainer.context), trainer.context.settings.steps
    known = np.where(outcome.ok & new, outcome.accuracy, np.nan)
    ladder, settled = halving.settle(
        ladder,
        jnp.asarray(at, jnp.int32),
        jnp.asarray(ended.readings),
        jnp.asarray(ended.rewards),
        jnp.asarray(known, jnp.float32),
        jnp.asarray(ended.going),
        jnp.int32(total),
        jnp.asarray(brackets),
    )
    settled = jax.device_get(settled)
    accuracy = np.where(settled.stopped > 0, settled.accuracy, outcome.accuracy)
    return ladder, outcome._replace(accuracy=jnp.asarray(accuracy), stopped=settled.stopped)


def _order(
    trainer: Trainer, pool: Pool | None, work: Work
) -> tuple[Pool | None, dict[str, Array], Outcome, Halved | None]:
    """What `carry_out` gives for `work`, after the other hosts have been told to do the same."""
    hosts.broadcast_command(len(work.order))
    return carry_out(trainer, pool, hosts.broadcast(work))


def work_of(
    trainer: Trainer, batch: Batch, key: Array, learns: bool, ladder: Ladder | None = None
) -> Work:
    """What all hosts have to know of `batch` and its `key`."""
    size = devices.padded_size(len(batch.new), trainer.mesh)
    padded = jax.tree.map(lambda x: _padded(x, size), batch)
    # A child's key depends on neither the number of devices nor the order.
    keys = jax.random.key_data(jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(size)))
    order = devices.balanced(np.where(padded.new, padded.macs, 0.0), trainer.mesh)
    by = None
    if trainer.halved is not None:
        known, brackets = halved.empty(trainer.context), np.zeros(size, np.int32)
        if ladder is not None:
            known = ladder  # dealt before padding: alike for any number of devices
            brackets = _padded(halved.dealt(trainer.context, key, batch.new), size)
        by = halved.ranked(trainer.context, known, padded, brackets)
    nothing: Any = np.zeros(size, np.int32)  # what the others have no use for
    padded = padded._replace(params=nothing, macs=nothing, latency_ms=None)
    order = order.astype(np.int32)
    flags = np.bool_(learns), np.bool_(ladder is not None)
    return Work(padded, np.asarray(keys), order, _owner(trainer), *flags, by)


def carry_out(
    trainer: Trainer, pool: Pool | None, work: Work
) -> tuple[Pool | None, dict[str, Array], Outcome, Halved | None]:
    """(the pool that has learnt what is to be learnt, its statistics, outcomes [M], who stopped).

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
    by = None
    if work.by is not None and work.halves:
        costs, brackets = (np.asarray(x)[order] for x in (work.by.costs, work.by.brackets))
        by = work.by._replace(costs=costs, brackets=brackets)
    trained, ended = train_everywhere(trainer, children, pool, entry, by)
    back = np.argsort(order)
    outcome, ended = jax.tree.map(lambda x: x[back], (trained.outcome, ended))
    if pool is None or not work.learns:
        return pool, {}, outcome, ended
    # The pool learns what children are, not what they would have become.
    learnt = (batch, source, outcome, trained.params, back, work.owner)
    return *trainer.deposit(pool, *learnt), outcome, ended


def train_everywhere(
    trainer: Trainer, children: Any, pool: Pool | None, entry: Any, by: Ranked | None = None
) -> tuple[Trained, Halved | None]:
    """((outcomes on the host, parameters), who stopped where), in the order of `children`.

    `by`: what they are compared by, where those that fall behind stop.

    Called on every host, with the same arguments. Parameters are large, so those of a single host
    stay on its devices.
    """
    given = devices.shard(children, trainer.mesh)
    start_from: tuple[Any, ...] = ()
    if pool is not None:
        start_from = devices.replicate(pool, trainer.mesh), devices.shard(entry, trainer.mesh)
    ended = None
    if by is not None and trainer.halved is not None:
        trained, ended = halved.train(trainer.halved, by, trainer.examples, *given, *start_from)
    else:
        trained = trainer.population(trainer.examples, *given, trainer.steps, *start_from)
    params = None if pool is None else devices.collect(trained.params, trainer.mesh)
    return Trained(hosts.gather(trained.outcome), params), ended


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
    ctx = trainer.context
    decisions = len(ctx.space.cardinalities)
    key = jax.random.key_data(jax.random.key(0))
    while size := hosts.broadcast_command():
        archs: Any = np.zeros((size, decisions), np.int32)
        numbers: Any = np.zeros(size, np.int32)
        batch = Batch(archs, archs, numbers > 0, numbers, numbers)
        keys = np.zeros((size, *key.shape), np.uint32)
        by, no = None, np.bool_(False)
        if trainer.halved is not None:
            by = halved.ranked(ctx, halved.empty(ctx), batch, numbers)
        shapes = Work(batch, keys, numbers, np.uint32(0), no, no, by)
        pool, *_ = carry_out(trainer, pool, hosts.broadcast(shapes))


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
