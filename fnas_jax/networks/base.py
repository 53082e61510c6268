"""What elastic networks share: an interface, and a switch that costs what its branch costs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Params

Stats = Any  # a pytree of `ops.Moments`, one per normalisation of the network


class Parts(NamedTuple):
    """How the parameters of a network divide into S blocks, for weights that change networks.

    A block is {"first": a layer} or {"first": .., "rest": equal layers behind it, along axis 0}.
    """

    split: Callable[[Params], tuple[list[Params], Params]]  # params -> (S blocks, what is shared)
    join: Callable[[list[Params], Params], Params]  # the inverse of `split`
    used: Callable[[Array], Params]  # arch [T] -> what the child uses of the params, as booleans
    # arch [T] -> S arrays [layers in "rest"] bool: the layer's input goes around it, too
    bypassed: Callable[[Array], list[Array]]


class Network(NamedTuple):
    """A network that an architecture vector [T] int32 turns into one of its children.

    Parameters and statistics have the shapes of the largest child; a child uses leading slices.
    """

    init: Callable[[Array, Array], Params]  # (key, arch) -> params
    init_stats: Callable[[], Stats]  # zeros
    # Training: (params, arch, images [B, H, W, C]) -> logits [B, classes], by batch statistics
    apply: Callable[[Params, Array, Array], Array]
    # (params, stats, arch, images, collect []) -> (logits, the batch's statistics); `collect`
    # True normalises by the batch, so that the statistics can be averaged over batches
    apply_eval: Callable[[Params, Stats, Array, Array, Array], tuple[Array, Stats]]
    parts: Parts | None = None  # None for plain networks


Branch = Callable[[Params, Array, Any], Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def switch(
    branches: tuple[Branch, ...], index: Array, params: Params, x: Array, extra: Any
) -> Array:
    """`branches[index](params, x, extra)`, differentiable in `params` and `x`.

    JAX's own derivative of `lax.switch` joins the residuals of all branches and fills those of
    the others with zeros. Here the inputs are the only residuals, and the backward pass is one
    switch over the branches' own derivatives.
    """
    return lax.switch(index, branches, params, x, extra)


def _switch_fwd(
    branches: tuple[Branch, ...], index: Array, params: Params, x: Array, extra: Any
) -> tuple[Array, Any]:
    return switch(branches, index, params, x, extra), (index, params, x, extra)


def _switch_bwd(branches: tuple[Branch, ...], residuals: Any, g: Array) -> tuple[Any, ...]:
    index, params, x, extra = residuals

    def derivative(branch: Branch, params: Params, x: Array, extra: Any, g: Array) -> Any:
        return jax.vjp(lambda p, x: branch(p, x, extra), params, x)[1](g)

    dparams, dx = lax.switch(
        index, [functools.partial(derivative, b) for b in branches], params, x, extra, g
    )
    return None, dparams, dx, None


switch.defvjp(_switch_fwd, _switch_bwd)
