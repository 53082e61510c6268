"""What is known of networks before they are trained, for methods that predict: `Space.features`.

The numbers come from `networks.structure`, from formulas of costs, and from a table's columns of
costs. Here they are brought to one scale.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import identity
from fnas_jax.core.types import Array, Features
from fnas_jax.networks import cost, structure
from fnas_jax.networks.dense import Outputs
from fnas_jax.networks.structure import Part
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.context import DEVICE
from fnas_jax.tasks.latency import Source

DRAWN = 2048  # random networks by which means and deviations are taken


def of(
    chosen: Any,
    space: Space,
    costs: Part | None,
    about: Mapping[str, Any],
    existing: Array | None = None,
) -> Features | None:
    """The features that the section `features`, `chosen`, asks for; None: nothing is known.

    `costs`: those that need no measurement, by `logarithms`; `about` tells these from others of the
    space; `existing`: `Task.existing`.
    """
    parts = [
        structure.structure(space) if chosen.structure else None,
        costs if chosen.costs else None,
    ]
    there = [part for part in parts if part is not None]
    return standard(space, there, about, existing) if there else None


def of_networks(
    chosen: Any,
    space: Space,
    image_shape: tuple[int, int, int],
    outputs: Outputs,
    latency: Source = DEVICE,
) -> Features | None:
    """`of` networks of `space` on such images, whose costs formulas say.

    And `latency`, where that predicts without a measurement.
    """
    count, predict = cost.cost(space, image_shape, outputs), latency.predict
    names = ("params", "macs", *(() if predict is None else ("latency_ms",)))

    def costs(archs: Array) -> tuple[Array, ...]:
        return (*count(archs), *(() if predict is None else (predict(archs),)))

    about: dict[str, Any] = {"image": image_shape, "outputs": outputs}
    about |= {} if predict is None else {"latency": latency.identity}
    return of(chosen, space, logarithms(names, costs), about)


def logarithms(names: Sequence[str], of_costs: Callable[[Array], Sequence[Array]]) -> Part:
    """The logarithms of costs above 0, each [N]; what is unknown stays NaN."""

    def logs(archs: Array) -> Array:
        found = [jnp.asarray(cost, jnp.float32) for cost in of_costs(archs)]
        return jnp.log(jnp.stack(found, axis=1))

    return Part(tuple(names), logs)


def standard(
    space: Space, parts: Sequence[Part], about: Mapping[str, Any], existing: Array | None = None
) -> Features | None:
    """The numbers of all `parts` on one scale, without those that are the same for all networks.

    None where none is left.
    """
    raw = functools.partial(side_by_side, parts)
    drawn = np.asarray(jax.jit(raw)(sample(space, existing)), np.float64)
    known = np.isfinite(drawn)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, drawn, 0.0).sum(axis=0) / count
    std = np.sqrt(np.where(known, (drawn - mean) ** 2, 0.0).sum(axis=0) / count)
    kept = np.flatnonzero(std > 1e-5 * (1 + np.abs(mean)))
    if not len(kept):
        return None
    names = np.array([name for part in parts for name in part.names])[kept]
    told = identity.text({"names": names.tolist(), "about": dict(about)})
    scale = functools.partial(scaled, raw, kept, *(x[kept].astype(np.float32) for x in (mean, std)))
    return Features(tuple(names.tolist()), scale, told)


def sample(space: Space, existing: Array | None) -> Array:
    """[n, T] canonical networks, drawn from the space or from the `existing` ones."""
    key = jax.random.key(0)
    if existing is None:
        return space.canonical(space.sample(key, DRAWN))
    return space.canonical(existing[jax.random.randint(key, (DRAWN,), 0, len(existing))])


def side_by_side(parts: Sequence[Part], archs: Array) -> Array:
    """[N, all numbers of all parts] float32 of canonical archs [N, T]."""
    return jnp.concatenate([part.of(archs) for part in parts], axis=1)


def scaled(
    raw: Callable[[Array], Array], kept: np.ndarray, mean: np.ndarray, std: np.ndarray, archs: Array
) -> Array:
    """As `Features.of`: the `kept` columns, less their `mean`, over their `std`; 0 for NaN."""
    found = (raw(archs)[:, kept] - mean) / std
    return jnp.where(jnp.isfinite(found), found, 0.0)
