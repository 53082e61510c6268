"""A program for each child, of its own layers only, where other ways have one for all children.

Programs are compiled side by side while each device runs those of its own that are there. Those of
the last children are kept, but not on disk: most architectures are trained once.
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

KEPT = 64  # programs of one function, or as many as a batch has
COPIES = 3  # of what each child has, at once: what is given, results, and these as one array
Function = Callable[..., Any]  # (shared, *what is a child's own) -> its result
Programs = dict[Any, futures.Future]  # by architecture, device and shapes; the newest last


class Context(NamedTuple):
    """What is run for each child."""

    mesh: Mesh  # the devices over which children are divided
    of: Callable[[np.ndarray], Function]  # arch [T] -> the function of that child
    # What a child is: those of several, leaves [N, ..] -> (archs [N, T], active [N])
    told: Callable[[Any], tuple[Any, Any]]


class Given(NamedTuple):
    """What a device has to do."""

    device: jax.Device
    shared: Any
    children: Any  # leaves [n, ..]
    programs: list[futures.Future | None]  # of each; None: it is not asked for
    of: Callable[[], Function]  # any child's function, for the shapes of its result


def run(ctx: Context, programs: Programs, shared: Any, *children: Any) -> Any:
    """Results [N, ..] of `children`, leaves [N, ..] over the devices; zeros of those not active.

    `shared` is on all devices. `programs` is what was compiled before, to which this is added.
    """
    local = ctx.mesh.local_devices
    used: set[Any] = set()
    # A device that loops asks its thread how long to go on, so that each needs one.
    with futures.ThreadPoolExecutor(len(local)) as drivers:
        compilers = futures.ThreadPoolExecutor(devices.cores())
        try:
            given = [_given(ctx, programs, used, compilers, shared, children, d) for d in local]
            parts = list(drivers.map(_results, given))
        finally:  # before the devices' threads are waited for: nobody waits for what is left out
            compilers.shutdown(cancel_futures=True)
            _trim(programs, len(used))
    return jax.tree.map(lambda *leaves: joined(ctx.mesh, leaves), *parts)


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
    shared, own = on(device, shared), on(device, children)
    archs, active = map(np.asarray, ctx.told(own))
    one = jax.tree.map(lambda leaf: leaf[0], own)
    kind = device.id, _kind((shared, one))
    found: list[futures.Future | None] = []
    for arch, wanted in zip(archs, active, strict=True):
        if not wanted:
            found.append(None)
            continue
        key = arch.tobytes(), *kind
        known = programs.pop(key, None)  # the newest is the last
        programs[key] = known or compilers.submit(_compile, ctx.of, arch, device, shared, one)
        used.add(key)
        found.append(programs[key])
    return Given(device, shared, own, found, lambda: ctx.of(archs[0]))


def _compile(
    of: Callable[[np.ndarray], Function], arch: np.ndarray, device: jax.Device, *given: Any
) -> Any:
    shared, child = devices.shapes_on(device, given)
    with compiled.unkept():
        return jax.jit(of(arch)).lower(shared, *child).compile()


def _trim(programs: Programs, used: int) -> None:
    """Drops what was not compiled, and the oldest beyond what is kept."""
    for key, program in list(programs.items()):
        if program.cancelled() or program.exception():
            del programs[key]
    for key in list(programs)[: max(0, len(programs) - max(KEPT, used))]:
        del programs[key]


def _results(given: Given) -> Any:
    """Leaves [n, ..] of the children of a device, of which those run first that are compiled."""
    waiting = {program for program in given.programs if program is not None}
    found: dict[int, Any] = {}
    for program in futures.as_completed(waiting):
        for i, own in enumerate(given.programs):
            if own is program:
                child = jax.tree.map(lambda leaf, i=i: leaf[i], given.children)
                found[i] = program.result()(given.shared, *child)
    if found:
        shapes = next(iter(found.values()))
    else:
        child = jax.tree.map(lambda leaf: leaf[0], given.children)
        shapes = jax.eval_shape(given.of(), given.shared, *child)
    with jax.default_device(given.device):
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        each = [found.get(i, nothing) for i in range(len(given.programs))]
        together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    return jax.device_put(together, given.device)


def _kind(tree: Any) -> Any:
    """What a program is compiled for, beside its layers."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)


def on(device: jax.Device, tree: Any) -> Any:
    """The part of each array that is on `device`."""

    def part(leaf: jax.Array) -> jax.Array:
        return next(shard.data for shard in leaf.addressable_shards if shard.device == device)

    return jax.tree.map(part, tree)


def joined(mesh: Mesh, parts: tuple[jax.Array, ...]) -> jax.Array:
    """One array [N, ..] over the devices, of the parts [N / D, ..] of those of this host."""
    shape = (len(parts[0]) * mesh.size, *parts[0].shape[1:])
    over = NamedSharding(mesh, PartitionSpec(devices.CHILDREN))
    return jax.make_array_from_single_device_arrays(shape, over, list(parts))
