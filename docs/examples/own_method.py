"""An own search method: it changes one decision of the best network so far, at random.

python -m fnas_jax.main --config=fnas_digits --config.method.name=own_method:build --workdir=w
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, update_best


class State(NamedTuple):
    best: Best  # the network of the highest measured reward


def init(decisions, key):
    return State(no_best(decisions))


def ask(space, batch, state, key):
    key_new, key_where = jax.random.split(key)
    new = space.sample(key_new, batch)
    where = jax.random.randint(key_where, (batch, 1), 0, new.shape[1]) == jnp.arange(new.shape[1])
    near = jnp.where(where, new, jnp.maximum(state.best.arch, 0))
    return state, propose(jnp.where(jnp.isfinite(state.best.reward), near, new))


def tell(state, proposal, metrics):
    return State(update_best(state.best, proposal, metrics))


def build(config, space, task, knowledge):
    start = partial(init, len(space.cardinalities))
    return SearchMethod(start, partial(ask, space, config.search.batch), tell, lambda s: s.best)
