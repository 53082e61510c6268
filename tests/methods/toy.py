"""A small problem with a known answer, shared by the tests of methods."""

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax import scan
from fnas_jax.core.types import Metrics
from fnas_jax.spaces import base, categorical
from fnas_jax.tasks import table_index, tables, tabular

# Settings of an FNAS search that is compiled soon.
SMALL_FNAS = {
    "ppo.hidden": 8,
    "uac.warmup": 8,
    "aeb.capacity": 32,
    "fnas.pool": 32,
    "fnas.imagination": 1,
    "log.tensorboard": False,
}
SPACE = categorical.make((3, 4, 2, 3, 3))  # 216 architectures
# The second decision has no effect where the first is 0: 54 + 36 + 36 networks.
IDLE = SPACE._replace(
    name="idle",
    canonical=lambda archs: archs.at[:, 1].set(jnp.where(archs[:, 0] == 0, 0, archs[:, 1])),
)
TARGET = np.array([2, 1, 1, 0, 2])


def accuracy(archs):
    """Share of decisions that agree with TARGET, and a little for the first two together."""
    agree = archs == TARGET
    return 0.9 * agree.mean(axis=-1) + 0.1 * (agree[..., 0] & agree[..., 1])


def search(method, seeds, iterations):
    """Runs the method on the table of this problem. Returns last states and traces."""
    return searches(lambda _: method, seeds, iterations)(None)


def searches(make, seeds, iterations):
    """One program for the searches of all methods `make(data)`: data -> (last states, traces)."""
    archs = base.enumerate_all(SPACE)
    values = accuracy(archs).astype(np.float32)
    nan = np.full(len(archs), np.nan, np.float32)
    table = tables.Table("toy", SPACE, archs, values, values[:, None], nan, nan, nan, "made up")
    where = table_index.of(table)
    evaluator = tabular.evaluator(table, where, lambda accuracy, *_: accuracy, False)
    keys = jax.random.split(jax.random.key(0), seeds)

    @jax.jit
    def run(data):
        method = make(data)
        state, _, trace = jax.vmap(lambda key: scan.run(method, evaluator, key, iterations))(keys)
        return state, trace

    return run


def compiled(method):
    """The method with each of its functions one program, not one for every operation in them."""
    return method._replace(
        init=jax.jit(method.init), ask=jax.jit(method.ask), tell=jax.jit(method.tell)
    )


def metrics(reward, ok=None):
    """Metrics of fresh entries with the given rewards; failed where `ok` is False."""
    reward = jnp.asarray(reward, jnp.float32)
    ok = jnp.ones(reward.shape, bool) if ok is None else jnp.asarray(ok)
    reward = jnp.where(ok, reward, 0)
    nan = jnp.full(reward.shape, jnp.nan)
    return Metrics(reward, reward, nan, nan, nan, jnp.zeros_like(reward), ok, jnp.ones_like(ok))
