"""An own search method: it changes some decisions of the best network so far.

    python own_method.py

On images: fnas-jax search --config=fnas_digits --config.method.name=own_method:build --workdir=w
"""

from functools import partial

import jax
import jax.numpy as jnp

import fnas_jax
from fnas_jax.interfaces import SearchMethod, no_best, propose, update_best


def ask(space, batch, best, key):
    """The state of the method is the network of the highest reward so far."""
    key_new, key_where = jax.random.split(key)
    new = space.sample(key_new, batch)
    where = jax.random.bernoulli(key_where, 0.5, new.shape)
    near = jnp.where(where, new, jnp.maximum(best.arch, 0))
    return best, propose(jnp.where(jnp.isfinite(best.reward), near, new))


def build(config, space, task, knowledge):
    def init(key):
        return no_best(len(space.cardinalities))

    return SearchMethod(init, partial(ask, space, config.search.batch), update_best, lambda s: s)


if __name__ == "__main__":
    SPACE = fnas_jax.categorical({name: [1, 2, 3, 4] for name in "abc"})
    task = fnas_jax.from_function(SPACE, lambda d: d["a"] * d["b"] / 16 - d["c"] / 100)
    result = fnas_jax.search(task=task, method=build, budget=32, workdir="runs/own_method")
    print(result)
