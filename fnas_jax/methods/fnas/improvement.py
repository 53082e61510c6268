"""Which candidates improve most in expectation, by a mixture of Gaussian processes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from fnas_jax.core.rows import contains, first_of_each
from fnas_jax.core.types import Array
from fnas_jax.methods import gp_math
from fnas_jax.methods.fnas.grid import distances, kernel
from fnas_jax.methods.fnas.processes import (
    Conditioned,
    Context,
    Posterior,
    State,
    foreign_moments,
    posterior,
)

SHORT = 384  # candidates whose uncertainty is looked at


def log_improvement(state: State, found: Posterior) -> Array:
    """[m] log of the mixture's expected improvement of a reading on the best sample."""
    share = jax.nn.log_softmax(state.used.log_weight)
    deviation = jnp.sqrt(found.variance)
    each = gp_math.log_expected_improvement(found.mean, deviation, state.best)
    return jax.nn.logsumexp(each + share[:, None], axis=0)


def believe(ctx: Context, state: State, found: Posterior, archs: Array, i: Array) -> Posterior:
    """The posterior of `archs` [m, T] when number `i` [] of them was read as it is expected.

    The means stay, the variances shrink (GP-BUCB, Desautels et al., JMLR 2014).
    """
    squared = distances(ctx.space.cardinalities, archs[i][None], archs)

    def one(c: Conditioned, mean: Array, variance: Array, w: Array, v: Array) -> Array:
        component = jax.tree.map(lambda x: x[c.place], state.components)
        cross = kernel(component, squared)[0] - w[:, i] @ w - v[:, i] @ v
        unit = c.amplitude / c.std**2
        return variance - unit * cross**2 / (variance[i] / unit)

    shrunk = jax.vmap(one)(state.used, *found)
    least = jnp.min(found.variance, axis=1, keepdims=True) * 1e-3
    return found._replace(variance=jnp.maximum(shrunk, least))


def means(ctx: Context, state: State, archs: Array) -> Array:
    """[m] the mixture's mean score of canonical `archs` [m, T]: `posterior` without variances.

    Costs one product with kernels, so that whole spaces can be looked through.
    """
    cards = ctx.space.cardinalities
    own = distances(cards, state.archs, archs)
    between: tuple[Array, ...] = ()
    if state.foreign is not None:
        between = tuple(distances(cards, state.foreign.archs, x) for x in (archs, state.archs))

    def one(c: Conditioned) -> Array:
        component = jax.tree.map(lambda x: x[c.place], state.components)
        weights = solve_triangular(c.factor.T, c.solved, lower=False)
        weights = jnp.where(state.mask, weights, 0.0)
        mean = weights @ kernel(component, own)
        if state.foreign is not None:
            first = len(state.components.rho) - len(state.foreign.amplitude)
            q = jnp.maximum(c.place - first, 0)
            _, known = foreign_moments(state, component, q, between[1])
            whitened = state.foreign.solved[q] - known @ weights
            of_others = solve_triangular(state.foreign.factor[q].T, whitened, lower=False)
            mean += component.rho * (of_others @ kernel(component, between[0]))
        return (mean - c.shift) / c.std

    return jax.nn.softmax(state.used.log_weight) @ jax.vmap(one)(state.used)


def pick(
    ctx: Context, state: State, key: Array, archs: Array, new: Array, v: int, elite: int
) -> tuple[Array, Array]:
    """Places of the `v` of `archs` [m, T] that are trained, of those `new` [m], and of the `elite`.

    Of many, those of the highest mean and as many others at random are looked at. The first
    improves most in expectation; each further one does once those before are believed.
    """
    near = shortlist(key, means(ctx, state, archs), new)
    archs, new = archs[near], new[near] & first_of_each(archs[near])
    found = posterior(ctx, state, archs)
    value = jnp.where(new, log_improvement(state, found), -jnp.inf)
    _, best = jax.lax.top_k(value, elite)

    def step(now: tuple[Posterior, Array], _: None) -> tuple[tuple[Posterior, Array], Array]:
        found, open_ = now
        i = jnp.argmax(jnp.where(open_, log_improvement(state, found), -jnp.inf))
        found = believe(ctx, state, found, archs, i) if v > 1 else found
        return (found, open_ & ~contains(archs[i][None], archs)), i

    _, picks = jax.lax.scan(step, (found, new), None, length=v)
    return near[picks], near[best]


def shortlist(key: Array, mean: Array, new: Array) -> Array:
    """Places of the `SHORT` of m candidates that are looked at more closely; all of fewer."""
    if len(mean) <= SHORT:
        return jnp.arange(len(mean))
    _, best = jax.lax.top_k(jnp.where(new, mean, -jnp.inf), SHORT // 2)
    chance = jnp.where(new, jax.random.uniform(key, (len(mean),)), -1.0).at[best].set(-2.0)
    _, others = jax.lax.top_k(chance, SHORT - SHORT // 2)
    return jnp.concatenate([best, others])
