"""A switch of which the derivative costs what the chosen branch costs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Params

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
