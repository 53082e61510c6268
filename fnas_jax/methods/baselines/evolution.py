"""Regularised evolution (Real et al., AAAI 2019, arXiv 1802.01548).

The population is a queue: each child is a mutation of the best of a random sample of the
population, and pushes out the oldest member, however good that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal, UserError, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, observed, update_best, usable
from fnas_jax.spaces.base import Space, mutate

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task


class State(NamedTuple):
    """The queue of the last P architectures, as a ring."""

    archs: Array  # [P, T] int32
    rewards: Array  # [P] float32
    added: Array  # [] int32, entries ever added; the ring is full from P on
    best: Best


def make(space: Space, batch: int = 1, population: int = 30, sample: int = 10) -> SearchMethod:
    """Evolution with P = `population` and tournaments of `sample` members without replacement.

    The first P entries are random. All `batch` children of an iteration have parents in the same
    population; batch = 1 is the published algorithm. Known children cost nothing and join the
    population like any other. Raises ValueError unless sample <= population and
    batch <= population.
    """
    if not 1 <= sample <= population:
        raise ValueError(f"the sample must lie in 1..{population} (the population), got {sample}")
    if not 1 <= batch <= population:
        raise ValueError(f"the batch must lie in 1..{population} (the population), got {batch}")
    decisions = len(space.cardinalities)

    def init(key: Array) -> State:
        return State(
            archs=jnp.zeros((population, decisions), jnp.int32),
            rewards=jnp.full(population, -jnp.inf, jnp.float32),
            added=jnp.int32(0),
            best=no_best(decisions),
        )

    def child(state: State, key: Array) -> Array:
        key_sample, key_mutate = jax.random.split(key)
        # The members with the largest random numbers are a sample without replacement.
        _, members = jax.lax.top_k(jax.random.uniform(key_sample, (population,)), sample)
        parent = members[jnp.argmax(state.rewards[members])]
        return mutate(space.cardinalities, key_mutate, state.archs[parent])

    def ask(state: State, key: Array) -> tuple[State, Proposal]:
        key_random, key_children = jax.random.split(key)
        random = space.sample(key_random, batch)
        children = jax.vmap(child, (None, 0))(state, jax.random.split(key_children, batch))
        return state, propose(jnp.where(state.added < population, random, children))

    def tell(state: State, proposal: Proposal, metrics: Metrics) -> State:
        add = usable(proposal, metrics)
        place = (state.added + jnp.cumsum(add) - 1) % population
        slot = jnp.where(add, place, population)  # the rest falls outside and is dropped
        return State(
            archs=state.archs.at[slot].set(proposal.archs, mode="drop"),
            rewards=state.rewards.at[slot].set(observed(proposal, metrics), mode="drop"),
            added=state.added + add.sum(dtype=jnp.int32),
            best=update_best(state.best, proposal, metrics),
        )

    return SearchMethod(init, ask, tell, best=lambda state: state.best)


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """Evolution with `config.evolution.population` and `.sample`, `config.search.batch` wide."""
    section = config.evolution
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
    return (
        make(space, config.search.batch, section.population, section.sample),
        task.evaluator,
    )
