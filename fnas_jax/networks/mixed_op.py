"""The elastic network of a space whose decisions are layers, with derivatives in its switches.

`z [T, K]` says which operation each layer runs, one-hot. The forward pass runs that one; the
backward pass also asks how the loss would change with a little of every other: the inner product
of its output with the gradient at the layer's output. That is a forward pass of each operation, and
no backward pass of those that did not run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers.choose import Backend
from fnas_jax.layers.ops import Params, sum_type
from fnas_jax.layers.spec import PASS, LayerSpec, Slot
from fnas_jax.networks import mobile
from fnas_jax.networks.mobile import Context

_Operation = Callable[[Params, Array], Array]  # (params, x) -> y


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mixed_op(
    operations: tuple[_Operation, ...], index: Array, z: Array, params: Params, x: Array
) -> Array:
    """`sum_k z[k] operations[k](params, x)` for the one-hot z [K] of `index`.

    Differentiable in `z`, `params` and `x`; `index` must be where z is 1.
    """
    return lax.switch(index, operations, params, x)


def _forward(
    operations: tuple[_Operation, ...], index: Array, z: Array, params: Params, x: Array
) -> tuple[Array, Any]:
    return mixed_op(operations, index, z, params, x), (index, params, x)


def _backward(operations: tuple[_Operation, ...], residuals: Any, g: Array) -> tuple[Any, ...]:
    index, params, x = residuals

    def derivative(operation: _Operation) -> Any:
        return lambda: jax.vjp(lambda p, x: operation(p, x), params, x)[1](g)

    dparams, dx = lax.switch(index, [derivative(operation) for operation in operations])
    outputs = (operation(params, x) for operation in operations)
    # Whatever the backend computes in, as `z` is.
    dz = jnp.stack([jnp.vdot(y, g, preferred_element_type=sum_type(g)) for y in outputs])
    return None, dz, dparams, dx


mixed_op.defvjp(_forward, _backward)


def apply(c: Context, params: Params, arch: Array, z: Array, images: Array) -> Array:
    """Logits of `arch` [T] = switches `z` [T, K], as `mobile.apply` gives them.

    The slots of `c` have one width, and their choices the order of the decision's.
    """
    features = c.slots[-1][-1].widest("cout")
    mixed = c._replace(backend=mixed_backend(c.backend))
    return mobile.forward(mixed, params, (arch, z), features, images)


def mixed_backend(backend: Backend) -> Backend:
    """`backend` for training; instead of a `LayerSpec`, a layer may get (index [], z [K])."""
    return backend._replace(apply=functools.partial(_layer, backend), looped=True)


def _layer(
    backend: Backend,
    slot: Slot,
    params: Params,
    x: Array,
    choice: LayerSpec | tuple[Array, Array],
    root: bool = False,
) -> Array:
    if isinstance(choice, LayerSpec):  # stem and head
        return backend.apply(slot, params, x, choice, root)
    index, z = choice
    return mixed_op(_operations(backend, slot), index, z, params, x)


@functools.cache  # the same tuple for the same slot, as `mixed_op` compares it by identity
def _operations(backend: Backend, slot: Slot) -> tuple[_Operation, ...]:
    """The slot's choices, each by itself."""
    return tuple(
        functools.partial(_run, backend, Slot(slot.stride, (choice,))) for choice in slot.choices
    )


def _run(backend: Backend, slot: Slot, params: Params, x: Array) -> Array:
    (choice,) = slot.choices
    return x if choice.op == PASS else backend.apply(slot, params, x, choice)
