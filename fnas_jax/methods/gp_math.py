"""Gaussian processes and their acquisition functions, shared by all methods that use them.

Everything computes in the precision of its inputs: float32 inside searches, where noise and an
adaptive jitter keep the factorisation sound; float64 where a caller enables it. Symbols: n
observed points, M candidates, D inputs of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jax.scipy.stats import norm

from fnas_jax.core.types import Array
from fnas_jax.methods.whitening import inverse_factor


class Posterior(NamedTuple):
    """Of the latent, noise-free function at M candidates."""

    mean: Array  # [M]
    variance: Array  # [M], above 0


def squared_distances(x: Array, y: Array) -> Array:
    """[n, D], [m, D] -> [n, m], never negative.

    In full precision: with the short products of accelerators, this difference would cancel.
    """
    products = jnp.matmul(x, y.T, precision="highest")
    return jnp.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * products, 0.0)


def matern52(squared: Array, lengthscale: Array | float = 1.0) -> Array:
    """(1 + r + r^2 / 3) exp(-r) with r = sqrt(5) distance / lengthscale.

    Rasmussen & Williams 2006, equation 4.17; `squared` distances of any shape.
    """
    r = jnp.sqrt(5 * jnp.maximum(squared, 1e-12)) / lengthscale
    return (1 + r + r**2 / 3) * jnp.exp(-r)


def whitening(matrix: Array) -> Array:
    """L^-1 of the lower Cholesky factor L of [n, n], with the least jitter that gives one.

    Jitter is 0, then 1e-5, 1e-3 or 0.1 (float32) or 1e-10, 1e-6 or 1e-2 (float64) of the mean
    diagonal. All are tried in turn: a loop that ends early would end late for all under `vmap`.
    """
    size = matrix.shape[-1]
    levels = (1e-5, 1e-3, 0.1) if matrix.dtype == jnp.float32 else (1e-10, 1e-6, 1e-2)
    unit = jnp.trace(matrix) / max(size, 1)
    eye = jnp.eye(size, dtype=matrix.dtype)
    found = inverse_factor(matrix)
    for level in levels:
        found = jnp.where(
            jnp.isfinite(found).all(), found, inverse_factor(matrix + level * unit * eye)
        )
    return found


def posterior(white: Array, targets: Array, cross: Array, prior: Array) -> Posterior:
    """The mean K* K^-1 y and the variance diag(K** - K* K^-1 K*').

    Rasmussen & Williams 2006, equations 2.25 and 2.26.

    `white` [n, n] whitens K (noise included), `targets` [n] less the prior mean, `cross` [n, M],
    `prior` [M] variances of the candidates.
    """
    whitened = white @ cross
    variance = prior - jnp.sum(whitened**2, axis=0)
    return Posterior((white @ targets) @ whitened, jnp.maximum(variance, 1e-9))


def weights(white: Array, targets: Array) -> Array:
    """K^-1 y [n] of K that `white` [n, n] whitens."""
    return (white @ targets) @ white


@jax.custom_vjp
def log_density(matrix: Array, targets: Array, count: Array | float) -> Array:
    """The log of N(y; 0, K) in nats, of targets y [n] with K = `matrix` [n, n].

    -y' K^-1 y / 2 - log |K| / 2 - count log(2 pi) / 2, with `count` the number of targets that are
    not masked out: these are 0, and their rows of K those of the identity (`masked`). Slopes are
    those of Rasmussen & Williams 2006, equation 5.9, without differentiating the factorisation.
    """
    return _density(matrix, targets, count)[0]


def _density(matrix: Array, targets: Array, count: Array | float) -> tuple[Array, tuple]:
    white = whitening(matrix)
    alpha = weights(white, targets)
    root = jnp.log(jnp.diagonal(white)).sum()
    value = -0.5 * targets @ alpha + root - 0.5 * count * np.log(2 * np.pi)
    return value, (white, alpha, count)


def _slopes(kept: tuple, g: Array) -> tuple[Array, Array, Array]:
    white, alpha, count = kept
    slope = 0.5 * g * (jnp.outer(alpha, alpha) - white.T @ white)
    return slope, -g * alpha, jnp.zeros_like(count)


log_density.defvjp(_density, _slopes)


def masked(kernel: Array, noise: Array | float, mask: Array) -> Array:
    """`kernel` [n, n] plus noise on the diagonal; rows and columns of free places are unity."""
    both = mask[:, None] & mask
    return jnp.where(both, kernel, 0.0) + jnp.diag(jnp.where(mask, noise, 1.0))


def log_expected_improvement(mean: Array, deviation: Array, best: Array) -> Array:
    """The log of E[max(f - best, 0)] with f ~ N(mean, deviation^2), by element; finite everywhere.

    Ament et al., NeurIPS 2023 (arXiv 2310.20708), equation 9: with z = (mean - best) / deviation,
    log(pdf(z) + z cdf(z)) is taken as it is above -1, by the Mills ratio below, and by that ratio's
    asymptotic series where it would cancel.
    """
    z = (mean - best) / deviation
    far = -7.0 if z.dtype == jnp.float32 else -40.0
    plain = jnp.maximum(z, -1.0)
    near = jnp.log(norm.pdf(plain) + plain * norm.cdf(plain))
    middle = jnp.clip(z, far, -1.0)
    mills = jnp.exp(log_ndtr(middle) - norm.logpdf(middle))
    ratio = norm.logpdf(middle) + jnp.log1p(middle * mills)
    tail = jnp.minimum(z, far)
    u = 1 / tail**2
    series = 1 - 3 * u * (1 - 5 * u * (1 - 7 * u * (1 - 9 * u)))
    beyond = norm.logpdf(tail) + jnp.log(u * series)
    return jnp.log(deviation) + jnp.where(z > -1, near, jnp.where(z > far, ratio, beyond))


def upper_bound(mean: Array, deviation: Array, beta: float) -> Array:
    """The mean plus beta deviations (Srinivas et al., ICML 2010)."""
    return mean + beta * deviation


def minimise(
    loss: Callable[[Any], Array], start: Any, rate: float | Any, steps: int
) -> tuple[Any, Array]:
    """`steps` of Adam (beta 0.8, 0.95) on `loss` from the pytree `start`, at `rate`.

    `rate` is a number, or a pytree of numbers as `start`. Returns the end and its loss; a step
    whose gradient is not finite is not taken. For a few hyper-parameters and a few dozen steps.
    """
    rates = rate if not isinstance(rate, float) else jax.tree.map(lambda _: rate, start)
    chex.assert_trees_all_equal_structs(rates, start)
    zeros = jax.tree.map(jnp.zeros_like, start)

    def step(carry: tuple[Any, Any, Any], i: Array) -> tuple[tuple[Any, Any, Any], None]:
        now, first, second = carry
        slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), jax.grad(loss)(now))
        first = jax.tree.map(lambda m, g: 0.8 * m + 0.2 * g, first, slope)
        second = jax.tree.map(lambda v, g: 0.95 * v + 0.05 * g**2, second, slope)

        def move(x: Array, m: Array, v: Array, r: float) -> Array:
            unbiased = m / (1 - 0.8 ** (i + 1.0)), v / (1 - 0.95 ** (i + 1.0))
            return x - r * unbiased[0] / (jnp.sqrt(unbiased[1]) + 1e-6)

        return (jax.tree.map(move, now, first, second, rates), first, second), None

    (end, _, _), _ = jax.lax.scan(step, (start, zeros, zeros), jnp.arange(steps))
    return end, loss(end)
