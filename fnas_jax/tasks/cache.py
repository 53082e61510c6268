"""What an evaluator that trains has measured: a fixed table, so that nothing is trained twice."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.rows import first_equal
from fnas_jax.core.types import Array, Metrics


class EvaluationCache(NamedTuple):
    """The first `size` of M places are taken, one a network, in order of evaluation."""

    canonical: Array  # [M, T] int32
    metrics: Metrics  # of [M]; `fresh` and `seconds` say how it was the first time
    size: Array  # [] int32, how many places are taken


class Lookup(NamedTuple):
    """Where each of N architectures stands; at most one of `new` per network."""

    known: Array  # [N] bool: in the cache
    new: Array  # [N] bool: to be evaluated now
    source: Array  # [N] int32: place in the cache after `remember`, -1 where nothing is known


def empty(capacity: int, decisions: int, stops: bool = False) -> EvaluationCache:
    """A cache of `capacity` places for architectures of `decisions` decisions.

    `stops`: it remembers `Metrics.stopped`, too.
    """
    zeros = jnp.zeros(capacity, jnp.float32)
    never = jnp.zeros(capacity, bool)
    metrics = Metrics(zeros, zeros, zeros, zeros, zeros, zeros, ok=never, fresh=never)
    if stops:
        metrics = metrics._replace(stopped=jnp.zeros(capacity, jnp.int32))
    return EvaluationCache(jnp.full((capacity, decisions), -1, jnp.int32), metrics, jnp.int32(0))


def look_up(cached: EvaluationCache, canonical: Array, mask: Array) -> Lookup:
    """Which of the architectures `canonical` [N, T] under `mask` [N] are known, and which are new.

    Of equal new ones the first is to be evaluated; the others will find it in the cache. Where
    the cache is full, what does not fit is neither known nor new.
    """
    chex.assert_rank([canonical, mask], [2, 1])
    n = canonical.shape[0]
    stored = jnp.all(canonical[:, None] == cached.canonical, axis=-1)
    known = mask & stored.any(axis=1)
    first = first_equal(canonical, mask)
    new = mask & ~known & (first == jnp.arange(n))
    place = cached.size + jnp.cumsum(new) - 1
    new &= place < cached.canonical.shape[0]
    place = jnp.where(new, place, -1)[first]
    source = jnp.where(known, stored.argmax(axis=1), jnp.where(mask, place, -1))
    return Lookup(known, new, source.astype(jnp.int32))


def remember(
    cached: EvaluationCache, lookup: Lookup, canonical: Array, measured: Metrics
) -> EvaluationCache:
    """The cache with the `measured` metrics of the new ones of `lookup` in their places."""
    capacity = cached.canonical.shape[0]
    place = jnp.where(lookup.new, lookup.source, capacity)  # the rest falls outside: dropped
    return EvaluationCache(
        canonical=cached.canonical.at[place].set(canonical, mode="drop"),
        metrics=jax.tree.map(
            lambda old, value: old.at[place].set(value, mode="drop"), cached.metrics, measured
        ),
        size=cached.size + lookup.new.sum(dtype=jnp.int32),
    )


def recall(cached: EvaluationCache, lookup: Lookup) -> Metrics:
    """Metrics of the N architectures of `lookup`: first readings, `fresh` only where new.

    What was remembered without being `fresh` was never judged, and is not now.
    """
    found = lookup.source >= 0
    stored = jax.tree.map(lambda values: values[lookup.source], cached.metrics)
    stopped = None if stored.stopped is None else jnp.where(found, stored.stopped, 0)
    return Metrics(
        accuracy=jnp.where(found, stored.accuracy, 0.0),
        reward=jnp.where(found, stored.reward, 0.0),
        latency_ms=jnp.where(found, stored.latency_ms, np.nan),
        mflops=jnp.where(found, stored.mflops, np.nan),
        params_m=jnp.where(found, stored.params_m, np.nan),
        seconds=jnp.where(lookup.new, stored.seconds, 0.0),
        ok=found & stored.ok,
        fresh=lookup.new & stored.fresh,
        stopped=stopped,
    )


def best_first(cached: EvaluationCache) -> tuple[np.ndarray, np.ndarray]:
    """([M] places by falling reward, [M] bool whether one holds a child that gave a result).

    Those that do come first; of equal rewards, the one that was evaluated first.
    """
    known = jax.device_get(cached.metrics)
    good = known.ok & np.isfinite(known.reward)
    order = np.argsort(np.where(good, -known.reward, np.inf), kind="stable")
    return order, good[order]
