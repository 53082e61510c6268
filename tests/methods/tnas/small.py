"""Small settings and histories, shared by the tests of TNAS."""

import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.tnas import meta, networks, source_tasks
from fnas_jax.methods.tnas import method as tnas
from fnas_jax.spaces import base
from tests.methods import toy

NET = networks.Config(hidden=8, code=4, fusion=(16, 8))
META = meta.Config(iterations=8, tasks=2, inner=3, batch=24, checks=2)
SMALL = tnas.Config(capacity=30, net=NET, meta=META)
ARCHS = base.enumerate_all(toy.SPACE)


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
