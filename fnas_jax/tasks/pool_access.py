"""How a task reaches the knowledge pool: what its entries look like, how many, and where it is."""

from __future__ import annotations

import logging
from typing import NamedTuple

import jax

from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge import pool_store as stores
from fnas_jax.knowledge.config import Akp
from fnas_jax.knowledge.pool import Layout, Pool
from fnas_jax.knowledge.pool_store import Store
from fnas_jax.networks.base import Network
from fnas_jax.spaces import mnas
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.context import TrainContext

LOG = logging.getLogger(__name__)
POOL_SEED = 0  # of the first, shared initialisation: the same for all runs


class PoolAccess(NamedTuple):
    """The pool of a run."""

    layout: Layout
    capacity: int  # entries of each place
    store: Store | None  # None: the pool ends with the run


def open_(ctx: TrainContext, network: Network) -> PoolAccess | None:
    """Access to the pool of the elastic `network`; None without AKP."""
    akp = ctx.config.akp
    if not akp.enabled:
        return None
    layout = pool_layout(akp, ctx.space, network)
    capacity = pool_capacity(akp, layout)
    store = None if ctx.store is None else ctx.store._replace(capacity=capacity)
    return PoolAccess(layout, capacity, store)


def pool_layout(akp: Akp, space: Space, network: Network) -> Layout:
    """The pool of the elastic `network` of `space`, with the similarity of `akp.weights`."""
    weights = None
    if isinstance(space.spec, mnas.MnasSpec):
        weights = mnas.descriptor_weights(akp.weights)
    return pools.make_layout(network, space, weights)


def pool_capacity(akp: Akp, layout: Layout) -> int:
    """Entries of each place: `akp.capacity`, or as many (at least 2) as fit into `akp.mib`."""
    fit = akp.mib * 2**20 // pools.entry_bytes(layout)
    if fit < akp.capacity:
        LOG.info("the knowledge pool keeps %d blocks of each place (akp.mib)", max(fit, 2))
    return min(akp.capacity, max(fit, 2))


def load(access: PoolAccess) -> tuple[Pool, int]:
    """(the stored pool or a fresh one, number of its newest version by another run; 0: none)."""
    fresh = jax.jit(lambda key: pools.init(access.layout, access.capacity, key))
    pool = fresh(jax.random.key(POOL_SEED))
    return (pool, 0) if access.store is None else stores.load(access.store, pool)
