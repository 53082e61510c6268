"""The choice of a batch: one candidate after another, by the acquisition function.

What was chosen counts as evaluated, with the reward that was predicted, for the next one of the
batch (kriging believer, Ginsbourger et al. 2010).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import contains
from fnas_jax.core.types import Array
from fnas_jax.methods import candidates
from fnas_jax.methods.tnas import gp_mixture
from fnas_jax.methods.tnas.design import elite
from fnas_jax.methods.tnas.gp_mixture import Mixture, Targets
from fnas_jax.methods.tnas.state import Context, State, conditioned
from fnas_jax.methods.tnas.surrogate import Conditioned

NOISE = 1e-4  # of the acquisition, so that ties are broken at random


class Pool(NamedTuple):
    """What a batch is chosen from."""

    archs: Array  # [M, T] int32 canonical
    conditioned: list[Conditioned]  # as each component of the mixture predicts them


class Batch(NamedTuple):
    """A batch in the making."""

    archs: Array  # [C, T] int32, as of State
    places: Array  # [] int32, taken so far
    own: list[Conditioned]  # of each component, with what was chosen
    targets: list[Targets]  # likewise
    taken: Array  # [M] bool: evaluated, chosen, or not to be proposed


def pool(ctx: Context, state: State, mixture: Mixture, key_first: Array, key_second: Array) -> Pool:
    """The candidates: the whole space where it is listed.

    Else random architectures, changes of the best evaluated ones, changes of those of the highest
    acquisition among these, and the initial design.
    """
    parts = [fitted.component for fitted in mixture.components]
    if ctx.listed is not None:
        return Pool(ctx.listed, [conditioned(ctx, part, ctx.listed) for part in parts])
    best = elite(state.archs, jnp.where(state.observed, state.rewards, -jnp.inf))
    draw = functools.partial(candidates.draw, ctx.space, n=ctx.config.pool, existing=ctx.existing)
    near = draw(key_first, jnp.maximum(best, 0))
    at_near = [conditioned(ctx, part, near) for part in parts]
    processes = [
        gp_mixture.process(f, at) for f, at in zip(mixture.components, at_near, strict=True)
    ]
    acquired = gp_mixture.acquire(processes, mixture.log_weights, ctx.beta)
    more = draw(key_second, elite(near, acquired))
    archs = jnp.concatenate([near, more, state.design])
    return Pool(archs, [conditioned(ctx, part, archs) for part in parts])


def choose(
    ctx: Context, state: State, mixture: Mixture, pool: Pool, key: Array
) -> tuple[Batch, Array, Array]:
    """(the batch, its architectures [N, T], their places [N]; C where none was left)."""
    start = Batch(
        state.archs,
        state.places,
        [fitted.component.own for fitted in mixture.components],
        [fitted.targets for fitted in mixture.components],
        contains(state.archs, pool.archs) | candidates.forbidden(ctx.allowed, pool.archs),
    )
    tie_breaks = jax.random.uniform(key, (ctx.proposals, len(pool.archs)))
    step = functools.partial(add, ctx, state.design, mixture, pool)
    batch, (archs, places) = jax.lax.scan(step, start, tie_breaks)
    return batch, archs, places


def add(
    ctx: Context, design: Array, mixture: Mixture, pool: Pool, batch: Batch, random: Array
) -> tuple[Batch, tuple[Array, Array]]:
    """The batch with one more, which is (architecture [T], place []); `random` [M] in [0, 1).

    The initial design comes first; where nothing was evaluated yet, or no place is left, what is
    added is random.
    """
    fitted = [
        f._replace(component=f.component._replace(own=own), targets=targets)
        for f, own, targets in zip(mixture.components, batch.own, batch.targets, strict=True)
    ]
    pairs = list(zip(fitted, pool.conditioned, strict=True))
    processes = [gp_mixture.process(f, at) for f, at in pairs]
    learnt = gp_mixture.acquire(processes, mixture.log_weights, ctx.beta)
    blind = (batch.places >= ctx.capacity) | ~batch.targets[0].mask.any()
    score = jnp.where(blind, random, learnt + NOISE * random)
    planned = jnp.all(pool.archs == design[jnp.minimum(batch.places, ctx.start - 1)], axis=1)
    score = jnp.where((batch.places < ctx.start) & planned, jnp.inf, score)
    j = jnp.argmax(jnp.where(batch.taken, -jnp.inf, score))
    arch, place = pool.archs[j], jnp.where(batch.taken[j], ctx.capacity, batch.places)
    believed = [
        gp_mixture.believe(f, p, at, j, place) for (f, at), p in zip(pairs, processes, strict=True)
    ]
    batch = Batch(
        batch.archs.at[place].set(arch, mode="drop"),
        batch.places + (place < ctx.capacity),
        [f.component.own for f in believed],
        [f.targets for f in believed],
        batch.taken | contains(arch[None], pool.archs),
    )
    return batch, (arch, place)
