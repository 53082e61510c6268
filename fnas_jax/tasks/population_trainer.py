"""Where children are trained: on all devices of all hosts, and from one input pipeline."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fnas_jax.core import devices, hosts
from fnas_jax.core.types import Array
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge.pool import Pool
from fnas_jax.knowledge.pool_store import Store
from fnas_jax.networks.base import Network
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.data import Dataset
from fnas_jax.training import autotune, child, streaming
from fnas_jax.training import population as population_lib

LOG = logging.getLogger(__name__)


class Bench(NamedTuple):
    """What children are trained and measured with."""

    config: Any  # the run's ConfigDict
    space: Space
    dataset: Dataset
    pipeline: child.Pipeline
    settings: child.Settings
    reward: Callable[..., Array]  # (accuracy, latency_ms, mflops, params_m) -> reward, each [N]
    latency_ms: Callable[[Array], float]  # of arch [T]
    store: Store | None = None  # where the pool is kept; None: nowhere


def images_at_once(wanted: int, dataset: Dataset, mesh: Mesh) -> int | None:
    """How many images are on a device at a time; None: all of them.

    `wanted` 0: all, if they take at most half of the device's memory, else as many as take a sixth
    of it, as three such parts may be there at a time.
    """
    count = max(len(dataset.train_labels), len(dataset.val_labels))
    if not wanted:
        parts = (dataset.train_images, dataset.val_images)
        memory = (mesh.local_devices[0].memory_stats() or {}).get("bytes_limit", math.inf)
        if sum(part.nbytes for part in parts) <= memory / 2:
            return None
        wanted = int(memory / 6 / (dataset.train_images.nbytes / len(dataset.train_labels)))
    return wanted if wanted < count else None


def children_at_once(bench: Bench, network: Network, mesh: Mesh) -> int:
    """How many children a device trains at once: `children.group`, or what is fastest here."""
    config, dataset = bench.config, bench.dataset
    most = devices.padded_size(config.search.batch, mesh) // mesh.shape[devices.CHILDREN]
    if config.children.group:
        return min(config.children.group, most)
    if jax.default_backend() == "cpu":
        return 1  # together they would only share what each has to itself in turn
    own = devices.children_mesh(jax.local_devices()[:1])
    count = images_at_once(config.children.device_images, dataset, own)
    images = (dataset.train_images[:count], dataset.train_labels[:count])
    examples = devices.replicate(child.Data(*images, *(part[:256] for part in images)), own)

    def measure(group: int) -> float:
        run = population_lib.make(network, bench.settings, bench.pipeline, own, group)
        archs = bench.space.canonical(bench.space.sample(jax.random.key(0), most))
        keys = jax.random.key_data(jax.random.split(jax.random.key(1), most))
        given = devices.shard((archs, jnp.ones(most, bool), keys), own)
        try:
            for _ in range(2):  # the first one compiles
                begin = time.monotonic()
                jax.block_until_ready(run(examples, *given, devices.replicate(np.int32(8), own)))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return math.inf
        return time.monotonic() - begin

    kind, shape = jax.local_devices()[0].device_kind, dataset.image_shape
    told = (bench.space.spec, shape, dataset.num_classes, count, most, config.children.backend)
    name = f"{kind} jax {jax.__version__} {told} {bench.settings}"
    chosen = autotune.group(measure, most, name, config.jax.cache_dir) if hosts.is_first() else 1
    return int(hosts.broadcast(np.int32(chosen)))


class Nursery(NamedTuple):
    """Where children are trained: on all devices of all hosts."""

    # (pool, archs [N, T], new [N], key) -> (pool that has learnt from the children, its
    # statistics, outcomes [N]); pool None and no statistics without AKP
    breed: Callable[..., Any]
    worker_loop: Callable[[Callable[[], Any]], None]  # what the other hosts do; see `Hooks`


def make(bench: Bench, network: Network, lay: pools.Layout | None, cost: Any) -> Nursery:
    """Children of `network`, which start from a pool of layout `lay`, or from fresh weights.

    `cost(archs)` gives parameters and multiply-adds, by which work is divided.
    """
    config, space, dataset = bench.config, bench.space, bench.dataset
    mesh = devices.children_mesh(most=config.search.batch)
    start = None if lay is None else functools.partial(pools.inherit, lay)
    group = children_at_once(bench, network, mesh)
    chunk = images_at_once(config.children.device_images, dataset, mesh)
    made = (network, bench.settings, bench.pipeline, mesh, group, start)
    images = (dataset.train_images, dataset.train_labels, dataset.val_images, dataset.val_labels)
    if chunk is None:
        population = population_lib.make(*made)
        examples = devices.replicate(child.Data(*images), mesh)
    else:
        chunk = max(chunk, bench.settings.batch_size)
        LOG.info("images come to the devices %d at a time", chunk)
        population = streaming.make(*made, chunk=chunk)
        examples = child.Data(*images)
    steps = devices.replicate(np.int32(config.children.steps), mesh)
    # An argument, not a constant: compiled programs must not depend on the run.
    owner = np.uint32(0 if bench.store is None else bench.store.owner)

    @jax.jit
    def find(pool: Pool, archs: Array) -> pools.Source:
        assert lay is not None
        return pools.find(lay, pool, space.canonical(archs))

    @jax.jit
    def deposit(
        pool: Pool,
        archs: Array,
        source: pools.Source,
        trained: population_lib.Trained,
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

    def trained_on_all(children: Any, pool: Pool | None, entry: Any) -> population_lib.Trained:
        """Called on every host, with the same arguments."""
        given = devices.shard(children, mesh)
        if lay is None:
            return hosts.gather(population(examples, *given, steps))
        start_from = devices.replicate(pool, mesh), devices.shard(entry, mesh)
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
        hosts.broadcast_command(size)
        hosts.broadcast((children, pool, entry))
        trained = trained_on_all(children, pool, entry)
        trained = jax.tree.map(lambda x: x[np.argsort(order)], trained)
        outcome = jax.tree.map(lambda x: x[:n], trained.outcome)
        if lay is None:
            return None, {}, outcome
        return *deposit(pool, archs, source, trained, active, owner), outcome

    def worker_loop(init: Callable[[], Any]) -> None:
        pool = init().pool
        decisions = len(space.cardinalities)
        while size := hosts.broadcast_command():
            archs = np.zeros((size, decisions), np.int32)
            keys = np.zeros((size, *jax.random.key_data(jax.random.key(0)).shape), np.uint32)
            entry = None if lay is None else jax.tree.map(np.asarray, find(pool, archs).entry)
            children, pool, entry = hosts.broadcast(
                ((archs, np.zeros(size, bool), keys), pool, entry)
            )
            trained_on_all(children, pool, entry)

    return Nursery(breed, worker_loop)
