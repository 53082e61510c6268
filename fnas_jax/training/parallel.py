"""Training of one network by all devices of this host: each has its part of every minibatch.

All devices draw the same order of an epoch and take their own rows; gradients are averaged before
they are clipped, so that all make the same step. Normalisations go by each device's own part in
training. The statistics for evaluation are estimated by one device, as `child.evaluate` does, which
also judges: that is a few hundredths of the work.

With one device the numbers are those of `child.train` and `child.evaluate`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fnas_jax.core import devices
from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Params
from fnas_jax.networks.base import Stats
from fnas_jax.objectives.base import State
from fnas_jax.training import child, streaming
from fnas_jax.training.child import Outcome, Progress
from fnas_jax.training.minibatches import Data, in_memory

LOG = logging.getLogger(__name__)
LOG.setLevel(logging.INFO)  # devices that do nothing are told
# Images of a minibatch that a device has at least: of fewer, statistics are so noisy that networks
# get worse (Wu & He, Group Normalization, ECCV 2018, arXiv 1803.08494, figure 1).
LEAST_IMAGES = 16
# The architecture of a network that knows its own
NO_ARCH = np.zeros(0, np.int32)


class Context(NamedTuple):
    """How one network is trained; nothing that changes."""

    child: child.Context
    mesh: Mesh  # of `mesh_of`


class Span(NamedTuple):
    """Some steps of a training, all [] int32."""

    first: Array
    last: Array  # the one after its last
    steps: Array  # of the whole training
    epoch_start: Array  # an epoch begins here, no later than `first`


class Trained(NamedTuple):
    """A network after its training."""

    outcome: Outcome
    params: Params
    stats: Stats


class Compiled(NamedTuple):
    """The compiled parts of a training.

    All but the last one take the architecture [T] as their last argument, where the network needs
    one.
    """

    # (key, parameters to start from; None: fresh ones), on one device
    begin: Callable[..., Progress]
    # (data, key, progress, span) on all devices -> progress, whose `loss` is of this span;
    # overwrites the progress
    advance: Callable[..., Progress]
    evaluate: Callable[..., Trained]  # (data, progress), on one device, which has all images
    # The same in chunks: (data, progress, state, place of its first evaluation image)
    judge: Callable[..., tuple[Params, Stats, State]]
    end: Callable[[State], Outcome]  # of the state after all of them


def mesh_of(batch_size: int, train_images: int) -> Mesh:
    """The devices that share minibatches of `batch_size`, or of all images if there are fewer."""
    return devices.batch_mesh(min(batch_size, train_images), LEAST_IMAGES)


def tell(mesh: Mesh, batch_size: int, train_images: int) -> None:
    """Says so where the `mesh_of` these leaves devices without work."""
    here = len(jax.local_devices())
    if mesh.size < here:
        LOG.info(
            "%d of %d devices train each network: a minibatch of %d images is divided into equal"
            " parts of %d images or more (children.batch_size=%d would take all devices)",
            *(mesh.size, here, min(batch_size, train_images), LEAST_IMAGES, LEAST_IMAGES * here),
        )


def make(ctx: child.Context, mesh: Mesh) -> tuple[Context, Compiled]:
    """The training of the network of `ctx` on the devices of `mesh_of`."""
    made = Context(ctx._replace(axis=devices.BATCH if mesh.size > 1 else ""), mesh)
    everywhere = PartitionSpec()
    shared = jax.shard_map(
        functools.partial(advance, made),
        mesh=mesh,
        in_specs=everywhere,
        out_specs=everywhere,
        check_vma=False,  # equal on all devices, as gradients are
    )
    return made, Compiled(
        begin=jax.jit(functools.partial(begin, made)),
        advance=jax.jit(shared, donate_argnums=2),
        evaluate=jax.jit(functools.partial(evaluate, made)),
        judge=jax.jit(functools.partial(judge, made)),
        end=jax.jit(functools.partial(child.outcome, ctx)),
    )


def begin(
    ctx: Context, key: Array, start: Params | None = None, arch: Array | np.ndarray = NO_ARCH
) -> Progress:
    """The network before its first step, with the parameters `start` or fresh ones."""
    return child.begin(ctx.child, jnp.asarray(arch), key, start)._replace(loss=jnp.zeros(()))


def advance(
    ctx: Context,
    data: Data,
    key: Array,
    progress: Progress,
    span: Span,
    arch: Array | np.ndarray = NO_ARCH,
) -> Progress:
    """The network after the steps of `span`, on one of the devices."""
    fresh = progress._replace(loss=jnp.zeros(()))
    return child.advance(ctx.child, data, jnp.asarray(arch), key, fresh, *span)


def evaluate(
    ctx: Context, data: Data, progress: Progress, arch: Array | np.ndarray = NO_ARCH
) -> Trained:
    """The network on all evaluation images."""
    own = jnp.asarray(arch)
    params = child.params_of(ctx.child, own, progress)
    stats, outcome = child.evaluate(ctx.child, data, own, params, jnp.bool_(True))
    return Trained(outcome, params, stats)


def judge(
    ctx: Context,
    data: Data,
    progress: Progress,
    state: State,
    first: Array,
    arch: Array | np.ndarray = NO_ARCH,
) -> tuple[Params, Stats, State]:
    """What was trained, its statistics, and the objective's `state` with these images."""
    own = jnp.asarray(arch)
    params = child.params_of(ctx.child, own, progress)
    stats, state = child.collect(ctx.child, data, own, params, jnp.bool_(True), state, first)
    return params, stats, state


def span(ctx: Context, first: int, last: int, steps: int, epoch_start: int) -> Span:
    """The steps `first` to `last`, on all devices."""
    numbers = map(np.int32, (first, last, steps, epoch_start))
    return Span(*devices.replicate(tuple(numbers), ctx.mesh))


def place(ctx: Context, data: Data, chunk: int | None) -> Data:
    """`data` of the host on all devices, unless it comes in chunks."""
    return devices.replicate(in_memory(data), ctx.mesh) if chunk is None else data


def judged(
    ctx: Context,
    compiled: Compiled,
    data: Data,
    progress: Progress,
    chunk: int | None,
    arch: Array | np.ndarray = NO_ARCH,
) -> Trained:
    """The network on all evaluation images of `place`, by the first of the devices."""
    progress = _first(progress)
    if chunk is None:
        return compiled.evaluate(_first(data), progress, arch)
    state, found = ctx.child.objective.empty(len(data.eval_labels)), {}
    for first, part in streaming.eval_parts(data, ctx.child.settings, chunk):
        params, stats, state = compiled.judge(part, progress, state, jnp.int32(first), arch)
        found = {"params": params, "stats": stats}  # statistics are those of every part
    return Trained(compiled.end(state), **found)


def _first(tree: Any) -> Any:
    """Arrays that all devices have, on the first."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
