"""Where children are trained: on all devices of all hosts, and from one input pipeline."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fnas_jax.core import devices, hosts
from fnas_jax.core.types import Array, UserError
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge.pool import Layout, Pool, Source
from fnas_jax.networks import elastic
from fnas_jax.networks.base import Network
from fnas_jax.tasks import long_batches
from fnas_jax.tasks.context import Batch, TrainContext
from fnas_jax.tasks.data import Dataset
from fnas_jax.training import autotune, child, parts, population, streaming
from fnas_jax.training.autotune import Way
from fnas_jax.training.child import Outcome
from fnas_jax.training.minibatches import Data, in_memory
from fnas_jax.training.population import Population, Trained

TIMED_STEPS = 8  # by which ways of training are compared
ALONE = 4  # children that are compiled to time programs for each


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
    trained = children_by(ctx, network, mesh)
    if layout is not None:
        trained = trained._replace(start=functools.partial(pools.inherit, layout))
    chunk = images_at_once(settings.device_images, dataset, mesh)
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


def images_at_once(wanted: int, dataset: Dataset, mesh: Mesh) -> int | None:
    """How many images are on a device at a time; None: all of them.

    `wanted` 0: all, if they take at most half of the device's memory, else as many as take a sixth
    of it, as three such parts may be there at a time. CPUs share the host's memory.
    """
    count = max(len(dataset.train_labels), len(dataset.val_labels))
    if not wanted:
        parts = (dataset.train_images, dataset.val_images)
        memory = devices.memory(mesh)
        if sum(part.nbytes for part in parts) <= memory / 2:
            return None
        wanted = int(memory / 6 / (dataset.train_images.nbytes / len(dataset.train_labels)))
    return wanted if wanted < count else None


def children_by(ctx: TrainContext, network: Network, mesh: Mesh) -> population.Context:
    """How children of `network` are trained on `mesh`: by the way that is the fastest there."""
    way = way_of(ctx, mesh)
    # What children share is that of the first backend, also where each has a program of its own.
    if way.backend in (elastic.EXACT, shared_backends(ctx)[0]):
        return _trained(ctx, network, way, mesh)
    return _trained(ctx, _network(ctx, way.backend), way, mesh)


def shared_backends(ctx: TrainContext) -> tuple[str, ...]:
    """Those that run programs of many children."""
    found = elastic.backends(ctx.space, ctx.settings.backend)
    return tuple(name for name in found if name != elastic.EXACT) or found


def _trained(ctx: TrainContext, network: Network, way: Way, mesh: Mesh) -> population.Context:
    own, dataset = None, ctx.dataset
    if way.backend == elastic.EXACT:
        sizes = dataset.image_shape[-1], dataset.outputs
        own = functools.partial(elastic.exact_network, ctx.space, *sizes)
    trained = child.Context(network, ctx.settings, ctx.pipeline, ctx.objective)
    return population.Context(trained, mesh, way.group, own=own)


def _network(ctx: TrainContext, backend: str) -> Network:
    dataset = ctx.dataset
    return elastic.make(ctx.space, dataset.image_shape[-1], dataset.outputs, backend)


def way_of(ctx: TrainContext, mesh: Mesh) -> Way:
    """The fastest way of training children on `mesh`.

    As `children.backend` and `children.group` say, where these leave nothing open. Raises UserError
    for a group where each child has a program of its own.
    """
    settings, dataset = ctx.settings, ctx.dataset
    most = devices.padded_size(ctx.config.search.batch, mesh) // mesh.shape[devices.CHILDREN]
    backends = elastic.backends(ctx.space, settings.backend)
    if settings.backend == elastic.EXACT and settings.group > 1:
        raise UserError(
            f"children.group is {settings.group}, and children.backend=exact has a program for each"
            " child, one of which runs at a time; allowed are 0 and 1"
        )
    if jax.default_backend() == "cpu":
        # Together they would only share what each has to itself in turn.
        return Way(
            backends[0], 1 if backends[0] == elastic.EXACT else min(settings.group or 1, most)
        )
    ways = ways_of(backends, settings.group, most)
    if settings.group and len(ways) == 1:
        return ways[0]
    own = devices.children_mesh(jax.local_devices()[:1])
    count = images_at_once(settings.device_images, dataset, own)
    seconds = functools.partial(seconds_of_a_step, ctx, own, most, count)
    kind, shape = jax.local_devices()[0].device_kind, dataset.image_shape
    described = (ctx.space.spec, shape, dataset.outputs, count, most)
    name = f"{kind} jax {jax.__version__} {described} {settings}"
    steps = settings.steps * ctx.config.search.budget / mesh.shape[devices.CHILDREN]
    chosen = np.array([0, 1], np.int32)
    if hosts.is_first():
        way = autotune.fastest(seconds, ways, name, ctx.config.jax.cache_dir, steps)
        chosen = np.asarray([backends.index(way.backend), way.group], np.int32)
    if mesh.is_multi_process:  # a plan is made by one host, with its own devices
        chosen = hosts.broadcast(chosen)
    return Way(backends[int(chosen[0])], int(chosen[1]))


def ways_of(backends: tuple[str, ...], group: int, most: int) -> list[Way]:
    """Those that `children.group` leaves open, in the order in which they are tried.

    That is of how long they took on a GPU (docs/performance.md).
    """
    groups = (min(group, most),) if group else tuple(dict.fromkeys((most, 1)))
    names = [name for name in reversed(backends) if name != elastic.EXACT]
    shared = [Way(name, size) for size in groups for name in names]
    alone = [Way(elastic.EXACT, 1)] * (elastic.EXACT in backends and (1 in groups or not shared))
    return [*alone, *shared]


def seconds_of_a_step(
    ctx: TrainContext, own: Mesh, most: int, count: int | None, way: Way
) -> float | None:
    """Of a child, where `most` are trained `way` on `count` images (None: all).

    With its share of the compilation, where each child has a program of its own; the devices of a
    host share its cores. None where memory does not suffice.
    """
    exact, dataset = way.backend == elastic.EXACT, ctx.dataset
    most = min(most, ALONE) if exact else most
    images = (dataset.train_images[:count], dataset.train_labels[:count])
    examples = devices.replicate(Data(*images, *(part[:256] for part in images)), own)
    run = population.make(_trained(ctx, _network(ctx, way.backend), way, own))
    archs = ctx.canonical(ctx.space.sample(jax.random.key(0), most))
    keys = jax.random.key_data(jax.random.split(jax.random.key(1), most))
    given = devices.shard((archs, jnp.ones(most, bool), keys), own)

    def seconds(steps: int) -> float:
        last = devices.replicate(np.int32(steps), own)
        return parts.timed(lambda: run(examples, *given, last))[1]

    try:
        compiling = seconds(1)
        few = seconds(1)
        step = max(seconds(1 + TIMED_STEPS) - few, 1e-9) / (TIMED_STEPS * most)
        if not exact:
            return step
        compiling = (compiling - few) * len(jax.local_devices()) / most
        return step + compiling / ctx.settings.steps
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


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
