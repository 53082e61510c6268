"""A network of a space that costs little, found by changes of one decision at a time."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.spaces.base import Space, neighbours

DRAWN = 256  # networks, of which the cheapest is made cheaper


def cheapest(
    space: Space, canonical: Callable[[Array], Array], cost: Callable[[Array], np.ndarray]
) -> tuple[np.ndarray, float]:
    """A network [T] whose `cost`, of archs [N, T], no change of one decision lowers; its cost.

    `canonical`: that of the space, which may be compiled.
    """
    archs = canonical(space.sample(jax.random.key(0), DRAWN))
    best, least = None, np.inf
    while True:
        costs = cost(archs)
        if costs.min() >= least:
            assert best is not None
            return best, float(least)
        best, least = np.asarray(archs[costs.argmin()]), costs.min()
        archs = canonical(neighbours(space.cardinalities, jnp.asarray(best)))
