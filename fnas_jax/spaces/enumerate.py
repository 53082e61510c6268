"""All different networks of a small space."""

from __future__ import annotations

import functools

import jax
import numpy as np

from fnas_jax.spaces.base import Space, enumerate_all


@functools.lru_cache(maxsize=8)
def enumerate_networks(space: Space) -> np.ndarray:
    """[M, T] int32: the canonical form of every network, once, in lexicographic order.

    Raises ValueError for spaces of more than a million decision vectors.
    """
    with jax.ensure_compile_time_eval():
        canonical = np.asarray(jax.jit(space.canonical)(enumerate_all(space)))
    canonical = np.unique(canonical, axis=0)
    canonical.setflags(write=False)
    return canonical
