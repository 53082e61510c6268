"""Training of a whole population at once, over devices: by one program for all children.

Or by a program for each (`one_each`), or those of their layers (`regional`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from fnas_jax.core.devices import CHILDREN
from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Params
from fnas_jax.networks.base import Network, Stats
from fnas_jax.training import child as child_lib
from fnas_jax.training import one_each
from fnas_jax.training.child import Outcome
from fnas_jax.training.minibatches import Data


class Trained(NamedTuple):
    """N children."""

    outcome: Outcome  # leaves [N]
    params: Any  # leaves [N, ..]; None unless `Context.start` or `Context.keep` asks for them
    stats: Any = None  # of their normalisations, leaves [N, ..]; None unless `Context.keep`


# (what all children start from, arch [T], what this child does) -> params
Start = Callable[[Any, Array, Any], Params]
Population = Callable[..., Trained]


class Context(NamedTuple):
    """How a population is trained; nothing that changes.

    `group` children of a device are trained at once (1: one after another, so that each costs what
    it is, and a place that is not active costs nothing); the numbers are the same.
    """

    child: child_lib.Context
    mesh: Mesh  # the devices over which children are divided
    group: int = 1
    start: Start | None = None  # None: from fresh parameters
    keep: bool = False  # what was trained is handed over: parameters and statistics
    # Each child has a program of its own, of the network that this makes of its architecture [T],
    # with parameters as `child.network` has them; None: not so
    own: Callable[[np.ndarray], Network] | None = None
    # What makes `compiled` of this and a function instead, as `regional.compiled` does
    by: Callable[..., Callable[..., Any]] | None = None


class Shared(NamedTuple):
    """What all children of a population have in common; on every device."""

    data: Data
    steps: Array  # [] int32
    pool: Any = None  # the first argument of `Context.start`


class Child(NamedTuple):
    """What is one child's own; leaves [N, ..] of a population."""

    arch: Array  # [T] int32
    active: Array  # [] bool
    key: Array  # []
    source: Any = None  # the last argument of `Context.start`


def make(ctx: Context) -> Population:
    """The compiled function of (data, archs [N, T], active [N], keys [N], steps []) -> Trained.

    Keys may also be their data, [N, 2] uint32, which can be sent between hosts. With `ctx.start` it
    takes two arguments more, the first and the last of it: one pytree for all children, and one
    with leaves [N, ..]. N is a multiple of the number of devices.
    """
    if ctx.own is None and ctx.by is None:
        return jitted(ctx)
    return functools.partial(train, compiled(ctx, train_child))


def jitted(ctx: Context) -> jax.stages.Wrapped:
    """`make` where one program serves all."""
    return jax.jit(functools.partial(train, over_children(ctx, train_child)))


def train(
    run: Callable[..., Trained],
    data: Data,
    archs: Array,
    active: Array,
    keys: Array,
    steps: Array,
    pool: Any = None,
    sources: Any = None,
) -> Trained:
    """What `make` compiles."""
    children = Child(archs, active, checked_keys(archs, active, keys), sources)
    return run(Shared(data, steps, pool), children)


def train_child(ctx: Context, shared: Shared, child: Child) -> Trained:
    """Trains one child and judges it."""
    steps, active = shared.steps, child.active
    if ctx.group == 1:
        steps = jnp.where(active, steps, 0)
    else:
        # The same number of steps for all: a number per child would make the loop select.
        active = jnp.bool_(True)
    start = None if ctx.start is None else ctx.start(shared.pool, child.arch, child.source)
    params = child_lib.train(ctx.child, shared.data, child.arch, child.key, steps, start)
    stats, outcome = child_lib.evaluate(ctx.child, shared.data, child.arch, params, active)
    return handed_over(ctx, outcome, params, stats)


def of_rate(ctx: Context, shared: Shared, child: Child) -> tuple[Array, Array]:
    """([] loss, [] accuracy) on validation images after training by one rate.

    The rate is `child.source` [], data, so that all rates are one program.
    """
    settings: Any = dataclasses.replace(ctx.child.settings, lr=child.source)
    own, data = ctx.child._replace(settings=settings), shared.data
    params = child_lib.train(own, data, child.arch, child.key, shared.steps)
    return read(child_lib.evaluate(own, data, child.arch, params, child.active)[1])


def read(found: Outcome) -> tuple[Array, Array]:
    """(loss, infinite where the training failed; accuracy)."""
    return jnp.where(found.ok, found.loss, jnp.inf), found.accuracy


def handed_over(ctx: Context, outcome: Any, params: Params, stats: Stats) -> Trained:
    """What leaves the devices of a child: no more than is asked for."""
    wanted = ctx.keep or ctx.start is not None
    return Trained(outcome, params if wanted else None, stats if ctx.keep else None)


def compiled(
    ctx: Context, function: Callable[..., Any], overwrites: bool = False
) -> Callable[..., Any]:
    """(shared, *children with leaves [N, ..]) -> `function(ctx, shared, *child)` of all, [N, ..].

    `overwrites`: the first of the children's arguments may be, and is where one program serves all.
    """
    if ctx.by is not None:
        return ctx.by(ctx, function)
    if ctx.own is None:
        donated = (1,) if overwrites else ()
        return jax.jit(over_children(ctx, function), donate_argnums=donated)
    of = functools.partial(_alone, ctx, function)
    return functools.partial(one_each.run, one_each.Context(ctx.mesh, of, told), {})


def _alone(ctx: Context, function: Callable[..., Any], arch: np.ndarray) -> Callable[..., Any]:
    """`function` of the child `arch` [T], for a program of its own."""
    assert ctx.own is not None
    ctx = ctx._replace(child=ctx.child._replace(network=ctx.own(arch)), group=1)
    return functools.partial(function, ctx)


def told(children: tuple[Any, ...]) -> tuple[Array, Array]:
    """(archs [N, T], active [N]) of what the functions of children are given."""
    own = next(item for item in children if isinstance(item, Child))
    return own.arch, own.active


def over_children(ctx: Context, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(ctx, shared, *child)` over all children (leaves [N, ..]) and all devices."""
    over = jax.shard_map(
        functools.partial(_on_device, ctx, function),
        mesh=ctx.mesh,
        in_specs=(PartitionSpec(), PartitionSpec(CHILDREN)),
        out_specs=PartitionSpec(CHILDREN),
        check_vma=False,
    )
    return lambda shared, *children: over(shared, children)


def _on_device(ctx: Context, function: Callable[..., Any], shared: Any, children: Any) -> Any:
    return in_groups(lambda child: function(ctx, shared, *child), children, ctx.group)


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
