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

from fnas_jax.core.types import Array
from fnas_jax.methods import gp_math
from fnas_jax.methods import scores as scoring
from fnas_jax.methods.fnas.grid import Component, Distances, distances, grid, kernel
from fnas_jax.methods.fnas.transfer import SourceTasks
from fnas_jax.methods.scores import rank_scores
from fnas_jax.methods.whitening import inverse_factor
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
    white: Array  # [Q, H, H] inverse Cholesky factor of their covariance, noise included
    solved: Array  # [Q, H] whitened scores
    amplitude: Array  # [Q]


class Conditioned(NamedTuple):
    """A component that knows R own samples; U of them have a leading axis U."""

    place: Array  # [] int32 among the components
    white: Array  # [R, R] inverse Cholesky factor; the identity in free places
    solved: Array  # [R] own scores less what other tasks say, whitened
    foreign_cross: Array  # [H, R] whitened covariances with rows of other tasks
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
    component: Component, squared: Distances, same: Array, values: Array
) -> tuple[Array, Array, Array, Array]:
    """Of rows of other tasks: the fields of `Foreign` after `archs`, and their log evidence []."""
    joint = kernel(component, squared) * jnp.where(same, 1.0, component.rho)
    white = gp_math.whitening(joint + component.noise * jnp.eye(len(values)))
    solved = white @ values
    amplitude, evidence = profile(white, solved, jnp.float32(len(values)), jnp.float32(1.0))
    return white, solved, amplitude, evidence


def profile(white: Array, solved: Array, count: Array, unit: Array) -> tuple[Array, Array]:
    """The amplitude [] that fits `count` samples, and the log of their likelihood with it.

    Less the constant; a few samples that speak for the amplitude `unit` are presumed.
    """
    square = (solved**2).sum() / unit
    amplitude = unit * (square + AMPLITUDE) / (count + AMPLITUDE)
    root = jnp.log(jnp.diagonal(white)).sum()
    evidence = root - 0.5 * count * jnp.log(amplitude) - 0.5 * square * unit / amplitude
    return amplitude, evidence


def learn_source(ctx: Context, source: SourceTasks, key: Array) -> tuple[Component, Foreign]:
    """Warm components [Q] and what they know of `source.rows` of its rows, drawn at random."""
    rows = jnp.arange(len(source.reward))
    if source.rows < len(source.reward):
        rows = jax.random.choice(key, len(source.reward), (source.rows,), replace=False)
    archs, reward, task = (jnp.asarray(x)[rows] for x in source[:3])
    archs = ctx.space.canonical(archs)
    tasks = len(source.embedding) - 1
    values = jnp.asarray(sum(rank_scores(reward, task == t) for t in range(tasks)))
    squared, same = distances(ctx.space, archs, archs), task[:, None] == task
    cold = grid(ctx.space)
    apart = cold._replace(rho=jnp.full_like(cold.rho, RHO[len(RHO) // 2]))
    evidence = jax.vmap(lambda c: foreign_fit(c, squared, same, values)[-1])(apart)
    _, likely = jax.lax.top_k(evidence, WARM_MEMBERS)
    chosen = jax.tree.map(lambda x: jnp.repeat(x[likely], len(RHO)), cold)
    warm = chosen._replace(
        rho=jnp.tile(jnp.asarray(RHO, jnp.float32), WARM_MEMBERS),
        log_prior=jnp.full(len(RHO) * WARM_MEMBERS, np.log(WARM_SHARE / len(RHO) / WARM_MEMBERS)),
    )
    *found, _ = jax.vmap(lambda c: foreign_fit(c, squared, same, values))(warm)
    return warm, Foreign(archs, *found)


def foreign_moments(
    state: State, component: Component, q: Array, squared: Distances
) -> tuple[Array, Array]:
    """[m] what the rows of other tasks say of m architectures, and whitened covariances [H, m].

    `squared` are the distances from these rows [H, m]; `q` [] is the warm component's place.
    """
    known = state.foreign
    assert known is not None
    cross = component.rho * kernel(component, squared)
    whitened = known.white[q] @ cross
    return known.solved[q] @ whitened, whitened


# ---- own samples


def condition(
    state: State,
    own: tuple[Array, Array],
    squared: Distances,
    from_foreign: Distances | None,
    place: Array,
) -> Conditioned:
    """The component at `place` [] given own scores and their mask, each [R].

    `squared` [R, R] and `from_foreign` [H, R] are distances; without the latter, the
    component has to be a cold one.
    """
    (values, mask), component = own, jax.tree.map(lambda x: x[place], state.components)
    count = mask.sum().astype(jnp.float32)
    among = kernel(component, squared)
    shift, std, unit = jnp.float32(0), jnp.float32(1), jnp.float32(1)
    residual, known = values, jnp.zeros((0, len(values)))
    if from_foreign is not None and state.foreign is not None:
        q, warm = warm_place(state, place), component.rho > 0
        mean, known = foreign_moments(state, component, q, from_foreign)
        among -= known.T @ known
        unit = jnp.where(warm, state.foreign.amplitude[q], 1.0)
        shift, std = where_own_scores_lie(values, mean, mask)
        shift, std = jnp.where(warm, shift, 0.0), jnp.where(warm, std, 1.0)
        residual = jnp.where(mask, shift + std * values - mean, 0.0)
    white = inverse_factor(gp_math.masked(among, component.noise, mask))
    solved = white @ residual
    amplitude, evidence = profile(white, solved, count, unit)
    weight = evidence + count * jnp.log(std) + component.log_prior  # in the unit of own scores
    sound = jnp.isfinite(weight)  # a factorisation can fail
    weight = jnp.where(sound, weight, -jnp.inf)
    white, solved = (jnp.where(sound, x, 0.0) for x in (white, solved))
    return Conditioned(place, white, solved, known, amplitude, shift, std, weight)


def where_own_scores_lie(values: Array, mean: Array, mask: Array) -> tuple[Array, Array]:
    """Own scores 0 and (1 less 0) on the scale of other tasks, which say `mean` [R] of these rows.

    `values` [R] need not have mean 0 and deviation 1: of a long search, only the best and the
    newest are here.
    """
    count = jnp.maximum(mask.sum(), 1)
    middle = jnp.sum(jnp.where(mask, values, 0.0)) / count
    spread = jnp.sqrt(jnp.sum(jnp.where(mask, (values - middle) ** 2, 0.0)) / count)
    spread = jnp.where(spread > 1e-3, spread, 1.0)
    _, std = scoring.align((values - middle) / spread, mean, mask)
    there = jnp.sum(jnp.where(mask, mean, 0.0)) / count
    std = jnp.where(mask.any(), std / spread, 1.0)  # without own samples there is no scale
    return there - middle * std, std


def warm_place(state: State, place: Array) -> Array:
    """[] int32 place of a component among the warm ones; 0 for cold ones."""
    assert state.foreign is not None
    cold = len(state.components.rho) - len(state.foreign.amplitude)
    return jnp.maximum(place - cold, 0)


def init(ctx: Context, key: Array) -> State:
    """A critic that knows no sample of this task, but what there is of others."""
    components, foreign = grid(ctx.space), None
    if ctx.source is not None:
        warm, foreign = learn_source(ctx, ctx.source, key)
        cold = components._replace(log_prior=components.log_prior + np.log(1 - WARM_SHARE))
        components = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), cold, warm)
    rows, decisions = ctx.rows, len(ctx.space.cardinalities)
    nothing = jnp.zeros((USED, rows), jnp.float32)
    blank = jnp.zeros(USED, jnp.float32)
    others = 0 if foreign is None else len(foreign.archs)
    used = Conditioned(
        jnp.zeros(USED, jnp.int32),
        nothing[..., None] * nothing[0],
        nothing,
        jnp.zeros((USED, others, rows)),
        *(blank,) * 4,
    )
    archs, mask = jnp.zeros((rows, decisions), jnp.int32), jnp.zeros(rows, bool)
    state = State(components, foreign, archs, mask, jnp.float32(NO_BEST), used)
    return fit(ctx, state, archs, jnp.zeros(rows), mask)


def fit(ctx: Context, state: State, archs: Array, values: Array, mask: Array) -> State:
    """The state that knows the masked samples: canonical `archs` [R, T] of scores [R]."""
    values = jnp.where(mask, values, 0.0)
    squared = distances(ctx.space, archs, archs)
    number = len(state.components.rho)
    warm = 0 if state.foreign is None else len(state.foreign.amplitude)
    one = partial(condition, state, (values, mask), squared)
    cold = jax.vmap(partial(one, None))(jnp.arange(number - warm))
    if state.foreign is None:
        _, likely = jax.lax.top_k(cold.log_weight, USED)
        used = jax.tree.map(lambda x: x[likely], cold)
    else:
        between = distances(ctx.space, state.foreign.archs, archs)
        others = jax.vmap(lambda i: one(between, i).log_weight)(jnp.arange(number - warm, number))
        _, likely = jax.lax.top_k(jnp.concatenate([cold.log_weight, others]), USED)
        # Computed again: what all of them hold of the other tasks' rows would fill the memory.
        used = jax.vmap(partial(one, between))(likely)
    best = jnp.where(mask.any(), jnp.max(jnp.where(mask, values, -jnp.inf)), NO_BEST)
    return state._replace(archs=archs, mask=mask, best=best, used=used)


def posterior(ctx: Context, state: State, archs: Array) -> Posterior:
    """What the used components say of canonical `archs` [m, T]."""
    own = distances(ctx.space, state.archs, archs)
    foreign = None if state.foreign is None else distances(ctx.space, state.foreign.archs, archs)

    def one(c: Conditioned) -> tuple[Array, ...]:
        component = jax.tree.map(lambda x: x[c.place], state.components)
        cross, prior = kernel(component, own), jnp.float32(1.0)
        mean, whitened = jnp.float32(0.0), jnp.zeros((0, len(archs)))
        if foreign is not None:  # of cold components, rho is 0 and so are these
            mean, whitened = foreign_moments(state, component, warm_place(state, c.place), foreign)
            cross -= c.foreign_cross.T @ whitened
            prior -= (whitened**2).sum(axis=0)
        cross = jnp.where(state.mask[:, None], cross, 0.0)
        solved = c.white @ cross
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
    squared = distances(ctx.space, state.foreign.archs, archs)
    first = len(state.components.rho) - len(state.foreign.amplitude)
    warm = jax.tree.map(lambda x: x[first:], state.components)
    each = jax.vmap(lambda c, white, solved: c.rho * (solved @ white @ kernel(c, squared)))
    means = each(warm, state.foreign.white, state.foreign.solved)
    return means.mean(axis=0)


def foreign_share(state: State) -> Array:
    """[] float32 weight of the used components that know other tasks."""
    share = jax.nn.softmax(state.used.log_weight)
    return share @ (state.components.rho[state.used.place] > 0)
