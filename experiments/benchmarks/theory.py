"""What random search should need, from the table alone.

Random search draws decision vectors uniformly; one whose network is known or that the table lacks
costs nothing. Give every vector s an independent exponential clock of rate 1/M: the order of first
rings is the order of first draws, and everything becomes independent at a fixed time t. A network
with m forms, k of them among the top, is first drawn before t with probability 1 - exp(-m t / M),
and its first form is a top one with probability k / m. So, with T* the time of the first hit and
given T* = t, the number of evaluations before it is a sum of independent Bernoulli variables, one
per network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from fnas_jax.core.types import UserError
from fnas_jax.spaces.base import enumerate_all
from fnas_jax.tasks import table_index, tabular
from fnas_jax.tasks.tables import Table


def random_quantiles(table: Table, quantiles: Sequence[float]) -> list[float]:
    """Quantiles of the number of evaluations until the first top architecture.

    Exact up to the grid over t and the normal approximation of the sum of Bernoulli variables.
    """
    cdf = random_cdf(table)
    return [float(np.searchsorted(cdf, q) + 1) for q in quantiles]


def networks(table: Table) -> tuple[np.ndarray, np.ndarray, int]:
    """Of each network of the table: its forms, and how many of them are top rows; and all vectors.

    Raises UserError for a space that is too large to list, where networks that the table lacks are
    not told apart.
    """
    where, size = table_index.of(table), table.space.size
    if size > table_index.DENSE:
        raise UserError(
            f"table {table.name} is of {size} vectors; what random search needs is computed for at"
            f" most {table_index.DENSE}"
        )
    everything = enumerate_all(table.space, table_index.DENSE)
    network, row = (np.asarray(f(everything)) for f in (where.network_of, where.row_of))
    top = (row >= 0) & tabular.top_rows(table)[row]
    forms = np.bincount(network, minlength=where.networks).astype(float)
    tops = np.bincount(network, top, minlength=where.networks)
    held = np.unique(network[row >= 0])
    return forms[held], tops[held], size


def random_cdf(table: Table, grid: int = 600) -> np.ndarray:
    """[networks] probability of having evaluated a top architecture after 1, 2, .. evaluations."""
    forms, tops, size = networks(table)
    # Networks with the same m and k behave alike: a few groups instead of thousands of networks.
    groups, counts = np.unique(np.stack([forms, tops]), axis=1, return_counts=True)
    m, k = groups[:, :, None]
    c = counts[:, None]
    times = np.geomspace(1e-5, 60, grid) * size / forms.max()
    drawn = 1 - np.exp(-m * times / size)  # [groups, grid]
    no_hit = np.exp((c * np.log1p(-np.minimum(k / m * drawn, 1 - 1e-15))).sum(axis=0))
    weight = -np.diff(np.concatenate([[1.0], no_hit]))  # P(T* in the step that ends at t)
    silent = (1 - k / m) * drawn / (1 - k / m * drawn + 1e-15)  # drawn, given no hit by then
    mean = (c * silent).sum(axis=0)
    std = np.sqrt((c * silent * (1 - silent)).sum(axis=0)) + 1e-9
    n = np.arange(1, len(forms) + 1)[:, None]
    return (weight * stats.norm.cdf((n - 0.5 - mean) / std)).sum(axis=1)
