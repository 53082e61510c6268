"""Scores as a mixture of Gaussian processes that their evidence weighs (ours).

Kernels and variances of noise span the grid of `grid.py`; the amplitude of each process has a
closed form. No hyper-parameter is tuned on a task: the marginal likelihood of the samples weighs
the grid anew in every fit, and the `USED` likeliest predict.

Knowledge of other tasks enters as rows of one joint process: the functions of two tasks correlate
by rho (a coregionalisation, Bonilla et al., NIPS 2007, with one number). Components of several rho
stand beside those without other tasks, and compete by the evidence of the *own* samples, so that
what misleads is outweighed. Own scores are relative to what was trained, and the first of a warm
search are what other tasks think best, so every warm component brings them to its own scale
(`scores.align`).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from fnas_jax.core.types import Array
from fnas_jax.methods import gp_math
from fnas_jax.methods import scores as scoring
from fnas_jax.methods.fnas.grid import Component, distances, grid, kernel
from fnas_jax.methods.fnas.transfer import SourceTasks
from fnas_jax.methods.scores import rank_scores
from fnas_jax.spaces.base import Space

USED = 4
AMPLITUDE = 4.0  # samples that the presumed amplitude of 1 is worth
RHO = (0.6, 0.9, 0.98)  # correlations of tasks in warm components
WARM_MEMBERS = 3  # points of the grid that these stand at: the likeliest of other tasks' rows
WARM_SHARE = 0.9  # of the prior weight, all warm components together
NO_BEST = -10.0  # score to improve on before anything is known: the mean alone decides


class Foreign(NamedTuple):
    """H rows of other tasks, under Q warm components."""

    archs: Array  # [H, T] canonical
    factor: Array  # [Q, H, H] Cholesky factor of their covariance, noise included
    solved: Array  # [Q, H] factor^-1 scores
    amplitude: Array  # [Q]


class Conditioned(NamedTuple):
    """A component that knows R own samples; U of them have a leading axis U."""

    place: Array  # [] int32 among the components
    factor: Array  # [R, R] Cholesky factor; the identity in free places
    solved: Array  # [R] factor^-1 (own scores less what other tasks say)
    amplitude: Array  # [] of variances
    shift: Array  # [] own scores 0 on the component's scale
    std: Array  # [] and 1, less that
    log_weight: Array  # [] evidence and prior, nats


class State(NamedTuple):
    """K components."""

    components: Component  # [K]: cold ones, then Q warm ones
    foreign: Foreign | None
    archs: Array  # [R, T] int32 samples of the last fit
    mask: Array  # [R] bool
    best: Array  # [] float32 their best score
    used: Conditioned  # [U]


class Posterior(NamedTuple):
    """Of m architectures by U components, in own scores."""

    mean: Array  # [U, m]
    variance: Array  # [U, m] of a reading, noise included
    foreign_cross: Array  # [U, H, m] whitened covariances with rows of other tasks
    own_cross: Array  # [U, R, m] the same with own samples, given those


class Context(NamedTuple):
    """What does not change during a search."""

    space: Space
    rows: int  # R, samples of a fit
    source: SourceTasks | None


# ---- other tasks


def foreign_fit(
    component: Component, squared: Array, same: Array, values: Array
) -> tuple[Array, Array, Array, Array]:
    """Factor, solved scores and amplitude of rows of other tasks, and their log evidence []."""
    joint = kernel(component, squared) * jnp.where(same, 1.0, component.rho)
    factor = jnp.linalg.cholesky(joint + component.noise * jnp.eye(len(values)))
    solved = solve_triangular(factor, values, lower=True)
    amplitude, evidence = profile(factor, solved, jnp.float32(len(values)), jnp.float32(1.0))
    return factor, solved, amplitude, evidence


def profile(factor: Array, solved: Array, count: Array, unit: Array) -> tuple[Array, Array]:
    """The amplitude [] that makes `count` samples likeliest, over `unit`, and their log evidence.

    Less the constant; a few samples that speak for the amplitude `unit` are presumed.
    """
    square = (solved**2).sum() / unit
    amplitude = unit * (square + AMPLITUDE) / (count + AMPLITUDE)
    determinant = jnp.log(jnp.diagonal(factor)).sum()
    evidence = -0.5 * count * jnp.log(amplitude) - 0.5 * square * unit / amplitude - determinant
    return amplitude, evidence


def learn_source(ctx: Context, source: SourceTasks, key: Array) -> tuple[Component, Foreign]:
    """Warm components [Q] and what they know of `source.rows` of its rows, drawn at random."""
    cards = ctx.space.cardinalities
    rows = jnp.arange(len(source.reward))
    if source.rows < len(source.reward):
        rows = jax.random.choice(key, len(source.reward), (source.rows,), replace=False)
    archs, reward, task = (jnp.asarray(x)[rows] for x in source[:3])
    archs = ctx.space.canonical(archs)
    tasks = len(source.embedding) - 1
    values = jnp.asarray(sum(rank_scores(reward, task == t) for t in range(tasks)))
    squared, same = distances(cards, archs, archs), task[:, None] == task
    cold = grid(cards)
    apart = cold._replace(rho=jnp.full_like(cold.rho, RHO[len(RHO) // 2]))
    evidence = jax.lax.map(lambda c: foreign_fit(c, squared, same, values)[3], apart)
    _, likely = jax.lax.top_k(evidence, WARM_MEMBERS)
    chosen = jax.tree.map(lambda x: jnp.repeat(x[likely], len(RHO)), cold)
    warm = chosen._replace(
        rho=jnp.tile(jnp.asarray(RHO, jnp.float32), WARM_MEMBERS),
        log_prior=jnp.full(len(RHO) * WARM_MEMBERS, np.log(WARM_SHARE / len(RHO) / WARM_MEMBERS)),
    )
    factor, solved, amplitude, _ = jax.lax.map(
        lambda c: foreign_fit(c, squared, same, values), warm
    )
    return warm, Foreign(archs, factor, solved, amplitude)


def foreign_moments(
    state: State, component: Component, q: Array, squared: Array
) -> tuple[Array, Array]:
    """[m] what the rows of other tasks say of m architectures, and whitened covariances [H, m].

    `squared` [codes, H, m] are the distances from these rows; `q` [] is the warm component's place.
    """
    known = state.foreign
    assert known is not None
    cross = component.rho * kernel(component, squared)
    whitened = solve_triangular(known.factor[q], cross, lower=True)
    return known.solved[q] @ whitened, whitened


# ---- own samples


def condition(
    state: State, own: tuple[Array, Array], squared: Array, from_foreign: Array | None, index: Array
) -> Conditioned:
    """The component `index` [] given own scores and their mask, each [R].

    `squared` [codes, R, R] and `from_foreign` [codes, H, R] are distances. Cold components are
    conditioned with `from_foreign` None.
    """
    (values, mask), component = own, jax.tree.map(lambda x: x[index], state.components)
    count = mask.sum().astype(jnp.float32)
    among = kernel(component, squared)
    shift, std, unit = jnp.float32(0), jnp.float32(1), jnp.float32(1)
    residual = values
    if from_foreign is not None and state.foreign is not None:
        q = index - (len(state.components.rho) - len(state.foreign.amplitude))
        mean, whitened = foreign_moments(state, component, q, from_foreign)
        among -= whitened.T @ whitened
        unit = state.foreign.amplitude[q]
        aligned, std = scoring.align(values, mean, mask)
        std = jnp.where(count > 0, std, 1.0)  # else there is no scale of own scores
        shift = jnp.sum(jnp.where(mask, mean, 0.0)) / jnp.maximum(count, 1)
        residual = jnp.where(mask, aligned - mean, 0.0)
    factor = jnp.linalg.cholesky(gp_math.masked(among, component.noise, mask))
    solved = solve_triangular(factor, residual, lower=True)
    amplitude, evidence = profile(factor, solved, count, unit)
    weight = evidence + count * jnp.log(std) + component.log_prior  # in the unit of own scores
    return Conditioned(index, factor, solved, amplitude, shift, std, weight)


def init(ctx: Context, key: Array) -> State:
    """A critic that knows no sample of this task, but what there is of others."""
    components, foreign = grid(ctx.space.cardinalities), None
    if ctx.source is not None:
        warm, foreign = learn_source(ctx, ctx.source, key)
        cold = components._replace(log_prior=components.log_prior + np.log(1 - WARM_SHARE))
        components = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), cold, warm)
    rows, decisions = ctx.rows, len(ctx.space.cardinalities)
    nothing = jnp.zeros((USED, rows), jnp.float32)
    blank = jnp.zeros(USED, jnp.float32)
    used = Conditioned(
        jnp.zeros(USED, jnp.int32), nothing[..., None] * nothing[0], nothing, *(blank,) * 4
    )
    archs, mask = jnp.zeros((rows, decisions), jnp.int32), jnp.zeros(rows, bool)
    state = State(components, foreign, archs, mask, jnp.float32(NO_BEST), used)
    return fit(ctx, state, archs, jnp.zeros(rows), mask)


def fit(ctx: Context, state: State, archs: Array, values: Array, mask: Array) -> State:
    """The state that knows the masked samples: canonical `archs` [R, T] of scores [R]."""
    cards, values = ctx.space.cardinalities, jnp.where(mask, values, 0.0)
    squared = distances(cards, archs, archs)
    number = len(state.components.rho)
    warm = 0 if state.foreign is None else len(state.foreign.amplitude)
    one = partial(condition, state, (values, mask), squared)
    found = jax.vmap(partial(one, None))(jnp.arange(number - warm))
    if state.foreign is not None:
        between = distances(cards, state.foreign.archs, archs)
        others = jax.vmap(partial(one, between))(jnp.arange(number - warm, number))
        found = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), found, others)
    _, likely = jax.lax.top_k(found.log_weight, USED)
    used = jax.tree.map(lambda x: x[likely], found)
    best = jnp.where(mask.any(), jnp.max(jnp.where(mask, values, -jnp.inf)), NO_BEST)
    return state._replace(archs=archs, mask=mask, best=best, used=used)


def posterior(ctx: Context, state: State, archs: Array) -> Posterior:
    """What the used components say of canonical `archs` [m, T]."""
    cards = ctx.space.cardinalities
    own = distances(cards, state.archs, archs)
    between: tuple[Array, ...] = ()
    if state.foreign is not None:
        between = tuple(distances(cards, state.foreign.archs, x) for x in (archs, state.archs))

    def one(c: Conditioned) -> tuple[Array, ...]:
        component = jax.tree.map(lambda x: x[c.place], state.components)
        cross, prior = kernel(component, own), jnp.float32(1.0)
        mean, whitened = jnp.float32(0.0), jnp.zeros((0, len(archs)))
        if state.foreign is not None:  # of cold components, rho is 0 and so are these
            first = len(state.components.rho) - len(state.foreign.amplitude)
            q = jnp.maximum(c.place - first, 0)
            mean, whitened = foreign_moments(state, component, q, between[0])
            _, known = foreign_moments(state, component, q, between[1])
            cross -= known.T @ whitened
            prior -= (whitened**2).sum(axis=0)
        cross = jnp.where(state.mask[:, None], cross, 0.0)
        solved = solve_triangular(c.factor, cross, lower=True)
        mean += c.solved @ solved
        variance = jnp.maximum(prior - (solved**2).sum(axis=0), 1e-6) + component.noise
        return (mean - c.shift) / c.std, c.amplitude * variance / c.std**2, whitened, solved

    return Posterior(*jax.vmap(one)(state.used))


def mixture(state: State, found: Posterior) -> tuple[Array, Array]:
    """Mean and standard deviation [m] of the mixture."""
    share = jax.nn.softmax(state.used.log_weight)
    mean = share @ found.mean
    second = share @ (found.variance + found.mean**2)
    return mean, jnp.sqrt(jnp.maximum(second - mean**2, 1e-9))


def foreign_mean(ctx: Context, state: State, archs: Array) -> Array:
    """[n] scores of canonical `archs` [n, T] by rows of other tasks alone; 0 without."""
    if state.foreign is None:
        return jnp.zeros(len(archs), jnp.float32)
    squared = distances(ctx.space.cardinalities, state.foreign.archs, archs)
    q = jnp.arange(len(state.foreign.amplitude))
    warm = jax.tree.map(lambda x: x[len(x) - len(q) :], state.components)
    means = jax.vmap(lambda c, i: foreign_moments(state, c, i, squared)[0])(warm, q)
    return means.mean(axis=0)


def foreign_share(state: State) -> Array:
    """[] float32 weight of the used components that know other tasks."""
    share = jax.nn.softmax(state.used.log_weight)
    return share @ (state.components.rho[state.used.place] > 0)
