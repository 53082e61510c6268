"""The devices that children are trained on, and the persistent compilation cache."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

logger = logging.getLogger(__name__)

CHILDREN = "children"  # the mesh axis over which a batch of children is spread


def children_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """One axis `children` over `devices`, by default all of this process."""
    return Mesh(np.asarray(jax.local_devices() if devices is None else devices), (CHILDREN,))


def padded_size(n: int, mesh: Mesh) -> int:
    """The smallest multiple of the mesh's `children` axis that is at least `n`."""
    size = mesh.shape[CHILDREN]
    return -(-n // size) * size


def enable_compilation_cache(folder: str) -> None:
    """Lets JAX keep compiled programs in `folder` (~ allowed); '' leaves its setting as it is.

    A folder that cannot be written costs time, not results: a warning says so.
    """
    if not folder:
        return
    try:
        path = pathlib.Path(folder).expanduser()
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ without a home
        reason = getattr(error, "strerror", None) or error
        logger.warning("no compilation cache: %s cannot be created (%s)", folder, reason)
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
