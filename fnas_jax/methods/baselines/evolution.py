"""Regularised evolution (Real et al., AAAI 2019, arXiv 1802.01548).

The population is a queue: each child is a mutation of the best of a random sample of the
population, and pushes out the oldest member, however good that is.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.config import read
from fnas_jax.core.types import Array, Metrics, Proposal, UserError, propose
from fnas_jax.methods import existing as rows
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.baselines.config import Evolution
from fnas_jax.methods.best import measured_reward, no_best, update_best, usable
from fnas_jax.spaces.base import Space, mutate

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task


class State(NamedTuple):
    """The queue of the last P architectures, as a ring."""

    archs: Array  # [P, T] int32
    rewards: Array  # [P] float32
    added: Array  # [] int32, entries ever added; the ring is full from P on
    best: Best
    asked: Array | None = None  # [M] bool, of what exists; None where all of the space does


class Context(NamedTuple):
    """What does not change during a search."""

    space: Space
    config: Evolution
    batch: int  # N
    existing: Array | None = None  # `Task.existing`


def make(
    space: Space, config: Evolution, batch: int, existing: Array | None = None
) -> SearchMethod:
    """Evolution with P = `population` and tournaments of `sample` members without replacement.

    The first P entries are random. All `batch` children of an iteration have parents in the same
    population; batch = 1 is the published algorithm. Known children cost nothing and join the
    population like any other. Where only some architectures are `existing` (`Task.existing`), a
    child is the nearest of them to the mutation that was not asked for before.

    Raises UserError unless sample <= population and batch <= population.
    """
    most = config.population
    if not 1 <= config.sample <= most:
        raise UserError(f"the sample must lie in 1..{most} (the population), got {config.sample}")
    if not 1 <= batch <= most:
        raise UserError(f"the batch must lie in 1..{most} (the population), got {batch}")
    ctx = Context(space, config, batch, existing)
    return SearchMethod(
        partial(init, ctx), partial(ask, ctx), partial(tell, ctx), best=lambda state: state.best
    )


def init(ctx: Context, key: Array) -> State:
    """An empty population."""
    population, decisions = ctx.config.population, len(ctx.space.cardinalities)
    return State(
        archs=jnp.zeros((population, decisions), jnp.int32),
        rewards=jnp.full(population, -jnp.inf, jnp.float32),
        added=jnp.int32(0),
        best=no_best(decisions),
        asked=rows.nothing_asked(ctx.existing),
    )


def child(ctx: Context, state: State, key: Array) -> Array:
    """[T] a mutation of the winner of a tournament."""
    key_sample, key_mutate = jax.random.split(key)
    # The members with the largest random numbers are a sample without replacement.
    numbers = jax.random.uniform(key_sample, (ctx.config.population,))
    _, members = jax.lax.top_k(numbers, ctx.config.sample)
    parent = members[jnp.argmax(state.rewards[members])]
    return mutate(ctx.space.cardinalities, key_mutate, state.archs[parent])


def ask(ctx: Context, state: State, key: Array) -> tuple[State, Proposal]:
    """Children, or random architectures until the population is full."""
    key_random, key_children = jax.random.split(key)
    filling = state.added < ctx.config.population
    keys = jax.random.split(key_children, ctx.batch)
    children = jax.vmap(lambda key: child(ctx, state, key))(keys)
    if ctx.existing is None or state.asked is None:
        random = ctx.space.sample(key_random, ctx.batch)
        return state, propose(jnp.where(filling, random, children))
    random, after_random = rows.unasked(ctx.existing, state.asked, key_random, ctx.batch)
    key_near = jax.random.fold_in(key_children, ctx.batch)
    near, after_near = rows.nearest(ctx.existing, state.asked, key_near, children)
    state = state._replace(asked=jnp.where(filling, after_random, after_near))
    return state, propose(jnp.where(filling, random, near))


def tell(ctx: Context, state: State, proposal: Proposal, metrics: Metrics) -> State:
    """The newest enter the population, the oldest leave it."""
    population = ctx.config.population
    add = usable(proposal, metrics)
    place = (state.added + jnp.cumsum(add) - 1) % population
    slot = jnp.where(add, place, population)  # the rest falls outside and is dropped
    return state._replace(
        archs=state.archs.at[slot].set(proposal.archs, mode="drop"),
        rewards=state.rewards.at[slot].set(measured_reward(proposal, metrics), mode="drop"),
        added=state.added + add.sum(dtype=jnp.int32),
        best=update_best(state.best, proposal, metrics),
    )


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """Evolution with the numbers of `config.evolution`, `config.search.batch` wide."""
    section = read(Evolution, config.evolution)
    if section.sample > section.population:
        raise UserError(
            f"evolution.sample is {section.sample}; at most evolution.population"
            f" ({section.population}) is allowed"
        )
    if config.search.batch > section.population:
        raise UserError(
            f"search.batch is {config.search.batch}; evolution allows at most"
            f" evolution.population ({section.population})"
        )
    return make(space, section, config.search.batch, task.existing), task.evaluator
