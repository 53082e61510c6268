"""Small pools and children for the tests of this folder."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from fnas_jax.knowledge import pool as pools
from fnas_jax.networks import elastic
from fnas_jax.spaces import cell, macro, mixed_cell, mixed_chain, mnas, mobilenetv3

SPACES = {
    "mnas": mnas.make(blocks=1, strides=(1,), width=0.5, stem=16, stem_stride=2, head=16),
    "macro": macro.make(macro.MacroSpec(strides=(2, 1, 1), channels=(8,) * 3, stem=8, head=24)),
    "cell": cell.make(channels=4, cells_per_stage=1),
    "mixed_cell": mixed_cell.make()._replace(spec=mixed_cell.MixedCellSpec(4, 1, 1)),
    "mixed_chain": mixed_chain.make()._replace(spec=mixed_chain.MixedChainSpec(4, 1, 1)),
    "mobilenetv3": mobilenetv3.make(stages=1, width=0.5, strides=(1,)),
}


@functools.cache
def layout(name):
    return pools.make_layout(elastic.make(SPACES[name], 1, 3), SPACES[name])


# Deposits of all tests are one program a space: the other children are not in use.
AT_ONCE = 5


class Functions(NamedTuple):
    """Compiled functions of one space's pool, whose results are on the host."""

    init: Any  # with 6 entries a place
    find: Any
    inherit: Any  # of many children
    deposit: Any
    merge: Any
    tally: Any
    used: Any  # by many children
    statistics: Any


def on_host(function):
    """Compiled, with results of numpy, which tests take apart without a program for each cut."""
    compiled = jax.jit(function)
    return lambda *args: jax.device_get(compiled(*args))


@functools.cache
def functions(name):
    layout_ = layout(name)
    return Functions(
        init=on_host(lambda key: pools.init(layout_, 6, key)),
        find=on_host(functools.partial(pools.find, layout_)),
        inherit=on_host(jax.vmap(functools.partial(pools.inherit, layout_), (None, 0, 0))),
        deposit=on_host(functools.partial(pools.deposit, layout_)),
        merge=on_host(functools.partial(pools.merge, layout_)),
        tally=on_host(functools.partial(pools.tally, layout_)),
        used=on_host(jax.vmap(layout_.parts.used)),
        statistics=on_host(functools.partial(pools.statistics, layout_)),
    )


@functools.cache
def gradient(name):
    """(params, arch) -> (gradient of the sum of squared logits, logits) on some images."""
    network, images = layout(name).network, jax.random.normal(jax.random.key(3), (4, 5, 7, 1))

    def loss(params, arch):
        logits = network.apply(params, arch, images)
        return (logits**2).sum(), logits

    return on_host(jax.grad(loss, has_aux=True))


@functools.cache
def fresh(name):
    return functions(name).init(jax.random.key(0))


@functools.cache
def sampled(name, n, seed):
    """n canonical architectures, and the shapes of one's parameters."""
    space, network = SPACES[name], layout(name).network
    archs = on_host(lambda key: space.canonical(space.sample(key, n)))(jax.random.key(seed))
    return archs, jax.eval_shape(network.init, jax.random.key(0), archs[0])


def children(name, n, seed=1):
    """n canonical architectures, and parameters with every number drawn."""
    archs, shapes = sampled(name, n, seed)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        middle = 1.0 if "scale" in str(path[-1]) else 0.0
        return rng.normal(middle, 0.4, (n, *leaf.shape)).astype(np.float32)

    return archs.copy(), jax.tree_util.tree_map_with_path(draw, shapes)


def add(name, pool, archs, params, accuracy=None, use=None, owner=7):
    """`pool` with what `len(archs)` children leave: of 0.5 and all in use where not given."""
    n = len(archs)
    accuracy = np.full(n, 0.5) if accuracy is None else np.asarray(accuracy)
    use = np.ones(n, bool) if use is None else np.asarray(use)
    wanted = archs, params, accuracy.astype(np.float32), use

    def filled(x):
        x = np.asarray(x)
        return np.concatenate([x, np.zeros((AT_ONCE - n, *x.shape[1:]), x.dtype)])

    return functions(name).deposit(pool, *jax.tree.map(filled, wanted), np.uint32(owner))
