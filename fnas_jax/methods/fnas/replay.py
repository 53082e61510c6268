"""The architecture experience buffer: a ring of trained samples, and how PPO reuses them.

A sample that policy mu proposed stands for the present policy pi when weighted by the truncated
importance ratio min(c, pi(a) / mu(a)) (as in V-trace, arXiv 1802.01561).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods.fnas.config import Aeb
from fnas_jax.methods.rl import ppo

ELITE = 8  # parents of candidates: so many trained ones, and so many predicted ones


class Buffer(NamedTuple):
    """C places, filled in turn; the oldest sample gives way."""

    archs: Array  # [C, T] int32 as sampled
    canonical: Array  # [C, T] int32; -1 in free places
    reward: Array  # [C] float32 as measured
    log_mu: Array  # [C] float32, nats: of what proposed it
    iteration: Array  # [C] int32 in which it was trained
    error: Array  # [C] float32 |score - V| before it was learnt from; NaN: V was unknown
    source_prediction: Array  # [C] float32 score by knowledge of other tasks; 0 without
    added: Array  # [] int32 samples ever added


def empty(capacity: int, decisions: int) -> Buffer:
    """A buffer of `capacity` places."""
    blank = jnp.full((capacity, decisions), -1, jnp.int32)
    zeros = jnp.zeros(capacity, jnp.float32)
    age = jnp.zeros(capacity, jnp.int32)
    return Buffer(blank, blank, zeros, zeros, age, jnp.full(capacity, jnp.nan), zeros, jnp.int32(0))


def filled(buffer: Buffer) -> Array:
    """[C] bool: places that hold a sample."""
    return jnp.arange(buffer.reward.shape[0]) < buffer.added


def add(buffer: Buffer, new: Buffer, mask: Array) -> Buffer:
    """The buffer with the masked rows of `new` (`added` ignored), at most C of them."""
    capacity = buffer.reward.shape[0]
    slot = jnp.where(mask, (buffer.added + jnp.cumsum(mask) - 1) % capacity, capacity)
    placed = {
        name: getattr(buffer, name).at[slot].set(getattr(new, name), mode="drop")
        for name in Buffer._fields
        if name != "added"
    }
    return Buffer(**placed, added=buffer.added + mask.sum(dtype=jnp.int32))


def draw(buffer: Buffer, key: Array, n: int, recency: float) -> tuple[Array, Array]:
    """Places [n] int32 without replacement and whether each holds a sample, [n] bool.

    The newest sample is e^recency times as likely as the oldest; 0 draws uniformly.
    """
    capacity = buffer.reward.shape[0]
    mask = filled(buffer)
    age = (buffer.added - 1 - jnp.arange(capacity)) % capacity
    log_weight = -recency * age / jnp.maximum(jnp.minimum(buffer.added, capacity), 1)
    # The largest sums of log weight and Gumbel noise are a weighted sample without replacement.
    noisy = jnp.where(mask, log_weight + jax.random.gumbel(key, (capacity,)), -jnp.inf)
    _, places = jax.lax.top_k(noisy, min(n, capacity))
    places = jnp.pad(places, (0, n - len(places)))
    return places, mask[places] & (jnp.arange(n) < capacity)


def log_selection(level: Array, n: int) -> Array:
    """[m] float32 log mu - log pi, in nats, of m draws of which the n of lowest `level` are kept.

    A draw of level l is kept with the probability q(l) = (n - draws below l) / (draws of l), cut to
    0..1, and n / m of all draws are: mu(a) = pi(a) q(l(a)) / (n / m). Where all levels are equal,
    that is pi.
    """
    below = (level[None] < level[:, None]).sum(axis=1)
    equal = (level[None] == level[:, None]).sum(axis=1)
    kept = jnp.clip((n - below) / equal, 0.0, 1.0)
    return jnp.log(kept) - jnp.log(n / len(level))


def log_mixture(log_pi: Array, acquired: Array, sampled: int) -> Array:
    """[n] float32 log mu, in nats, of a batch in which the policy drew `sampled` and others are
    `acquired` [n] bool without chance.

    The balance heuristic of multiple importance sampling (Veach & Guibas, SIGGRAPH 1995), counted
    per drawn sample: pi + 1 / sampled for what was acquired, pi for the rest. Acquired samples so
    weigh little as long as the policy would hardly have drawn them.
    """
    return jnp.where(acquired, jnp.logaddexp(log_pi, -jnp.log(float(max(sampled, 1)))), log_pi)


def importance(log_pi: Array, log_mu: Array, truncate: float) -> Array:
    """[n] float32: min(truncate, pi / mu), from logarithms [n] in nats."""
    return jnp.exp(jnp.minimum(log_pi - log_mu, jnp.log(truncate)))


def usable(ratio: Array, age: Array, min_ratio: float, max_age: int) -> Array:
    """[n] bool: samples neither too improbable under the policy nor too old (in iterations)."""
    return (ratio >= min_ratio) & (age <= max_age)


def batch(
    config: Aeb,
    key: Array,
    buffer: Buffer,
    iteration: Array,
    n: int,
    log_prob: Callable[[Array], Array],
) -> ppo.Batch:
    """N samples of the buffer, weighted for the policy with `log_prob` (archs -> [n], nats)."""
    places, filled = draw(buffer, key, n, config.recency)
    archs = jnp.maximum(buffer.archs[places], 0)
    log_pi = log_prob(archs)
    ratio = importance(log_pi, buffer.log_mu[places], config.truncate)
    age = iteration - buffer.iteration[places]
    used = filled & usable(ratio, age, config.min_ratio, config.max_age)
    weight, drawn = jnp.where(used, ratio, 0.0), jnp.zeros(n, bool)
    return ppo.make_batch(archs, log_pi, buffer.reward[places], weight, drawn)
