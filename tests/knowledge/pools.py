"""Small pools and children for the tests of this folder."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.knowledge import pool as pools
from fnas_jax.networks import elastic
from fnas_jax.spaces import cell, macro, mnas

SPACES = {
    "mnas": mnas.make(blocks=1, strides=(1,), width=0.5, stem=16, stem_stride=2, head=16),
    "macro": macro.make(macro.MacroSpec(strides=(2, 1, 1), channels=(8,) * 3, stem=8, head=24)),
    "cell": cell.make(channels=4, cells_per_stage=1),
}


@functools.cache
def layout(name):
    return pools.make_layout(elastic.make(SPACES[name], 1, 3), SPACES[name])


class Functions(NamedTuple):
    """Compiled functions of one space's pool."""

    init: Any  # with 6 entries a place
    find: Any
    inherit: Any  # of many children
    deposit: Any
    merge: Any
    used: Any  # by many children
    statistics: Any


@functools.cache
def functions(name):
    layout_ = layout(name)
    return Functions(
        init=jax.jit(lambda key: pools.init(layout_, 6, key)),
        find=jax.jit(functools.partial(pools.find, layout_)),
        inherit=jax.jit(jax.vmap(functools.partial(pools.inherit, layout_), (None, 0, 0))),
        deposit=jax.jit(functools.partial(pools.deposit, layout_)),
        merge=jax.jit(functools.partial(pools.merge, layout_)),
        used=jax.jit(jax.vmap(layout_.parts.used)),
        statistics=jax.jit(functools.partial(pools.statistics, layout_)),
    )


@functools.cache
def gradient(name):
    """(params, arch) -> (gradient of the sum of squared logits, logits) on some images."""
    network, images = layout(name).network, jax.random.normal(jax.random.key(3), (4, 5, 7, 1))

    def loss(params, arch):
        logits = network.apply(params, arch, images)
        return (logits**2).sum(), logits

    return jax.jit(jax.grad(loss, has_aux=True))


@functools.cache
def fresh(name):
    return functions(name).init(jax.random.key(0))


def children(name, n, seed=1):
    """n canonical architectures, and parameters with every number drawn."""
    space, layout_ = SPACES[name], layout(name)
    archs = space.canonical(space.sample(jax.random.key(seed), n))
    shapes = jax.eval_shape(layout_.network.init, jax.random.key(0), archs[0])
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        middle = 1.0 if "scale" in str(path[-1]) else 0.0
        return jnp.asarray(rng.normal(middle, 0.4, (n, *leaf.shape)), jnp.float32)

    return archs, jax.tree_util.tree_map_with_path(draw, shapes)


def add(name, pool, archs, params, accuracy=None, use=None, owner=7):
    n = len(archs)
    accuracy = jnp.full(n, 0.5) if accuracy is None else jnp.asarray(accuracy)
    use = jnp.ones(n, bool) if use is None else jnp.asarray(use)
    return functions(name).deposit(pool, archs, params, accuracy, use, jnp.uint32(owner))
