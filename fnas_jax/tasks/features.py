"""What is known of networks before they are trained, for methods that predict: `Space.features`.

The numbers come from `networks.structure`, from formulas of costs, and from a table's columns of
costs. Here they are brought to one scale.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import identity, stages
from fnas_jax.core.types import Array, Features, UserError
from fnas_jax.networks import cost, structure
from fnas_jax.networks.dense import Outputs
from fnas_jax.networks.structure import Part
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.context import DEVICE
from fnas_jax.tasks.latency import Source

LOG = logging.getLogger(__name__)
LOG.setLevel(logging.INFO)  # what methods go by is told
DRAWN = 2048  # random networks by which means and deviations are taken
LEAST = 0.5  # share of the networks of which a number has to be known
FURTHEST = 6.0  # deviations
# What measures zero-cost proxies, given structure and costs, whichever of these methods get
Measure = Callable[[Features], Part | None]


def of(
    chosen: Any,
    space: Space,
    costs: Part | None,
    about: Mapping[str, Any],
    existing: Array | None = None,
    measure: Measure | None = None,
) -> Features | None:
    """The features that the section `features`, `chosen`, asks for; None: nothing is known.

    `costs`: those that need no measurement, by `logarithms`; `about` tells these from others of the
    space; `existing`: `Task.existing`; `measure`: what makes zero-cost proxies.
    """
    free = {"structure": structure.structure(space), "costs": costs}
    parts = [part for name, part in free.items() if part is not None and getattr(chosen, name)]
    if chosen.proxies and measure is not None:
        there = [part for part in free.values() if part is not None]
        known = standard(space, there, about, existing, told=False)
        if known is None:
            LOG.info("zero-cost proxies are left out: nothing else is known of networks")
        found = None if known is None else measure(known)
        if found is not None:
            parts, about = [*parts, found], {**about, "measured": found.identity}
    return standard(space, parts, about, existing) if parts else None


def of_networks(
    chosen: Any,
    space: Space,
    image_shape: tuple[int, int, int],
    outputs: Outputs,
    latency: Source = DEVICE,
    existing: Array | None = None,
    measure: Measure | None = None,
) -> Features | None:
    """`of` networks of `space` on such images, whose costs formulas say.

    And `latency`, where that predicts without a measurement. The others as those of `of`.
    """
    count, predict = cost.cost(space, image_shape, outputs), latency.predict
    names = ("params", "macs", *(() if predict is None else ("latency_ms",)))

    def costs(archs: Array) -> tuple[Array, ...]:
        return (*count(archs), *(() if predict is None else (predict(archs),)))

    about: dict[str, Any] = {"image": image_shape, "outputs": outputs}
    about |= {} if predict is None else {"latency": latency.identity}
    about |= {} if existing is None else {"networks": identity.of_arrays(existing)}
    return of(chosen, space, logarithms(names, costs), about, existing, measure)


def logarithms(names: Sequence[str], of_costs: Callable[[Array], Sequence[Array]]) -> Part:
    """The logarithms of costs above 0, each [N]; what is unknown stays NaN."""

    def logs(archs: Array) -> Array:
        found = [jnp.asarray(cost, jnp.float32) for cost in of_costs(archs)]
        return jnp.log(jnp.stack(found, axis=1))

    return Part(tuple(names), logs)


def standard(
    space: Space,
    parts: Sequence[Part],
    about: Mapping[str, Any],
    existing: Array | None = None,
    told: bool = True,
) -> Features | None:
    """The numbers of all `parts` on one scale, without those that are the same for all networks.

    And without those that are unknown of more than half of them, which is said where it is to be
    `told`. None where none is left.
    """
    raw = functools.partial(side_by_side, parts)
    with stages.at("what is known of networks before they are trained"):
        drawn = np.asarray(jax.jit(raw)(sample(space, existing)), np.float64)
    known = np.isfinite(drawn)
    mean = np.where(known, drawn, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    std = np.sqrt(np.where(known, (drawn - mean) ** 2, 0.0).mean(axis=0))
    differs, shares = std > 1e-5 * (1 + np.abs(mean)), known.mean(axis=0)
    every = np.array([name for part in parts for name in part.names])
    for i in np.flatnonzero(differs & (shares < 1) & told):
        left_out = "which methods do not go by" if shares[i] < LEAST else "others count as the mean"
        LOG.info("%s is known of %.0f%% of the networks: %s", every[i], 100 * shares[i], left_out)
    kept = np.flatnonzero(differs & (shares >= LEAST))
    if not len(kept):
        return None
    names = every[kept]
    text = identity.text({"names": names.tolist(), "about": dict(about)})
    scale = functools.partial(scaled, raw, kept, *(x[kept].astype(np.float32) for x in (mean, std)))
    return Features(tuple(names.tolist()), scale, text)


def check(known: Any, space: Space, existing: Array | None) -> None:
    """Raises UserError for what is not `Features` of `space`, as a user's task may return."""
    if not isinstance(known, Features):
        raise UserError(
            f"its features are {type(known).__name__}, not fnas_jax.interfaces.Features"
        )
    if not known.names or not isinstance(known.identity, str):
        raise UserError("its features must have names, and a text as their identity")
    archs = sample(space, existing)
    found = np.asarray(jax.jit(known.of)(archs))
    if found.shape != (len(archs), len(known.names)):
        raise UserError(
            f"its features of {len(archs)} networks have the shape {found.shape}; with"
            f" {len(known.names)} names it must be {(len(archs), len(known.names))}"
        )
    finite = np.isfinite(found).all(axis=0)
    of_one = (np.abs(found.mean(axis=0)) < 1) & (found.std(axis=0) < 5)
    for name, well in zip(known.names, finite & of_one, strict=True):
        if not well:
            raise UserError(
                f"its feature {name!r} must be finite, with mean 0 and deviation 1 over the space"
            )


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
    """As `Features.of`: the `kept` columns, less their `mean`, over their `std`; 0 for NaN.

    No further from 0 than FURTHEST, so that one network far away is no network of its own kind.
    """
    found = (raw(archs)[:, kept] - mean) / std
    return jnp.clip(jnp.where(jnp.isfinite(found), found, 0.0), -FURTHEST, FURTHEST)
