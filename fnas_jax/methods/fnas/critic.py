"""The critic: an ensemble of E MLPs that predicts scores of architectures and how sure it is.

A member is an MLP theta of two hidden layers (GELU, H units) on the centred one-hot decisions and
a task embedding. It predicts

    f(x) = s mlp(x; theta) + p(x)

with s a fixed scale and p its random prior function (Osband et al. 2018, arXiv 1806.03335): a
second, fixed random MLP. The initial theta_0 has pairs of units that cancel, so its mlp is 0, and
priors are centred over the members (both ours): members disagree where there is no data, and their
mean is not biased. A member minimises, on its own bootstrap weights w,

    sum_i w_i (y_i - f(x_i))^2 + noise |theta - anchor|^2

(the anchor is theta_0, or what other tasks taught it) by Gauss-Newton steps over all its weights.
With n samples, a step is one n x n system of the member's tangent kernel J J' (ours), without a
learning rate. V is the mean over members, sigma their deviation.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import poisson

from fnas_jax.core.types import Array, Features, UserError
from fnas_jax.methods import gp_math
from fnas_jax.methods.beside import beside
from fnas_jax.methods.fnas.config import Uac
from fnas_jax.methods.whitening import inverse_factor
from fnas_jax.spaces.base import one_hot


class Mlp(NamedTuple):
    """Weights, standard normal at the start; every use is scaled by its fan-in. F inputs."""

    w1: Array  # [F, H]
    b1: Array  # [H]
    w2: Array  # [H, H]
    b2: Array  # [H]
    w3: Array  # [H]
    b3: Array  # []


class Ensemble(NamedTuple):
    """E members; every array has a leading axis E."""

    mlp: Mlp  # theta
    start: Mlp  # theta_0, for when the anchor is given up
    anchor: Mlp
    prior: Mlp  # of p
    middle: Array  # [E] mean of that MLP over the space
    std: Array  # [E] its standard deviation over the space
    scale: Array  # [E] s, which gives the tangent kernel a mean variance of 1


class Critic(NamedTuple):
    """What a critic is, apart from its weights. Its inputs `x` [n, F] come from `encode`."""

    cardinalities: tuple[int, ...]  # T entries
    config: Uac
    embedding: int  # Z numbers that describe a task
    features: Features | None = None  # `Space.features`

    @property
    def inputs(self) -> int:
        """F."""
        known = 0 if self.features is None else len(self.features.names)
        return sum(self.cardinalities) + known + self.embedding


BIAS = 0.2  # deviation of the biases


def make(
    cardinalities: tuple[int, ...],
    config: Uac,
    embedding: int = 0,
    features: Features | None = None,
) -> Critic:
    """A critic of architectures on tasks that are described by `embedding` = Z numbers.

    `features`: those of the space, which it looks at, too.

    Raises UserError for an odd number of hidden units.
    """
    if config.hidden % 2:
        raise UserError(f"a critic's layers have {config.hidden} units; the number must be even")
    return Critic(cardinalities, config, embedding, features)


def encode(critic: Critic, archs: Array, embedding: Array) -> Array:
    """Canonical `archs` [n, T] and the task's `embedding` [n, Z] or [Z] -> x [n, F]."""
    cards = np.repeat(critic.cardinalities, critic.cardinalities)
    # Decisions with one choice say nothing: their code is 0.
    decisions = len(critic.cardinalities)
    unit = np.sqrt(1 / np.maximum(decisions * (1 - 1 / cards), 1e-9)) * (cards > 1)
    code = critic.config.gain * (one_hot(critic.cardinalities, archs) - 1 / cards) * unit
    if critic.features is not None:
        code = beside(code, critic.features.of(archs), 2 * critic.config.gain**2)
    shape = (archs.shape[0], critic.embedding)
    return jnp.concatenate([code, jnp.broadcast_to(embedding, shape)], 1)


def _activate(a: Array) -> Array:
    return 1.5 * jax.nn.gelu(a)  # keeps the variance


def _slope(a: Array) -> tuple[Array, Array]:
    """The activation and its derivative."""
    return jax.jvp(_activate, (a,), (jnp.ones_like(a),))


def mlp(p: Mlp, x: Array) -> Array:
    """[n, F] -> [n] the network's output."""
    h = p.w3.shape[-1]
    hidden = _activate(x @ p.w1 + BIAS * p.b1)
    hidden = _activate(hidden @ p.w2 / h**0.5 + BIAS * p.b2)
    return hidden @ p.w3 / h**0.5 + BIAS * p.b3


def tangent_kernel(p: Mlp, x: Array) -> Array:
    """[n, n]: J J', the sum over layers of (gradients' products) x (inputs' products)."""
    h = p.w3.shape[-1]
    h1, slope1 = _slope(x @ p.w1 + BIAS * p.b1)
    h2, slope2 = _slope(h1 @ p.w2 / h**0.5 + BIAS * p.b2)
    d2 = slope2 * p.w3 / h**0.5
    d1 = slope1 * (d2 @ p.w2.T) / h**0.5
    bias = BIAS**2
    first = (d1 @ d1.T) * (x @ x.T + bias)
    second = (d2 @ d2.T) * (h1 @ h1.T / h + bias)
    return first + second + h2 @ h2.T / h + bias


def _normal(critic: Critic, key: Array) -> Mlp:
    """Weights of a member, standard normal."""
    f, h = critic.inputs, critic.config.hidden
    shapes = ((f, h), (h,), (h, h), (h,), (h,), ())
    sizes = [int(np.prod(shape)) for shape in shapes]
    # One drawing for all: every separate one takes long to compile.
    numbers = jax.random.normal(key, (sum(sizes),))
    parts = jnp.split(numbers, np.cumsum(sizes)[:-1])
    return Mlp(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))


def _cancelling(p: Mlp) -> Mlp:
    """`p` with the second half of the last hidden layer a copy of the first, counted off."""
    half = p.w3.shape[-1] // 2
    w2 = jnp.concatenate([p.w2[:, :half]] * 2, axis=1)
    b2, w3 = jnp.concatenate([p.b2[:half]] * 2), jnp.concatenate([p.w3[:half], -p.w3[:half]])
    return p._replace(w2=w2, b2=b2, w3=w3, b3=jnp.zeros_like(p.b3))


def init(critic: Critic, key: Array) -> Ensemble:
    """An ensemble that predicts nothing but its priors."""
    key_mlp, key_archs = jax.random.split(key)
    members, cards = critic.config.members, critic.cardinalities
    pair = jax.vmap(lambda k: _normal(critic, k))(jax.random.split(key_mlp, 2 * members))
    start = jax.vmap(_cancelling)(jax.tree.map(lambda a: a[:members], pair))
    prior = jax.tree.map(lambda a: a[members:], pair)
    some = jax.random.uniform(key_archs, (128, len(cards))) * jnp.asarray(cards)
    x = encode(critic, some.astype(jnp.int32), jnp.zeros(critic.embedding))
    variance = jax.vmap(lambda p: jnp.trace(tangent_kernel(p, x)) / len(x))(start)
    raw = jax.vmap(mlp, (0, None))(prior, x)
    std = raw.std(axis=1) + 1e-6
    return Ensemble(start, start, start, prior, raw.mean(axis=1), std, 1 / jnp.sqrt(variance))


def bootstrap(critic: Critic, key: Array, n: int) -> Array:
    """[E, n] weights of n samples: Poisson(1), or ones without `uac.bootstrap`."""
    if not critic.config.bootstrap:
        return jnp.ones((critic.config.members, n), jnp.float32)
    # By inversion: JAX's Poisson sampler is a loop that takes long to compile.
    below = jnp.asarray(poisson.cdf(np.arange(10), 1), jnp.float32)
    uniform = jax.random.uniform(key, (critic.config.members, n))
    return jnp.sum(uniform[..., None] >= below, axis=-1).astype(jnp.float32)


def _priors(critic: Critic, ensemble: Ensemble, x: Array) -> Array:
    """[E, n] p(x), of mean 0 over the members (so a single one has none)."""
    members = critic.config.members
    if members == 1:
        return jnp.zeros((1, len(x)))
    raw = jax.vmap(mlp, (0, None))(ensemble.prior, x) - ensemble.middle[:, None]
    raw /= ensemble.std[:, None]
    # Without the mean over members; the factor restores the variance that this takes away.
    kept = (1 - 1 / members) ** 0.5
    return critic.config.prior / kept * (raw - raw.mean(axis=0))


def _fit_member(
    member: Ensemble, x: Array, y: Array, w: Array, rank: float, noise: float | Array
) -> Mlp:
    """One Gauss-Newton step: the minimum of the loss with the mlp linearised at theta."""
    p, scale = member.mlp, member.scale
    value, pull = jax.vjp(lambda q: mlp(q, x), p)
    moved = jax.tree.map(jnp.subtract, p, member.anchor)
    already = jax.jvp(lambda q: mlp(q, x), (p,), (moved,))[1]
    error = y - scale * value + scale * already
    gram = scale**2 * tangent_kernel(p, x)
    # The precision of the errors, pointwise and of their differences, is root root':
    # (1 + rank) diag(w) - rank w w' / sum(w).
    unit, spread = jnp.sqrt(w / jnp.maximum(w.sum(), 1e-6)), (1 + rank) ** 0.5
    root = spread * jnp.eye(len(w)) + (1 - spread) * jnp.outer(unit, unit)
    root *= jnp.sqrt(w)[:, None]
    white = inverse_factor(root.T @ gram @ root + noise * jnp.eye(len(w)))
    alpha = root @ gp_math.weights(white, root.T @ error)
    (step,) = pull(scale * alpha)
    return jax.tree.map(jnp.add, member.anchor, step)


def fit(
    critic: Critic,
    ensemble: Ensemble,
    x: Array,
    targets: Array,
    weights: Array,
    rank: float = 0.0,
    noise: float | Array | None = None,
    steps: int | None = None,
) -> Ensemble:
    """The ensemble fitted to `targets` [n] at x [n, F] with bootstrap `weights` [E, n].

    `rank` weighs the squared errors of the differences between samples (as RankRLS, Pahikkala et
    al., Machine Learning 2009), which a shift of all targets leaves alone; `noise` and `steps`
    stand for the configuration's where they are given.
    """
    chex.assert_shape(x, (len(targets), critic.inputs))
    chex.assert_shape(weights, (critic.config.members, len(targets)))
    noise = critic.config.noise if noise is None else noise
    y = targets - _priors(critic, ensemble, x)

    def step(ensemble: Ensemble, _: None) -> tuple[Ensemble, None]:
        fitted = jax.vmap(lambda m, y, w: _fit_member(m, x, y, w, rank, noise))(
            ensemble, y, weights
        )
        return ensemble._replace(mlp=fitted), None

    length = critic.config.steps if steps is None else steps
    return jax.lax.scan(step, ensemble, None, length=length)[0]


def learnt(ensemble: Ensemble, x: Array) -> Array:
    """[E, n] what the members predict of x [n, F] without their priors, whose mean is 0."""
    return ensemble.scale[:, None] * jax.vmap(mlp, (0, None))(ensemble.mlp, x)


def predict(critic: Critic, ensemble: Ensemble, x: Array) -> Array:
    """[E, n] f(x) of x [n, F]."""
    return learnt(ensemble, x) + _priors(critic, ensemble, x)
