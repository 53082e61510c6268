"""What is known of networks before training, beside the code of their decisions."""

from __future__ import annotations

import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.spaces.base import Space, one_hot

SHARE = 0.5  # of mean squared distances that the features have, however many they are


def beside(code: Array, known: Array, distance: float) -> Array:
    """[n, D + F]: the `code` [n, D] of decisions and `known` features [n, F] (`Space.features`).

    `distance`: the mean squared distance of two codes over the space, which stays what it is.
    """
    unit = (SHARE * distance / (2 * known.shape[1])) ** 0.5
    return jnp.concatenate([(1 - SHARE) ** 0.5 * code, unit * known], axis=1)


def one_hot_beside(space: Space, archs: Array) -> Array:
    """[n, D] one-hot codes of canonical `archs` [n, T], beside what else is known of them.

    Over the space, the mean squared distance is twice the mean Hamming distance, with or without.
    """
    code = one_hot(space.cardinalities, archs)
    if space.features is None:
        return code
    return beside(code, space.features.of(archs), 2 * mean_hamming(space))


def mean_hamming(space: Space) -> float:
    """How many decisions of two random architectures differ, on average; above 0."""
    return max(sum(1 - 1 / k for k in space.cardinalities), 1e-9)
