"""A program for each child, of its own layers only, where other ways have one for all children.

Programs are compiled side by side while the devices run those that are there already. Those of the
last children are kept, but not on disk: most architectures are trained once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnas_jax.core import compiled, devices

KEPT = 64  # programs, or as many as a batch has
Function = Callable[..., Any]  # (shared, *what is a child's own) -> its result
Programs = dict[Any, futures.Future]  # by architecture, device and shapes; the newest last


class Context(NamedTuple):
    """What is run for each child."""

    mesh: Mesh  # the devices over which children are divided
    of: Callable[[np.ndarray], Function]  # arch [T] -> the function of that child
    # What a child is: those of several, leaves [N, ..] -> (archs [N, T], active [N])
    told: Callable[[Any], tuple[Any, Any]]
    overwrites: bool  # the first of what is a child's own


class Given(NamedTuple):
    """What a device has to do."""

    shared: Any
    children: list[tuple[Any, futures.Future | None]]  # and their programs; None: none is asked for
    function: Function  # of any child, for the shapes of its result


def run(ctx: Context, programs: Programs, shared: Any, *children: Any) -> Any:
    """Results [N, ..] of `children`, leaves [N, ..] over the devices; zeros of those not active.

    `shared` is on all devices. `programs` is what was compiled before, to which this is added.
    """
    local = ctx.mesh.local_devices
    compilers = futures.ThreadPoolExecutor(devices.cores())
    try:
        used: set[Any] = set()
        given = [_given(ctx, programs, used, compilers, shared, children, d) for d in local]
        # A device that loops asks its thread how long to go on, so that each needs one.
        with futures.ThreadPoolExecutor(len(local)) as drivers:
            parts = list(drivers.map(_results, given))
    finally:
        compilers.shutdown(cancel_futures=True)
    for key in list(programs)[: max(0, len(programs) - max(KEPT, len(used)))]:
        del programs[key]
    return jax.tree.map(lambda *leaves: _joined(ctx.mesh, leaves), *parts)


def _given(
    ctx: Context,
    programs: Programs,
    used: set[Any],
    compilers: futures.Executor,
    shared: Any,
    children: Any,
    device: jax.Device,
) -> Given:
    """What `device` has to do, whose programs are being compiled."""
    shared, own = _on(device, shared), _on(device, children)
    archs, active = map(np.asarray, ctx.told(own))
    of_each = [jax.tree.map(lambda leaf, i=i: leaf[i], own) for i in range(len(archs))]
    found: list[tuple[Any, futures.Future | None]] = []
    for arch, wanted, child in zip(archs, active, of_each, strict=True):
        if not wanted:
            found.append((child, None))
            continue
        key = arch.tobytes(), device.id, _kind((shared, child))
        known = programs.pop(key, None)  # the newest is the last
        programs[key] = known or compilers.submit(_compile, ctx, arch, shared, child)
        used.add(key)
        found.append((child, programs[key]))
    return Given(shared, found, ctx.of(archs[0]))


def _compile(ctx: Context, arch: np.ndarray, shared: Any, child: Any) -> Any:
    function = jax.jit(ctx.of(arch), donate_argnums=(1,) if ctx.overwrites else ())
    with compiled.unkept():
        return function.lower(shared, *child).compile()


def _results(given: Given) -> Any:
    """Leaves [n, ..] of the children of a device."""
    found = [
        None if program is None else program.result()(given.shared, *child)
        for child, program in given.children
    ]
    some = next((result for result in found if result is not None), None)
    if some is None:
        some = jax.eval_shape(given.function, given.shared, *given.children[0][0])
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), some)
    found = [nothing if result is None else result for result in found]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def _kind(tree: Any) -> Any:
    """What a program is compiled for, beside its layers."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)


def _on(device: jax.Device, tree: Any) -> Any:
    """The part of each array that is on `device`."""

    def part(leaf: jax.Array) -> jax.Array:
        return next(shard.data for shard in leaf.addressable_shards if shard.device == device)

    return jax.tree.map(part, tree)


def _joined(mesh: Mesh, parts: tuple[jax.Array, ...]) -> jax.Array:
    """One array [N, ..] over the devices, of the parts [N / D, ..] of those of this host."""
    shape = (len(parts[0]) * mesh.size, *parts[0].shape[1:])
    over = NamedSharding(mesh, PartitionSpec(devices.CHILDREN))
    return jax.make_array_from_single_device_arrays(shape, over, list(parts))
