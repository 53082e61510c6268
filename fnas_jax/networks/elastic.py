"""From spaces, or Flax modules, to the `Network` that `training.child` trains."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, UserError
from fnas_jax.layers import compile_kernels, ops
from fnas_jax.layers.choose import candidates, choose, exact_in, short_type
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.networks import cell, flax_reference, mixed_op, mobile, mobile_spaces
from fnas_jax.networks.base import Network, Stats
from fnas_jax.networks.dense import Dense, Outputs
from fnas_jax.networks.flax_mobile import MOMENTUM
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.cells import SPECS

EXACT = "exact"  # a program for each child
REGIONAL = "regional"  # programs of layers
NOT_SHARED = (REGIONAL, EXACT)  # no program is all children's
CELL_BACKENDS = ("auto", "reference", "branched")


def make(space: Space, channels: int, classes: Outputs, backend: str = "auto") -> Network:
    """The elastic network of `space` for images of `channels` channels.

    `backend` as `layers.choose` takes it. Raises ValueError for a space without networks, and
    UserError for a backend that the space or the devices do not have.
    """
    if type(space.spec) in mobile_spaces.MODULES:
        by_layer = isinstance(space.spec, mobile_spaces.BY_LAYER)
        context = mobile.elastic(space.spec, channels, classes, choose(backend))
        network = mobile.network(context, by_layer)
        # Only where each decision is a layer, and all have as many choices.
        is_layer = by_layer and sum(map(len, context.slots)) == len(space.cardinalities)
        if not is_layer or len(set(space.cardinalities)) > 1:
            return network
        return network._replace(apply_mixed=functools.partial(mixed_op.apply, context))
    if isinstance(space.spec, SPECS):
        _check_cell(backend)
        # The same code; where it is called `branched`, which is for accelerators, in their type.
        shorter = candidates(backend)[0] == "branched"
        return cell.build(space.spec, channels, classes, short_type() if shorter else jnp.float32)
    raise ValueError(f"the space {space.name!r} has no networks")


def plain(space: Space, channels: int, classes: Outputs, dtype: Any = jnp.float32) -> Network:
    """As `make`, by XLA's code alone in `dtype`: the same everywhere, and with all derivatives."""
    if isinstance(space.spec, SPECS):
        return cell.build(space.spec, channels, classes, dtype)
    return make(space, channels, classes, "reference")  # whose type is that of what it is given


def has_networks(space: Space) -> bool:
    """Whether `make` knows networks of `space`."""
    return type(space.spec) in mobile_spaces.MODULES or isinstance(space.spec, SPECS)


def backends(space: Space, backend: str, classes: Outputs) -> tuple[str, ...]:
    """Those that `backend` may stand for here; which is the fastest has to be tried."""
    cells = isinstance(space.spec, SPECS)
    found = tuple(name for name in candidates(backend) if not cells or name in CELL_BACKENDS)
    if backend == "auto" and jax.default_backend() != "cpu" and not cells:
        each = [EXACT] if isinstance(classes, Dense) else NOT_SHARED
        found = (*each, *found)
    return found or (backend,)


def described(space: Space, backend: str, classes: Outputs) -> str:
    """What children's layers run by here, and why, where kernels would be faster; for records."""
    found = backends(space, backend, classes)
    lacks = compile_kernels.missing() if found == ("reference",) and backend == "auto" else ""
    if isinstance(space.spec, SPECS):
        lacks = ""  # that space never has kernels
    return " or ".join(found) + (f" (no kernels: {lacks})" if lacks else "")


def exact_network(space: Space, channels: int, classes: Outputs, arch: Any) -> Network:
    """The network of `arch` [T] with the parameters of `make`'s; not for spaces of cells."""
    made = (space.spec, arch, channels, classes, exact_in(short_type()))
    by_layer = isinstance(space.spec, mobile_spaces.BY_LAYER)
    return mobile.network(mobile.exact(*made), by_layer)


def fixed_network(
    space: Space,
    arch: Any,
    image_shape: tuple[int, int, int],
    classes: Outputs,
    backend: str = "auto",
) -> Network:
    """The network of one architecture [T], which ignores its architecture argument.

    Raises as `make` does.
    """
    if type(space.spec) in mobile_spaces.MODULES:
        made = (space.spec, arch, image_shape[-1], classes, choose(backend))
        return mobile.network(mobile.fixed(*made))
    if isinstance(space.spec, SPECS):
        _check_cell(backend)
    return from_module(flax_reference.build(space, arch, classes), image_shape)


def _check_cell(backend: str) -> None:
    if backend not in CELL_BACKENDS:
        raise UserError(
            f"children.backend is {backend!r}; the spaces of cells have XLA's code only and allow"
            f" {', '.join(CELL_BACKENDS[:-1])} and {CELL_BACKENDS[-1]}"
        )


def from_module(module: nn.Module, image_shape: tuple[int, int, int]) -> Network:
    """A Flax network as a `Network`, which ignores its architecture argument."""
    image = jnp.zeros((1, *image_shape))
    shapes = jax.eval_shape(lambda key: module.init(key, image, train=False), jax.random.key(0))
    zeros = functools.partial(_zeros, shapes["batch_stats"])
    return Network(
        init=functools.partial(_init, shapes["params"]),
        init_stats=zeros,
        apply=lambda params, arch, images: _by_batch(module, zeros, params, images)[0],
        apply_eval=functools.partial(_apply_eval, module, zeros),
    )


def _init(shapes: Any, key: Array, arch: Array) -> Params:
    return ops.realise(key, jax.tree_util.tree_map_with_path(_initial, shapes))


def _zeros(shapes: Any) -> Stats:
    return _to_moments(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))


def _by_batch(
    module: nn.Module, zeros: Callable[[], Stats], params: Params, images: Array
) -> tuple[Array, Stats]:
    """Logits by the batch's statistics, and these."""
    variables = {"params": params, "batch_stats": from_moments(zeros())}
    logits, new = module.apply(variables, images, train=True, mutable=["batch_stats"])
    # Flax adds (1 - momentum) times the batch's moments to what is zero here.
    moments = jax.tree.map(lambda s: s / (1 - MOMENTUM), new["batch_stats"])
    return logits, _to_moments(moments)


def _apply_eval(
    module: nn.Module,
    zeros: Callable[[], Stats],
    params: Params,
    stats: Stats,
    arch: Array,
    images: Array,
    collect: Array,
) -> tuple[Array, Stats]:
    variables = {"params": params, "batch_stats": from_moments(stats)}
    return jax.lax.cond(
        collect,
        lambda: _by_batch(module, zeros, params, images),
        lambda: (jnp.asarray(module.apply(variables, images, train=False)), stats),
    )


def _initial(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Any:
    """What `ops.realise` makes of a Flax parameter, as in elastic networks.

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


def from_moments(tree: Any) -> Any:
    """The inverse of `_to_moments`: statistics as Flax has them."""
    if isinstance(tree, Moments):
        return {"mean": tree.mean, "var": tree.var}
    return {name: from_moments(branch) for name, branch in tree.items()}
