"""Small settings and source tasks, shared by the tests of TNAS."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.tnas import meta, method, networks, source_tasks, surrogate
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.spaces import base
from tests.methods import toy

SMALL = Tnas(hidden=8, code=4, fusion=(16, 8), iterations=8, tasks=2, inner=3, batch=24)
ARCHS = base.enumerate_all(toy.SPACE)


# One program each, not one for every operation in them.
condition = jax.jit(functools.partial(surrogate.condition, toy.SPACE, SMALL))
conditioned = jax.jit(functools.partial(surrogate.conditioned, toy.SPACE, SMALL))


@functools.cache
def weights(tasks=2):
    """Fresh ones for `tasks` source tasks of the toy problem."""
    with jax.ensure_compile_time_eval():  # arrays, also for who asks while being compiled
        run = jax.jit(lambda key: networks.init(key, toy.SPACE, SMALL, tasks, 1))
        return run(jax.random.key(0))


def context(config=SMALL, **options):
    """Of a search on the toy problem."""
    return method.context(toy.SPACE, config, **({"proposals": 1, "capacity": 30} | options))


def make(config=SMALL, **options):
    """The search on the toy problem."""
    return method.make(context(config, **options))


def learner(config=SMALL, source=None, checks=2):
    """The context of a meta-training on the toy problem."""
    return meta.Context(toy.SPACE, config, known() if source is None else source, checks)


@functools.cache
def known(sign=1.0, rows=60, tasks=2, seed=0):
    """Rows of tasks like the toy problem (`sign` 1), or just the other way round (-1)."""
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(len(ARCHS))[:rows] for _ in range(tasks)]
    noise = 0.02 * rng.normal(size=(tasks, rows))
    reward = np.stack([sign * toy.accuracy(ARCHS[c]) for c in chosen]) + noise
    return source_tasks.gather(
        toy.SPACE, ARCHS[np.concatenate(chosen)], reward.reshape(-1), np.repeat(range(tasks), rows)
    )


def truth():
    return jnp.asarray(toy.accuracy(ARCHS))
