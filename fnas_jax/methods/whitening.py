"""Inverse Cholesky factors: of these, programs can hold any number, and every solve is a product.

On CPUs, jaxlib shares a *batch* of factorisations or triangular solves out among XLA's threads and
waits for them on one of these threads. As soon as `vmap` makes batches of two factorisations that
do not depend on each other, both can so wait for ever (seen with jaxlib 0.10.2 on two cores: all
threads of the pool in `jax::ParallelBatchMap`). So on CPUs a batch is worked off one by one here,
and no other module may factorise or solve inside a search.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.scipy.linalg import solve_triangular

from fnas_jax.core.types import Array


def inverse_factor(matrix: Array) -> Array:
    """L^-1 [n, n] of the lower Cholesky factor L of `matrix` [n, n]; NaN where there is none."""
    return jax.lax.platform_dependent(matrix, cpu=_one_by_one, default=_inverse_factor)


def _inverse_factor(matrix: Array) -> Array:
    factor = jnp.linalg.cholesky(matrix)
    return solve_triangular(factor, jnp.eye(len(matrix), dtype=matrix.dtype), lower=True)


_one_by_one = sequential_vmap(_inverse_factor)
