"""The deep-kernel Gaussian process over (task, architecture) pairs, and what its weights minimise.

    k((q, x), (q', x')) = s^2 Matern52(|xi - xi'| / l) (1 if q = q' else rho)

The factor rho is ours: what tasks without images have in common is learnt from pairs of tasks, or
stays at its prior where there is one task only.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods import gp_math
from fnas_jax.methods.tnas import networks
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.networks import Hyper, Weights
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.spaces.base import Space

# Deviations of the log-normal priors about `networks.start_hyper`, and of the log-odds of rho.
PRIOR = Hyper(lengthscale=0.5, signal=0.5, noise=0.7, share=1.0, gate=jnp.inf)  # type: ignore[arg-type]


class Rows(NamedTuple):
    """B rows of the source tasks as the process sees them."""

    xi: Array  # [B, D]
    task: Array  # [B] int32
    score: Array  # [B] float32, standardised within the task
    mask: Array  # [B] bool


def embed_rows(
    space: Space, config: Tnas, w: Weights, source: SourceTasks, task: Array, row: Array
) -> Rows:
    """Rows at (task [B], row [B]) of the source tasks, embedded by w; none masked out."""
    codes = networks.task_codes(config, w, source.sample, source.vectors)
    xi = networks.embed(config, w, codes[task], networks.inputs(space, source.archs[task, row]))
    return Rows(xi, task, source.scores[task, row], jnp.ones(len(task), bool))


def kernel(p: Hyper, x: Array, task_x: Array, y: Array, task_y: Array) -> Array:
    """[n, m] covariances of x [n, D] on tasks [n] and y [m, D] on tasks [m]."""
    share = jnp.where(task_x[:, None] == task_y, 1.0, jax.nn.sigmoid(p.share))
    squared = gp_math.squared_distances(x, y)
    return jnp.exp(p.signal) * share * gp_math.matern52(squared, jnp.exp(p.lengthscale))


def covariance(p: Hyper, rows: Rows) -> Array:
    """[B, B] of the rows' kernel and noise; that of the identity in masked-out places."""
    among = kernel(p, rows.xi, rows.task, rows.xi, rows.task)
    return gp_math.masked(among, jnp.exp(p.noise), rows.mask)


def whitening(p: Hyper, rows: Rows) -> Array:
    """[B, B] the inverse Cholesky factor of `covariance`."""
    return gp_math.whitening(covariance(p, rows))


def log_prior(p: Hyper, start: Hyper) -> Array:
    """[] nats, up to a constant, of the hyper-parameters about those of the start."""
    terms = jax.tree.map(lambda x, m, s: -0.5 * ((x - m) / s) ** 2, p, start, PRIOR)
    return sum(terms, jnp.float32(0))


def negative_log_likelihood(p: Hyper, rows: Rows) -> Array:
    """Nats of all rows, y' K^-1 y / 2 + log |K| / 2 + const (Shala et al. 2023, equation 3)."""
    scores = jnp.where(rows.mask, rows.score, 0.0)
    count = rows.mask.sum().astype(scores.dtype)
    return -gp_math.log_density(covariance(p, rows), scores, count)


def predict(p: Hyper, known: Rows, xi: Array, task: Array) -> gp_math.Posterior:
    """The posterior given the `known` rows at xi [M, D] on tasks [M]."""
    cross = jnp.where(known.mask[:, None], kernel(p, known.xi, known.task, xi, task), 0.0)
    prior = jnp.full(len(xi), jnp.exp(p.signal))
    scores = jnp.where(known.mask, known.score, 0.0)
    return gp_math.posterior(whitening(p, known), scores, cross, prior)
