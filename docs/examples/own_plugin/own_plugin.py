"""A package that brings a space, a task and a method, by the names that pyproject.toml gives."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp

import fnas_jax
from fnas_jax.interfaces import Array, Best, SearchMethod, no_best, propose, update_best

space = fnas_jax.categorical({"x": [0, 1, 2, 3], "y": [0, 1, 2, 3]}, name="grid")
task = fnas_jax.from_function(space, lambda d: 1 / (1 + (d["x"] - 2) ** 2 + (d["y"] - 1) ** 2))


class State(NamedTuple):
    best: Best
    asked: Array  # [] int32 vectors so far


def ask(space, batch, state, key):
    """All vectors, one after the other."""
    numbers = (state.asked + jnp.arange(batch)) % space.size
    archs = jnp.stack(jnp.unravel_index(numbers, space.cardinalities), axis=1).astype(jnp.int32)
    return state._replace(asked=state.asked + batch), propose(archs)


def tell(state, proposal, metrics):
    return state._replace(best=update_best(state.best, proposal, metrics))


def build(config, space, task, knowledge):
    start = State(no_best(len(space.cardinalities)), jnp.int32(0))
    return SearchMethod(
        lambda key: start, partial(ask, space, config.search.batch), tell, lambda state: state.best
    )
