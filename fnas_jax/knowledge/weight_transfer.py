"""Weights of one block for another: what fits is kept, what is missing does no harm.

A block is {"first": layer} or {"first": .., "rest": equal layers behind it, along axis 0}, of the
shapes of the largest child; see `layers.parameters`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Params


def expand(params: Params, trained: Params, bypassed: Array) -> Params:
    """The block for a child that may use more of it than was `trained` (booleans, as `params`).

    What was trained keeps computing the same: its new inputs (channels, rims of kernels) weigh
    zero. New outputs stay as they are, which is the pool's shared initialisation. Layers behind the
    last trained one are copies of it, with their branch scaled to zero where their input goes
    around it (`bypassed` [layers] bool).
    """

    def extend(value: Array, mask: Array) -> Array:
        outputs = mask.any(axis=tuple(range(mask.ndim - 1)))
        return jnp.where(mask | ~outputs, value, 0.0)

    block = {"first": jax.tree.map(extend, params["first"], trained["first"])}
    if "rest" not in params:
        return block
    rest = jax.tree.map(jax.vmap(extend), params["rest"], trained["rest"])
    exists = trained["rest"]["norm_out"]["scale"].any(axis=1)
    depth, layers = exists.sum(), jnp.arange(len(exists))
    # Where there is none, nothing of that shape can be copied: the layers stay as they are.
    source = jnp.where((layers < depth) | (depth == 0), layers, depth - 1)
    rest = jax.tree.map(lambda leaf: leaf[source], rest)
    silent = (layers >= depth) & bypassed
    rest["norm_out"] = jax.tree.map(
        lambda leaf: jnp.where(silent[:, None], 0.0, leaf), rest["norm_out"]
    )
    return block | {"rest": rest}


def sort_channels(params: Params, used: Params) -> Params:
    """The block with inner channels in order of importance, so that leading ones are the best.

    Only channels between expansion and projection can change places without other layers noticing.
    As in Once-for-all (arXiv 1908.09791), importance is the L1 norm of what reads a channel.
    Channels that are not `used` stay behind the others.
    """

    def order(layer: Params, mask: Params) -> Params:
        if "expand" not in layer:
            return layer
        inner = mask["expand"].any(axis=0)
        importance = jnp.abs(layer["project"]).sum(axis=1)
        new = jnp.argsort(jnp.where(inner, -importance, jnp.inf), stable=True)
        ordered = layer | {
            "expand": layer["expand"][:, new],
            "norm_expand": jax.tree.map(lambda p: p[new], layer["norm_expand"]),
            "depthwise": layer["depthwise"][..., new],
            "norm_depthwise": jax.tree.map(lambda p: p[new], layer["norm_depthwise"]),
            "project": layer["project"][new],
        }
        if "se" in layer:
            # Its tensors may be wider, for operations whose outputs are gated.
            se = layer["se"]
            wide = jnp.concatenate([new, jnp.arange(len(new), len(se["b2"]))])
            moved = {"w1": se["w1"][wide], "w2": se["w2"][:, wide], "b2": se["b2"][wide]}
            ordered["se"] = se | moved
        return ordered

    block = {"first": order(params["first"], used["first"])}
    if "rest" in params:
        block["rest"] = jax.vmap(order)(params["rest"], used["rest"])
    return block
