"""The kernels that FNAS's Gaussian processes choose from: a fixed grid over canonical decisions.

exp(-r d(x, x')), with d a squared distance of mean 1 over the space by one of two codes: how many
decisions differ, or by how much, for decisions that are sizes in order. Where something is known of
networks before training (`Space.features`), it is one half of d at half of the points.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.methods import gp_math
from fnas_jax.methods.beside import SHARE
from fnas_jax.spaces.base import Space, one_hot

RATES = (0.3, 0.75, 2.0, 4.0)
NOISES = (0.01, 0.06, 0.3)  # variance, over that of the process


class Component(NamedTuple):
    """Points of the grid; every field has the same shape."""

    code: Array  # int32, which of `codes`
    share: Array | None  # float32 of d that the features are; None: the space has none
    rate: Array  # float32
    noise: Array  # float32
    rho: Array  # float32 correlation with other tasks; 0: they do not count
    log_prior: Array  # float32


class Distances(NamedTuple):
    """Squared distances of n architectures from m others, each kind of mean 1 over the space."""

    decisions: Array  # [codes, n, m]
    features: Array | None  # [n, m]; None: the space has none


def codes(cardinalities: tuple[int, ...], archs: Array) -> tuple[Array, ...]:
    """Codes [n, F] of `archs` [n, T] whose squared distances have mean 1 over the space.

    One-hot: d counts decisions that differ. Thermometer: d sums differences over ranges; left out
    where no decision has more than two choices, as both are the same there.
    """
    cards = np.asarray(cardinalities)
    differ = max(np.sum(1 - 1 / cards), 1e-9)
    found = (one_hot(cardinalities, archs) / np.sqrt(2 * differ),)
    if cards.max() < 3:
        return found
    decision = np.repeat(np.arange(len(cards)), cards - 1)
    level = np.concatenate([np.arange(1, k) for k in cards])
    span = np.sum((cards > 1) * (cards + 1) / (3 * cards))
    unit = 1 / np.sqrt((cards - 1)[decision] * span)
    return *found, (archs[:, decision] >= level) * unit


def distances(space: Space, x: Array, y: Array) -> Distances:
    """Of canonical x [n, T] and y [m, T]."""
    pairs = zip(codes(space.cardinalities, x), codes(space.cardinalities, y), strict=True)
    decisions = jnp.stack([gp_math.squared_distances(a, b) for a, b in pairs])
    if space.features is None:
        return Distances(decisions, None)
    known = [space.features.of(archs) / (2 * len(space.features.names)) ** 0.5 for archs in (x, y)]
    return Distances(decisions, gp_math.squared_distances(*known))


def grid(space: Space) -> Component:
    """[G] components without other tasks, equally likely.

    Without features there is no `share`, so that searches of before there was one can go on.
    """
    number = len(codes(space.cardinalities, jnp.zeros((1, len(space.cardinalities)), jnp.int32)))
    shares = (0.0,) if space.features is None else (0.0, SHARE)
    points = np.array(list(itertools.product(range(number), shares, RATES, NOISES)))
    size, (code, share, rate, noise) = len(points), jnp.asarray(points, jnp.float32).T
    zeros = jnp.zeros(size, jnp.float32)
    known = None if space.features is None else share
    return Component(code.astype(jnp.int32), known, rate, noise, zeros, zeros - np.log(size))


def kernel(component: Component, squared: Distances) -> Array:
    """[n, m] correlations by the distances of n architectures from m."""
    distance = squared.decisions[component.code]
    if squared.features is not None and component.share is not None:
        distance = (1 - component.share) * distance + component.share * squared.features
    return jnp.exp(-component.rate * distance)
