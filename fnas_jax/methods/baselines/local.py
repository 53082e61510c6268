"""Local search: hill climbing with restarts (White et al., UAI 2021, arXiv 2005.02960).

The neighbours of an architecture differ from it in one decision. They are tried in random order;
the climb moves to the best of the first batch that holds an improvement, and starts again from a
random architecture once all neighbours have been tried in vain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, observed, update_best, usable
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


def make(space: Space, batch: int = 1) -> SearchMethod:
    """A climb that evaluates `batch` neighbours at a time; a start is the best of a batch.

    Raises ValueError for a space of a single architecture.
    """
    cards = space.cardinalities
    count = sum(k - 1 for k in cards)
    if not count:
        raise ValueError(f"space {space.name} has a single architecture: nothing to climb")

    def init(key: Array) -> State:
        return State(
            arch=jnp.zeros(len(cards), jnp.int32),
            reward=jnp.float32(-jnp.inf),
            order=jnp.arange(count, dtype=jnp.int32),
            tried=jnp.int32(0),
            best=no_best(len(cards)),
        )

    def ask(state: State, key: Array) -> tuple[State, Proposal]:
        key_random, key_order = jax.random.split(key)
        shuffled = jax.random.permutation(key_order, state.order)
        order = jnp.where(state.tried == 0, shuffled, state.order)
        # Past the last neighbour the order begins anew: those are known and cost nothing.
        next_ = order[(state.tried + jnp.arange(batch)) % count]
        steps = neighbours(cards, state.arch)[next_]
        starts = space.sample(key_random, batch)
        archs = jnp.where(jnp.isfinite(state.reward), steps, starts)
        return state._replace(order=order), propose(archs)

    def tell(state: State, proposal: Proposal, metrics: Metrics) -> State:
        reward = jnp.where(usable(proposal, metrics), observed(proposal, metrics), -jnp.inf)
        i = jnp.argmax(reward)
        better = reward[i] > state.reward
        tried = jnp.where(better | jnp.isneginf(state.reward), 0, state.tried + batch)
        stuck = tried >= count
        return State(
            arch=jnp.where(better, proposal.archs[i], state.arch),
            reward=jnp.where(stuck, -jnp.inf, jnp.maximum(reward[i], state.reward)),
            order=state.order,
            tried=jnp.where(stuck, 0, tried),
            best=update_best(state.best, proposal, metrics),
        )

    return SearchMethod(init, ask, tell, best=lambda state: state.best)


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """Local search that tries `config.search.batch` neighbours per iteration."""
    return make(space, config.search.batch), task.evaluator
