"""Training of a whole population at once, over devices and with one program for all children."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from fnas_jax.core.devices import CHILDREN
from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Params
from fnas_jax.networks.base import Network
from fnas_jax.training import child as child_lib
from fnas_jax.training.child import Data, Outcome, Pipeline, Settings


class Trained(NamedTuple):
    """N children."""

    outcome: Outcome  # leaves [N]
    params: Any  # leaves [N, ..]; None for children that started from fresh ones


# (what all children start from, arch [T], what this child does) -> params
Start = Callable[[Any, Array, Any], Params]
Population = Callable[..., Trained]


def make(
    network: Network,
    settings: Settings,
    pipeline: Pipeline,
    mesh: Mesh,
    group: int = 1,
    start: Start | None = None,
) -> Population:
    """The jitted function of (data, archs [N, T], active [N], keys [N], steps []) -> Trained.

    Keys may also be their data, [N, 2] uint32, which can be sent between hosts.
    With `start` it takes two arguments more, the first and the last of `start`: one pytree for all
    children, and one with leaves [N, ..].

    Children are spread over the devices of `mesh`, N a multiple of their number, and the data is on
    every device. `group` children of a device are trained at once (1: one after another, so that
    each costs what it is, and a place that is not active costs nothing); the numbers are the same.
    """

    def child(
        data: Data, arch: Array, active: Array, key: Array, steps: Array, pool: Any, source: Any
    ) -> Trained:
        first = None if start is None else start(pool, arch, source)
        params = child_lib.train(network, settings, pipeline, data, arch, key, steps, first)
        _, outcome = child_lib.evaluate(network, settings, pipeline, data, arch, params, active)
        return Trained(outcome, None if start is None else params)

    def on_device(
        data: Data, archs: Array, active: Array, keys: Array, steps: Array, pool: Any, sources: Any
    ) -> Trained:
        def one(item: tuple[Array, Array, Array, Any]) -> Trained:
            arch, active, key, source = item
            return child(data, arch, active, key, jnp.where(active, steps, 0), pool, source)

        def alike(item: tuple[Array, Array, Array, Any]) -> Trained:
            # The same number of steps for all: a number per child would make the loop select.
            arch, _, key, source = item
            return child(data, arch, jnp.bool_(True), key, steps, pool, source)

        return in_groups(one if group == 1 else alike, (archs, active, keys, sources), group)

    spread, same = PartitionSpec(CHILDREN), PartitionSpec()
    mapped = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(same, spread, spread, spread, same, same, spread),
        out_specs=spread,
        check_vma=False,
    )

    @jax.jit
    def run(
        data: Data,
        archs: Array,
        active: Array,
        keys: Array,
        steps: Array,
        pool: Any = None,
        sources: Any = None,
    ) -> Trained:
        keys = checked_keys(archs, active, keys)
        return mapped(data, archs, active, keys, steps, pool, sources)

    return run


def checked_keys(archs: Array, active: Array, keys: Array) -> Array:
    """The N keys, also of their data, of as many architectures [N, T] and flags [N]."""
    chex.assert_rank([archs, active], [2, 1])
    chex.assert_equal_shape_prefix([archs, active, keys], 1)
    if jax.dtypes.issubdtype(keys.dtype, jax.dtypes.prng_key):
        return keys
    return jax.random.wrap_key_data(keys)


def in_groups(function: Callable[[Any], Any], items: Any, group: int) -> Any:
    """`function` of each of N items (leaves [N, ..]), `group` at once and groups in turn."""
    n = len(jax.tree.leaves(items)[0])
    if group == 1:
        return lax.map(function, items)
    if group >= n:
        return jax.vmap(function)(items)
    return lax.map(function, items, batch_size=group)
