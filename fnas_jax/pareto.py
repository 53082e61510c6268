"""The networks that no other one beats: accuracy against every cost that is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnas_jax.core.types import COSTS
from fnas_jax.knowledge.history import Rows
from fnas_jax.spaces.base import Space


def front(accuracy: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """[n] bool: no other has at least the `accuracy` [n] at no higher `costs` [n, C], one better.

    Of equal ones, the first is in the front.
    """
    # The most accurate first, of equal ones the cheapest, then the earliest: what beats a network
    # stands before it.
    order = np.lexsort((*costs.T[::-1], -accuracy))
    chosen: list[int] = []
    for i in order:
        if not (costs[chosen] <= costs[i]).all(axis=1).any():
            chosen.append(i)
    found = np.zeros(len(accuracy), bool)
    found[chosen] = True
    return found


def networks(rows: Rows, space: Space, sign: float = 1.0) -> list[dict[str, Any]]:
    """The front of the measured ones among `rows`, the most accurate first.

    `value` is the accuracy, or the task's own metric (`sign`: of its `Measure`). A cost counts
    that is known of all of them; others stand there as None.
    """
    measured = np.flatnonzero(rows.trained & rows.ok & np.isfinite(rows.accuracy))
    costs = {name: getattr(rows, name)[measured] for name in COSTS}
    known = [values for values in costs.values() if np.isfinite(values).all()]
    table = np.column_stack(known) if known else np.zeros((len(measured), 0))
    chosen = measured[front(rows.accuracy[measured], table)]
    return [
        {
            "arch": rows.decisions[i],
            "text": space.describe(rows.decisions[i])["text"],
            "accuracy": rows.accuracy[i],
            "value": sign * rows.accuracy[i],
            **{name: getattr(rows, name)[i] for name in COSTS},
        }
        for i in chosen[np.argsort(-rows.accuracy[chosen], kind="stable")]
    ]
