"""What a table says of its networks before they are looked up: its costs, as features."""

from __future__ import annotations

import logging
from typing import Any

import jax.numpy as jnp
import numpy as np

from fnas_jax.core import hosts, identity
from fnas_jax.core.types import COSTS, Array, Features
from fnas_jax.networks import elastic
from fnas_jax.tasks import features
from fnas_jax.tasks.table_index import Index
from fnas_jax.tasks.tables import Table

LOG = logging.getLogger(__name__)
IMAGE, CLASSES = (32, 32, 3), 10  # of CIFAR, which the published tables are about


def costs_of(table: Table) -> list[str]:
    """The names of its columns of costs, but for the one that is searched for."""
    there = [name for name in COSTS if np.isfinite(getattr(table, name)).any()]
    return [name for name in there if name != table.measure.name]


def of(chosen: Any, table: Table, where: Index, existing: Array | None) -> Features | None:
    """As `Task.features`: the table's columns of costs, and what the space says.

    Where it has no such column, the formulas of the space's networks on `IMAGE`. What is searched
    for is never known.
    """
    there = costs_of(table)
    if not there and elastic.has_networks(table.space):
        return features.of_networks(chosen, table.space, IMAGE, CLASSES, existing=existing)
    if not there:
        return None
    columns = [jnp.asarray(getattr(table, name)) for name in there]

    def looked_up(archs: Array) -> list[Array]:
        row = where.row_of(archs)
        return [jnp.where(row < 0, jnp.nan, column[row]) for column in columns]

    about = {"costs": identity.of_arrays([table.archs, *columns])}
    found = features.of(chosen, table.space, features.logarithms(there, looked_up), about, existing)
    if found is not None and "latency_ms" in found.names and hosts.is_first():
        LOG.warning(
            "latency_ms counts as known before a network is evaluated;"
            " features.costs=False keeps a table's costs from methods that predict"
        )
    return found
