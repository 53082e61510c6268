"""How alike two blocks are, by what their decisions say of them."""

from __future__ import annotations

import chex
import jax.numpy as jnp

from fnas_jax.core.types import Array


def cosine(a: Array, b: Array, weights: Array) -> Array:
    """[N, F], [M, F] -> [N, M] float32 in [0, 1]: cosine of the descriptors, weighted.

    Descriptors (`Space.blocks`) are not negative. With `weights` [F] w, the products are
    sum_f w_f a_f b_f. Equal descriptors give exactly 1, others less.
    """
    chex.assert_rank([a, b, weights], [2, 2, 1])
    chex.assert_equal_shape_suffix([a, b, weights], 1)
    scaled_a, scaled_b = a * jnp.sqrt(weights), b * jnp.sqrt(weights)
    norms = jnp.linalg.norm(scaled_a, axis=1)[:, None] * jnp.linalg.norm(scaled_b, axis=1)
    similarity = (scaled_a @ scaled_b.T) / jnp.maximum(norms, 1e-12)
    equal = jnp.all(a[:, None] == b, axis=-1)
    below_one = 1 - 1e-6  # rounding must not make others equal
    return jnp.where(equal, 1.0, jnp.clip(similarity, 0.0, below_one))
