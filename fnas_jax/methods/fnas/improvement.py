"""Which candidates improve most in expectation, by a mixture of Gaussian processes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import contains, first_of_each
from fnas_jax.core.types import Array
from fnas_jax.methods import gp_math
from fnas_jax.methods.fnas.grid import distances, kernel
from fnas_jax.methods.fnas.processes import (
    Conditioned,
    Context,
    Posterior,
    State,
    posterior,
    warm_place,
)

CHUNK = 2048  # candidates whose covariances are in memory at once
SHORT = 512  # candidates whose uncertainty is looked at


def log_improvement(state: State, found: Posterior) -> Array:
    """[m] log of the mixture's expected improvement of a reading on the best sample."""
    share = jax.nn.log_softmax(state.used.log_weight)
    deviation = jnp.sqrt(found.variance)
    each = gp_math.log_expected_improvement(found.mean, deviation, state.best)
    return jax.nn.logsumexp(each + share[:, None], axis=0)


def believe(
    ctx: Context, state: State, found: Posterior, archs: Array, i: Array, spare: Array
) -> Posterior:
    """The posterior of `archs` [m, T] when number `i` [] of them was read as it is expected.

    The means stay, the variances shrink (GP-BUCB, Desautels et al., JMLR 2014): one more row of
    an incremental factorisation, which takes the place `spare` [] of `own_cross`, of zeros so far.
    """
    squared = distances(ctx.space, archs[i][None], archs)

    def one(
        c: Conditioned, mean: Array, variance: Array, w: Array, v: Array
    ) -> tuple[Array, Array]:
        component = jax.tree.map(lambda x: x[c.place], state.components)
        unit = c.amplitude / c.std**2
        cross = kernel(component, squared)[0] - w[:, i] @ w - v[:, i] @ v
        row = cross / jnp.sqrt(variance[i] / unit)
        return variance - unit * row**2, v.at[spare].set(row)

    shrunk, own_cross = jax.vmap(one)(state.used, *found)
    least = jnp.min(found.variance, axis=1, keepdims=True) * 1e-3
    return found._replace(variance=jnp.maximum(shrunk, least), own_cross=own_cross)


def means(ctx: Context, state: State, archs: Array) -> Array:
    """[m] the mixture's mean score of canonical `archs` [m, T]: `posterior` without variances.

    Costs one product with kernels, chunk by chunk, so that whole spaces can be looked through.
    """

    def weights(c: Conditioned) -> tuple[Array, Array]:
        """Of own samples [R] and of other tasks' rows [H]."""
        own = jnp.where(state.mask, c.solved @ c.white, 0.0)
        if state.foreign is None:
            return own, jnp.zeros(0)
        q = warm_place(state, c.place)
        left = state.foreign.solved[q] - c.foreign_cross @ own
        return own, left @ state.foreign.white[q]

    of_own, of_others = jax.vmap(weights)(state.used)
    share = jax.nn.softmax(state.used.log_weight)

    def chunk(some: Array) -> Array:
        near = distances(ctx.space, state.archs, some)
        far = None if state.foreign is None else distances(ctx.space, state.foreign.archs, some)

        def one(c: Conditioned, own: Array, others: Array) -> Array:
            component = jax.tree.map(lambda x: x[c.place], state.components)
            mean = own @ kernel(component, near)
            if far is not None:
                mean += component.rho * (others @ kernel(component, far))
            return (mean - c.shift) / c.std

        return share @ jax.vmap(one)(state.used, of_own, of_others)

    rows = min(CHUNK, len(archs))
    padded = jnp.pad(archs, ((0, -len(archs) % rows), (0, 0)))
    found = jax.lax.map(chunk, padded.reshape(-1, rows, archs.shape[1]))
    return found.reshape(-1)[: len(archs)]


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
    rows = found.own_cross.shape[1]
    found = found._replace(own_cross=jnp.pad(found.own_cross, ((0, 0), (0, v), (0, 0))))
    value = jnp.where(new, log_improvement(state, found), -jnp.inf)
    _, best = jax.lax.top_k(value, elite)

    def step(now: tuple[Posterior, Array], k: Array) -> tuple[tuple[Posterior, Array], Array]:
        found, open_ = now
        i = jnp.argmax(jnp.where(open_, log_improvement(state, found), -jnp.inf))
        found = believe(ctx, state, found, archs, i, rows + k) if v > 1 else found
        return (found, open_ & ~contains(archs[i][None], archs)), i

    _, picks = jax.lax.scan(step, (found, new), jnp.arange(v))
    return near[picks], near[best]


def shortlist(key: Array, mean: Array, new: Array) -> Array:
    """Places of the `SHORT` of m candidates that are looked at more closely; all of fewer."""
    if len(mean) <= SHORT:
        return jnp.arange(len(mean))
    _, best = jax.lax.top_k(jnp.where(new, mean, -jnp.inf), SHORT // 2)
    chance = jnp.where(new, jax.random.uniform(key, (len(mean),)), -1.0).at[best].set(-2.0)
    _, others = jax.lax.top_k(chance, SHORT - SHORT // 2)
    return jnp.concatenate([best, others])
