"""The devices that children are trained on, and the persistent compilation cache."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from fnas_jax.core import compiled, hosts, private
from fnas_jax.core import memory as memory_lib

logger = logging.getLogger(__name__)

CHILDREN = "children"  # the mesh axis over which a batch of children is spread
BATCH = "batch"  # and that over which each minibatch of one network is


def cores() -> int:
    """CPU cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def describe() -> str:
    """JAX's default device in words, e.g. "cpu: Intel(R) Xeon(R) CPU @ 2.60GHz, 2 cores"."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return f"{device.platform}: {device.device_kind}"
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # not on this system
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return f"cpu: {model}, {cores()} cores"


def use_all_cores() -> None:
    """Makes JAX see each CPU core as a device, so that each can train a child of its own.

    To be called before JAX is used. An explicit number of devices (in XLA_FLAGS or in
    JAX_NUM_CPU_DEVICES) is left as it is; accelerators are not affected.
    """
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return
    try:
        jax.config.update("jax_num_cpu_devices", cores())
    except RuntimeError:  # JAX has devices already, in a test or a notebook: these are used
        logger.debug("JAX was used before: its devices stay as they are")


def children_mesh(devices: Sequence[jax.Device] | None = None, most: int | None = None) -> Mesh:
    """One axis `children` over `devices`, by default all of all hosts.

    No more than `most` of a host's: the data is copied to each, and a batch may have fewer
    children.
    """
    if devices is None:
        found, count = jax.devices(), jax.process_count()
        most = len(found) if most is None else -(-most // count)
        by_host = [[d for d in found if d.process_index == host] for host in range(count)]
        devices = [d for own in by_host for d in own[:most]]
    return Mesh(np.asarray(devices), (CHILDREN,))


def batch_mesh(images: int, least: int) -> Mesh:
    """One axis `batch` over as many of this host's devices as a minibatch of `images` is shared by.

    That is the largest number of them that divides it into equal parts of at least `least`.
    """
    own = jax.local_devices()
    return Mesh(np.asarray(own[: sharing(images, least, len(own))]), (BATCH,))


def sharing(images: int, least: int, most: int) -> int:
    """How many of `most` devices share a minibatch, as in `batch_mesh`."""
    fitting = [n for n in range(1, most + 1) if images % n == 0 and images // n >= least]
    return max(fitting, default=1)


def memory(mesh: Mesh) -> float:
    """Bytes that a device of `mesh` may take; of what the host has, CPUs leave it a part."""
    device = mesh.local_devices[0]
    known = (device.memory_stats() or {}).get("bytes_limit")
    if known:
        return known
    return memory_lib.host_bytes() / (1 + len(mesh.local_devices))


def shard(tree: Any, mesh: Mesh) -> Any:
    """Leaves [N, ..], which every host has, divided over the devices of `mesh`."""
    return _place(tree, NamedSharding(mesh, PartitionSpec(CHILDREN)))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A copy of all leaves, which every host has, on each device of `mesh`."""
    return _place(tree, NamedSharding(mesh, PartitionSpec()))


def on_first(tree: Any, mesh: Mesh) -> Any:
    """All leaves, which this host has whole, on its first device in `mesh`."""
    return jax.device_put(tree, SingleDeviceSharding(mesh.local_devices[0]))


def collect(tree: Any, mesh: Mesh) -> Any:
    """Leaves [N, ..] that are divided over the devices of `mesh`, whole on the first of them.

    From the devices of several hosts they come to the first one of every host.
    """
    if hosts.count() == 1:
        return on_first(tree, mesh)
    return on_first(jax.tree.map(lambda x: x.addressable_data(0), _everywhere(mesh)(tree)), mesh)


@functools.cache
def _everywhere(mesh: Mesh) -> Any:
    """The compiled function that gives every device of `mesh` the whole."""
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _place(tree: Any, sharding: NamedSharding) -> Any:
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: hosts.globally(sharding, leaf), tree)


def balanced(costs: np.ndarray, mesh: Mesh) -> np.ndarray:
    """An order [N] int64 of N children in which every device gets about the same cost.

    `costs` [N], N a multiple of the number of devices, each of which takes N / D neighbours. The
    costliest children are dealt first, each to the device with the least so far that has room.
    """
    groups: list[list[int]] = [[] for _ in range(mesh.shape[CHILDREN])]
    room, loads = len(costs) // len(groups), np.zeros(len(groups))
    for child in np.argsort(-np.asarray(costs), kind="stable"):
        full = np.asarray([len(group) == room for group in groups])
        device = int(np.argmin(np.where(full, np.inf, loads)))
        groups[device].append(int(child))
        loads[device] += costs[child]
    return np.concatenate([np.asarray(group, np.int64) for group in groups])


def shapes_on(device: jax.Device, tree: Any) -> Any:
    """What a program is compiled for, of arrays like those of `tree` that are on `device`."""
    there = SingleDeviceSharding(device)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there), tree
    )


def padded_size(n: int, mesh: Mesh) -> int:
    """The smallest multiple of the mesh's `children` axis that is at least `n`."""
    size = mesh.shape[CHILDREN]
    return -(-n // size) * size


def enable_compilation_cache(folder: str) -> None:
    """Lets JAX keep compiled programs in `folder` (~ allowed); '' leaves its setting as it is.

    A folder that cannot be written, or that others could put programs into, costs time, not
    results: a warning says so. So does a JAX whose cache cannot be given digests (`compiled`).
    """
    if not folder:
        return
    try:
        path = pathlib.Path(folder).expanduser()
        private.folder(path, links=True)
    except private.NotPrivate as error:
        logger.warning("no compilation cache, whose programs are run as they are: %s", error)
        return
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ without a home
        reason = getattr(error, "strerror", None) or error
        logger.warning("no compilation cache: %s cannot be created (%s)", folder, reason)
        return
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", str(path))
    if not compiled.seal(path):
        jax.config.update("jax_compilation_cache_dir", before)
        logger.warning(
            "no compilation cache: JAX %s does not let its programs be checked", jax.__version__
        )
        return
    # Everything: hundreds of small programs take as long as a large one.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
