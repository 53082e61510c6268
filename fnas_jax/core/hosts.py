"""Several hosts at one search: the first one searches, the others train children for it.

Every host runs the same command with the same configuration. Host 0 holds the method, the history
and the checkpoints, and alone writes files; the others wait for work. What is sent are pytrees of
arrays, by collectives over all devices, so that every host has to take part in each.
"""

from __future__ import annotations

import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax.experimental import multihost_utils

from fnas_jax.core import signals
from fnas_jax.core.types import Array, Failed, UserError

SERVICE = "jax_enable_preemption_service"
STOPPED = -1  # the command of a first host that was told to end
PATIENCE = f"--xla_cpu_collective_timeout_seconds={30 * 24 * 3600}"
PATIENT = (0, 8, 2)  # the first jaxlib whose XLA knows that flag: others end the process by it


def start(coordinator: str = "", num_hosts: int | None = None, host_id: int | None = None) -> None:
    """Joins the other hosts; without arguments, those of a TPU pod, and elsewhere nobody.

    `coordinator` is host:port of host 0. To be called before JAX is used. Raises UserError for
    arguments that do not fit together.
    """
    if signals.handling() and hasattr(jax.config, SERVICE):
        jax.config.update(SERVICE, False)  # which would take SIGTERM
    given = (bool(coordinator), num_hosts is not None, host_id is not None)
    if not any(given):
        if "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
            jax.distributed.initialize()
        return
    if not all(given) or num_hosts is None or host_id is None:
        raise UserError("--coordinator, --num_hosts and --host_id have to be given together")
    if num_hosts < 1 or not 0 <= host_id < num_hosts:
        raise UserError(
            f"--host_id is {host_id}; with --num_hosts={num_hosts} it is 0 or more"
            " and less than that"
        )
    if not coordinator.rpartition(":")[2].isdigit() or ":" not in coordinator:
        raise UserError(f"--coordinator is {coordinator!r}; it must be HOST:PORT")
    if jaxlib.version.__version_info__ >= PATIENT:
        # The other hosts wait as long as the first one takes for what it does alone.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {PATIENCE}".strip()
    try:
        jax.distributed.initialize(coordinator, num_hosts, host_id)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"host {host_id} cannot join the others at {coordinator}: {reason}"
        ) from error


def is_first() -> bool:
    """Whether this is the host that searches and writes."""
    return count() == 1 or jax.process_index() == 0


def count() -> int:
    """Number of hosts."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def broadcast(tree: Any) -> Any:
    """The first host's `tree` of arrays, on every host; all call it with the same shapes."""
    return tree if count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def shared(tree: Any) -> Any:
    """The first host's `tree` of arrays, on every host; all call it with the same shapes.

    It is sent only where the bits of another host's differ.
    """
    if count() == 1:
        return tree
    own = np.asarray(digest(tree))
    same = np.array_equal(own, broadcast(own))
    if np.all(multihost_utils.process_allgather(np.bool_(same))):
        return tree
    return broadcast(tree)


@jax.jit
def digest(tree: Any) -> Array:
    """[2] uint32 of all bits of a pytree of arrays of 4 bytes or booleans, and of their places.

    Sums of words that were mixed with their places by MurmurHash3's finaliser: of integers, so that
    no order of summation changes them.
    """
    total = jnp.zeros(2, jnp.uint32)
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        words = leaf.astype(jnp.uint32) if leaf.dtype == bool else _bits(leaf)
        places = jnp.arange(words.size, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1)
        for k in range(2):
            seed = jnp.uint32((2 * number + k + 1) * 0x27D4EB2F % 2**32)
            total = total.at[k].add(_mixed(words.ravel() ^ _mixed(places ^ seed)).sum())
    return total


def _bits(leaf: Array) -> Array:
    return jax.lax.bitcast_convert_type(leaf, jnp.uint32)


def _mixed(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def broadcast_text(text: str) -> str:
    """The first host's `text`, on every host."""
    if count() == 1:
        return text
    content = np.frombuffer(text.encode(), np.uint8)
    size = int(broadcast(np.int32(len(content))))
    given = content if is_first() else np.zeros(size, np.uint8)
    return bytes(np.asarray(broadcast(given))).decode()


def broadcast_command(children: int = 0) -> int:
    """The first host's command, on every host: to train so many children; 0: there are none left.

    The other hosts always wait for a command, so that the first is free to do what takes long.
    Raises, on every host, what `end` raises, where the first one was told to end.
    """
    if count() == 1:
        return children
    found = int(broadcast(np.int32(children)))
    if found == STOPPED:
        end()
    return found


def end_if_asked() -> None:
    """Ends the search on all hosts, of which the others wait for a command, if a signal said so.

    To be called on the first host, where nothing would be lost.
    """
    if not signals.asked():
        return
    broadcast_command(STOPPED)
    signals.check()


def end() -> None:
    """Raises `signals.Stop` on a host that was told to end, and `Failed` on one that was not."""
    signals.check()
    raise Failed("the first host of this search was told to end; the same commands go on from here")


def gather(tree: Any) -> Any:
    """Arrays that are divided over all hosts, as numpy arrays on every host."""
    if count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def globally(sharding: jax.sharding.Sharding, value: Any) -> Array:
    """An array placed as `sharding` says, of a `value` that every host has."""
    if jax.dtypes.issubdtype(getattr(value, "dtype", np.float32), jax.dtypes.prng_key):
        data = globally(sharding, jax.random.key_data(value))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(value))
    whole = np.asarray(value)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def lost(error: Exception) -> str | None:
    """What to tell users of an error that another host's end has caused; None: it has not."""
    reason = str(error).splitlines()[0][:200] if str(error) else ""
    if count() == 1 or not re.search("gloo|nccl|coordination|heartbeat", reason, re.IGNORECASE):
        return None
    return (
        "a host of this search has gone; the same commands go on from the last checkpoint, with"
        f" any number of hosts and devices ({reason})"
    )
