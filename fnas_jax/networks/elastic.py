"""From spaces, or plain Flax modules, to the `Network` that `children.train` trains."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.layers import backends, ops
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.networks import cell, fixed, flax_reference, layer_specs, macro, mnas
from fnas_jax.networks.base import Network, Stats
from fnas_jax.networks.flax_mobile import MOMENTUM
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.cell import CellSpec
from fnas_jax.spaces.macro import MacroSpec
from fnas_jax.spaces.mnas import MnasSpec


def make(space: Space, channels: int, classes: int, backend: str = "auto") -> Network:
    """The elastic network of `space` for images of `channels` channels.

    `backend` names one of `layers.backends`. Raises ValueError for a space without networks.
    """
    spec = space.spec
    if isinstance(spec, MnasSpec):
        return mnas.build(spec, channels, classes, backends.choose(backend))
    if isinstance(spec, MacroSpec):
        return macro.build(spec, channels, classes, backends.choose(backend))
    if isinstance(spec, CellSpec):
        return cell.build(spec, channels, classes)
    raise ValueError(f"the space {space.name!r} has no networks")


def fixed_network(
    space: Space,
    arch: Any,
    image_shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    backend: str = "auto",
) -> Network:
    """The network of one architecture [T], all channels multiplied by `width`.

    Its architecture argument means nothing. Raises ValueError for a space without networks.
    """
    space = layer_specs.widen(space, width)
    if isinstance(space.spec, MnasSpec | MacroSpec):
        made = layer_specs.make(space.spec, arch)
        return fixed.build(made, image_shape[-1], classes, backends.choose(backend))
    return from_module(flax_reference.build(space, arch, classes), image_shape)


def from_module(module: nn.Module, image_shape: tuple[int, int, int]) -> Network:
    """A plain network as a `Network` whose architecture argument means nothing."""
    image = jnp.zeros((1, *image_shape))

    shapes = jax.eval_shape(lambda key: module.init(key, image, train=False), jax.random.key(0))

    def init(key: Array, arch: Array) -> Params:
        return ops.realise(key, jax.tree_util.tree_map_with_path(_initial, shapes["params"]))

    def init_stats() -> Stats:
        return _to_moments(
            jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes["batch_stats"])
        )

    def by_batch(params: Params, images: Array) -> tuple[Array, Stats]:
        variables = {"params": params, "batch_stats": _from_moments(init_stats())}
        logits, new = module.apply(variables, images, train=True, mutable=["batch_stats"])
        # Flax adds (1 - momentum) times the batch's moments to what is zero here.
        moments = jax.tree.map(lambda s: s / (1 - MOMENTUM), new["batch_stats"])
        return logits, _to_moments(moments)

    def by_stats(params: Params, stats: Stats, images: Array) -> Array:
        variables = {"params": params, "batch_stats": _from_moments(stats)}
        return jnp.asarray(module.apply(variables, images, train=False))

    def apply_eval(
        params: Params, stats: Stats, arch: Array, images: Array, collect: Array
    ) -> tuple[Array, Stats]:
        return jax.lax.cond(
            collect,
            lambda: by_batch(params, images),
            lambda: (by_stats(params, stats, images), stats),
        )

    return Network(init, init_stats, lambda p, arch, x: by_batch(p, x)[0], apply_eval)


def _initial(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Any:
    """What `ops.realise` makes of a plain parameter, as in elastic networks.

    Flax's own initialisers, a generator call for each tensor, take longer to compile than the
    training of a small network.
    """
    if path[-1].key != "kernel":
        return jnp.full(leaf.shape, path[-1].key == "scale", leaf.dtype)
    fan_in = math.prod(leaf.shape[:-1])
    return ops.he_normal(leaf.shape, fan_in if len(leaf.shape) > 2 else 2 * fan_in)


def _to_moments(tree: Any) -> Any:
    """Nested dicts with {"mean", "var"} at the ends -> the same with `Moments`."""
    if set(tree) == {"mean", "var"}:
        return Moments(tree["mean"], tree["var"])
    return {name: _to_moments(branch) for name, branch in tree.items()}


def _from_moments(tree: Any) -> Any:
    if isinstance(tree, Moments):
        return {"mean": tree.mean, "var": tree.var}
    return {name: _from_moments(branch) for name, branch in tree.items()}
