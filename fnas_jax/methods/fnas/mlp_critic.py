"""The critic of networks: an ensemble of MLPs, with or without a network of errors beside it.

The networks and their fit are those of `critic.py`; here stands what a search makes of them.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import first_of_each
from fnas_jax.core.types import Array
from fnas_jax.methods import scores as scoring
from fnas_jax.methods.fnas import critic as critics
from fnas_jax.methods.fnas import replay, transfer
from fnas_jax.methods.fnas.config import Fnas, Uac
from fnas_jax.methods.fnas.critic import Critic, Ensemble
from fnas_jax.methods.fnas.replay import ELITE
from fnas_jax.spaces.base import Space

LOOKED_AT = 512  # candidates of the highest scores


class Context(NamedTuple):
    """What does not change during a search whose buffer has C places."""

    space: Space
    config: Uac
    fnas: Fnas  # how much what other tasks teach is worth
    capacity: int  # C
    critic: Critic
    residual: Critic  # one member, which predicts errors
    source: transfer.SourceTasks | None
    task: Array  # [Z] embedding of the searched task


class State(NamedTuple):
    """E members, C places of the buffer."""

    ensemble: Ensemble
    residual: Ensemble  # one member, which predicts errors
    weights: Array  # [E, C] bootstrap weights of the places
    warm: Array  # [] bool: knowledge of other tasks is in use


def context(
    space: Space,
    config: Uac,
    fnas: Fnas,
    capacity: int,
    source: transfer.SourceTasks | None,
) -> Context:
    """The networks of a search whose buffer holds `capacity` samples.

    Raises ValueError for an odd number of hidden units.
    """
    size = 0 if source is None else source.embedding.shape[1]
    task = jnp.zeros(0) if source is None else jnp.asarray(source.embedding[-1])
    single = dataclasses.replace(config, members=1, bootstrap=False)
    critic = critics.make(space.cardinalities, config, size, space.features)
    residual = critics.make(space.cardinalities, single, size, space.features)
    return Context(space, config, fnas, capacity, critic, residual, source, task)


def init(ctx: Context, key: Array) -> State:
    """Networks that have learnt nothing of this task, but what there is of others."""
    key_critic, key_residual, key_weights, key_source = jax.random.split(key, 4)
    ensemble = critics.init(ctx.critic, key_critic)
    if ctx.source is not None:
        ensemble = transfer.warm_start(ctx.critic, ctx.space, ensemble, ctx.source, key_source)
    return State(
        ensemble=ensemble,
        residual=critics.init(ctx.residual, key_residual),
        weights=critics.bootstrap(ctx.critic, key_weights, ctx.capacity),
        warm=jnp.bool_(ctx.source is not None),
    )


def source_prediction(ctx: Context, state: State, archs: Array) -> Array:
    """[n] scores of canonical `archs` [n, T] by knowledge of other tasks alone; 0 without."""
    if ctx.source is None:
        return jnp.zeros(len(archs), jnp.float32)
    anchored = state.ensemble._replace(mlp=state.ensemble.anchor)
    x = critics.encode(ctx.critic, archs, ctx.task)
    return critics.predict(ctx.critic, anchored, x).mean(axis=0)


def predict(ctx: Context, state: State, archs: Array) -> tuple[Array, Array]:
    """Scores [n] of canonical `archs` [n, T] and their uncertainties [n]."""
    x = critics.encode(ctx.critic, archs, ctx.task)
    members = critics.predict(ctx.critic, state.ensemble, x)
    sigma = members.std(axis=0, ddof=1)
    if ctx.config.uncertainty == "residual":
        sigma = critics.predict(ctx.residual, state.residual, x)[0]
    return members.mean(axis=0), sigma


def targets(ctx: Context, state: State, buffer: replay.Buffer) -> Array:
    """[C] scores of the buffer's samples; those of a warm search on the scale of other tasks."""
    mask = replay.filled(buffer)
    scores = scoring.rank_scores(buffer.reward, mask)
    if ctx.source is None:
        return scores
    aligned, _ = scoring.align(scores, buffer.source_prediction, mask)
    return jnp.where(state.warm, aligned, scores)


def fit(ctx: Context, state: State, buffer: replay.Buffer, scores: Array, places: Array) -> State:
    """The state whose networks are fitted to the `scores` [C] of the buffer's `places`."""
    mask = replay.filled(buffer)[places]
    x = critics.encode(ctx.critic, jnp.maximum(buffer.canonical[places], 0), ctx.task)
    rank, noise = 0.0, jnp.float32(ctx.config.noise)
    if ctx.source is not None:
        rank = ctx.fnas.rank
        noise = jnp.where(state.warm, noise / ctx.fnas.shift, noise)
    weights = state.weights[:, places] * mask
    ensemble = critics.fit(ctx.critic, state.ensemble, x, scores[places], weights, rank, noise)
    state = state._replace(ensemble=ensemble)
    if ctx.config.uncertainty != "residual":
        return state
    error = buffer.error[places]
    known = mask & jnp.isfinite(error)
    # Two factorisations at once can block each other for ever on XLA's CPU threads, so this
    # one is made to wait for the ensemble's.
    wait = 0.0 * ensemble.mlp.b3.sum()
    error = jnp.where(known, error, 0.0) + wait
    weights = known[None].astype(jnp.float32)
    return state._replace(residual=critics.fit(ctx.residual, state.residual, x, error, weights))


def reconsider(ctx: Context, state: State, agreement: Array, count: Array) -> State:
    """Drops knowledge of other tasks that ranks `count` own samples wrongly."""
    misled = (agreement < 0) & (count >= ctx.config.warmup)
    drop = state.warm & misled

    def own(mine: critics.Mlp, start: critics.Mlp) -> critics.Mlp:
        return jax.tree.map(lambda a, b: jnp.where(drop, b, a), mine, start)

    e = state.ensemble
    ensemble = e._replace(mlp=own(e.mlp, e.start), anchor=own(e.anchor, e.start))
    return state._replace(ensemble=ensemble, warm=state.warm & ~misled)


def source_share(state: State) -> Array:
    """[] float32 share of the prediction that rests on other tasks: all or nothing."""
    return state.warm.astype(jnp.float32)


def pick(
    ctx: Context, state: State, key: Array, archs: Array, new: Array, factor: Array
) -> tuple[Array, Array]:
    """Places of the `fnas.verify` most promising of `archs` [m, T] that are `new` [m], and of an
    elite.

    Each pick adds an exponentially distributed multiple of U, which is `factor` [] times sigma:
    now greedy, now curious (ours).
    """
    # V alone needs no priors: of whole spaces, these took as long as the networks.
    x = critics.encode(ctx.critic, archs, ctx.task)
    score = jnp.where(new, critics.learnt(state.ensemble, x).mean(axis=0), -jnp.inf)
    _, near = jax.lax.top_k(score, min(LOOKED_AT, len(score)))
    score = jnp.where(first_of_each(archs[near]), score[near], -jnp.inf)
    width = predict(ctx, state, archs[near])[1] * factor
    _, elite = jax.lax.top_k(score, ELITE)
    optimism = ctx.fnas.optimism * jax.random.exponential(key, (ctx.fnas.verify,))

    def step(score: Array, weight: Array) -> tuple[Array, Array]:
        i = jnp.argmax(score + weight * width)
        return score.at[i].set(-jnp.inf), i

    return near[jax.lax.scan(step, score, optimism)[1]], near[elite]
