"""The meta-learnt process, conditioned on the rows it was learnt from: the prior of a new task.

A new task's function has, before any of its architectures is known,

    mean(x) = K(x, H) (K(H, H) + noise)^-1 y_H
    cov(x, x') = k(x, x') - K(x, H) (K(H, H) + noise)^-1 K(H, x')

with H the rows of the source tasks, so `mean` is what the surrogate predicts without any
evaluation (zero-shot). Without source tasks both are 0: everything is left to the task's own part
(`gp_mixture.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods import gp_math
from fnas_jax.methods.tnas import losses, networks
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.networks import Weights
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.spaces.base import Space

CHUNK = 2048  # architectures whose covariances with H are in memory at once


class Surrogate(NamedTuple):
    """H rows of source tasks; none where there are no such tasks."""

    weights: Weights
    code: Array  # [K] phi of the new task
    xi: Array  # [H, D]
    task: Array  # [H] int32
    mask: Array  # [H] bool
    white: Array  # [H, H] inverse Cholesky factor of K(H, H) + noise
    alpha: Array  # [H] (K(H, H) + noise)^-1 y_H


class Conditioned(NamedTuple):
    """M architectures of the new task, given the source rows: moments of their function values."""

    xi: Array  # [M, D]
    mean: Array  # [M] zero-shot
    variance: Array  # [M]
    whitened_cross: Array  # [H, M] K(H, x), whitened


def empty(s: Surrogate, size: int) -> Conditioned:
    """Zeros, for `size` architectures."""
    nothing = jnp.zeros(size)
    xi, whitened_cross = jnp.zeros((size, s.xi.shape[1])), jnp.zeros((len(s.xi), size))
    return Conditioned(xi, nothing, nothing, whitened_cross)


def condition(
    space: Space, config: Tnas, weights: Weights, support: SourceTasks | None
) -> Surrogate:
    """The surrogate of `weights` given the rows of `support`."""
    if support is None:
        codes = jnp.zeros((1, config.code))
        nothing = jnp.zeros((1, len(space.cardinalities)), jnp.int32)
        size = jax.eval_shape(
            lambda: networks.embed(config, weights, codes[:1], networks.inputs(space, nothing))
        ).shape[-1]
        none, no_task = jnp.zeros(0), jnp.zeros(0, jnp.int32)
        return Surrogate(
            weights, codes[-1], jnp.zeros((0, size)), no_task, none > 0, jnp.zeros((0, 0)), none
        )
    codes = networks.task_codes(config, weights, support.sample, support.vectors)
    tasks, rows = support.mask.shape
    index = jnp.divmod(jnp.arange(tasks * rows), rows)
    known = losses.embed_rows(space, config, weights, support, *index)
    known = known._replace(mask=support.mask.reshape(-1))
    white = losses.whitening(weights.hyper, known)
    alpha = gp_math.weights(white, jnp.where(known.mask, known.score, 0.0))
    return Surrogate(weights, codes[-1], known.xi, known.task, known.mask, white, alpha)


def cross(s: Surrogate, xi: Array) -> Array:
    """[H, M] K(H, x) of architectures xi [M, D] of the new task."""
    new = jnp.full(len(xi), -1, jnp.int32)
    covariances = losses.kernel(s.weights.hyper, s.xi, s.task, xi, new)
    return jnp.where(s.mask[:, None], covariances, 0.0)


def conditioned(space: Space, config: Tnas, s: Surrogate, archs: Array) -> Conditioned:
    """What the surrogate predicts of canonical `archs` [M, T]."""
    xi = networks.embed_archs(config, s.weights, s.code, space, archs)
    if len(s.xi) == 0:
        return empty(s, len(xi))._replace(xi=xi)
    rows = min(CHUNK, len(xi))

    def chunk(some: Array) -> tuple[Array, Array]:
        covariance = cross(s, some)
        return s.alpha @ covariance, s.white @ covariance

    padded = jnp.pad(xi, ((0, -len(xi) % rows), (0, 0)))
    mean, whitened = jax.lax.map(chunk, padded.reshape(-1, rows, xi.shape[1]))
    whitened = whitened.swapaxes(0, 1).reshape(len(s.xi), -1)[:, : len(xi)]
    variance = jnp.exp(s.weights.hyper.signal) - (whitened**2).sum(axis=0)
    return Conditioned(xi, mean.reshape(-1)[: len(xi)], jnp.maximum(variance, 1e-6), whitened)


def covariance(s: Surrogate, x: Conditioned, y: Conditioned) -> Array:
    """[n, m] cov of the new task's function at the n architectures of x and the m of y."""
    if len(s.xi) == 0:
        return jnp.zeros((len(x.xi), len(y.xi)))
    p = s.weights.hyper
    squared = gp_math.squared_distances(x.xi, y.xi)
    prior = jnp.exp(p.signal) * gp_math.matern52(squared, jnp.exp(p.lengthscale))
    return prior - x.whitened_cross.T @ y.whitened_cross
