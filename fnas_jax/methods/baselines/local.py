"""Local search: hill climbing with restarts (White et al., UAI 2021, arXiv 2005.02960).

The neighbours of an architecture differ from it in one decision. They are tried in random order;
the climb moves to the best of the first batch that holds an improvement, and starts again from a
random architecture once all neighbours have been tried in vain. Where only some architectures
exist, the neighbours are as many of the nearest ones that were not asked for before.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal, propose
from fnas_jax.methods import existing as rows
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import measured_reward, no_best, update_best, usable
from fnas_jax.spaces.base import Space, neighbours

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task


class State(NamedTuple):
    """Where the climb stands."""

    arch: Array  # [T] int32 the summit so far
    reward: Array  # [] float32 its reward; -inf: a start has to be found
    order: Array  # [M] int32 order in which its M neighbours are tried
    tried: Array  # [] int32, neighbours tried
    best: Best
    asked: Array | None = None  # [M] bool, of what exists; None where all of the space does


class Context(NamedTuple):
    """What does not change during a search."""

    space: Space
    batch: int  # N
    existing: Array | None = None  # `Task.existing`

    @property
    def neighbours(self) -> int:
        """M, of every architecture; 1 where there is a single one, which is its own."""
        return max(1, sum(k - 1 for k in self.space.cardinalities))


def make(space: Space, batch: int, existing: Array | None = None) -> SearchMethod:
    """A climb that evaluates `batch` neighbours at a time; a start is the best of a batch.

    `existing`: `Task.existing`.
    """
    ctx = Context(space, batch, existing)
    return SearchMethod(
        partial(init, ctx), partial(ask, ctx), partial(tell, ctx), best=lambda state: state.best
    )


def init(ctx: Context, key: Array) -> State:
    """A climb that has to find its start."""
    decisions = len(ctx.space.cardinalities)
    return State(
        arch=jnp.zeros(decisions, jnp.int32),
        reward=jnp.float32(-jnp.inf),
        order=jnp.arange(ctx.neighbours, dtype=jnp.int32),
        tried=jnp.int32(0),
        best=no_best(decisions),
        asked=rows.nothing_asked(ctx.existing),
    )


def ask(ctx: Context, state: State, key: Array) -> tuple[State, Proposal]:
    """The next neighbours of the summit, or random starts."""
    key_random, key_order = jax.random.split(key)
    climbing = jnp.isfinite(state.reward)
    if ctx.existing is not None and state.asked is not None:
        wanted = jnp.broadcast_to(state.arch, (ctx.batch, len(state.arch)))
        near, after_near = rows.nearest(ctx.existing, state.asked, key_order, wanted)
        starts, after_starts = rows.unasked(ctx.existing, state.asked, key_random, ctx.batch)
        state = state._replace(asked=jnp.where(climbing, after_near, after_starts))
        return state, propose(jnp.where(climbing, near, starts))
    shuffled = jax.random.permutation(key_order, state.order)
    order = jnp.where(state.tried == 0, shuffled, state.order)
    # Past the last neighbour the order begins anew: those are known and cost nothing.
    following = order[(state.tried + jnp.arange(ctx.batch)) % ctx.neighbours]
    starts = ctx.space.sample(key_random, ctx.batch)
    around = neighbours(ctx.space.cardinalities, state.arch)
    archs = jnp.where(climbing, around[following], starts) if len(around) else starts
    return state._replace(order=order), propose(archs)


def tell(ctx: Context, state: State, proposal: Proposal, metrics: Metrics) -> State:
    """A step up, or, once every neighbour was tried in vain, a restart."""
    reward = jnp.where(usable(proposal, metrics), measured_reward(proposal, metrics), -jnp.inf)
    i = jnp.argmax(reward)
    better = reward[i] > state.reward
    tried = jnp.where(better | jnp.isneginf(state.reward), 0, state.tried + ctx.batch)
    stuck = tried >= ctx.neighbours
    return state._replace(
        arch=jnp.where(better, proposal.archs[i], state.arch),
        reward=jnp.where(stuck, -jnp.inf, jnp.maximum(reward[i], state.reward)),
        tried=jnp.where(stuck, 0, tried),
        best=update_best(state.best, proposal, metrics),
    )


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """Local search that tries `config.search.batch` neighbours per iteration."""
    return make(space, config.search.batch, task.existing), task.evaluator
