"""The elastic Macro network with derivatives in its switches.

`z [8, 3]` says which operation each layer runs, one-hot. The forward pass runs that one; the
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
from fnas_jax.layers import convolutions, ops, reference
from fnas_jax.layers.backends import Backend
from fnas_jax.layers.ops import Params
from fnas_jax.layers.reference import Variant
from fnas_jax.networks import macro
from fnas_jax.networks.mobile import Stack
from fnas_jax.spaces.macro import MacroSpec

Operation = Callable[[Params, Array, Any], Array]  # (params, x, setting) -> y


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def superpose(
    operations: tuple[Operation, ...], index: Array, z: Array, params: Params, x: Array, extra: Any
) -> Array:
    """`sum_k z[k] operations[k](params, x, extra)` for the one-hot z [K] of `index`.

    Differentiable in `z`, `params` and `x`; `index` must be where z is 1.
    """
    return lax.switch(index, operations, params, x, extra)


def _forward(
    operations: tuple[Operation, ...], index: Array, z: Array, params: Params, x: Array, extra: Any
) -> tuple[Array, Any]:
    return superpose(operations, index, z, params, x, extra), (index, params, x, extra)


def _backward(operations: tuple[Operation, ...], residuals: Any, g: Array) -> tuple[Any, ...]:
    index, params, x, extra = residuals

    def derivative(operation: Operation) -> Any:
        return lambda: jax.vjp(lambda p, x: operation(p, x, extra), params, x)[1](g)

    dparams, dx = lax.switch(index, [derivative(operation) for operation in operations])
    dz = jnp.stack([jnp.vdot(operation(params, x, extra), g) for operation in operations])
    return None, dz, dparams, dx, None


superpose.defvjp(_forward, _backward)


def apply(
    spec: MacroSpec, backend: Backend, params: Params, arch: Array, z: Array, images: Array
) -> Array:
    """Logits [B, classes] of `arch` [8] = switches `z` [8, 3], as `Network.apply` gives them.

    `params` are those of `macro.build`; layers run on `backend`.
    """
    x, start = enter(spec, params, images), 0
    choices = macro.macro_choices(spec, arch)
    for p, stack, choice in zip(params["stacks"], macro.macro_stacks(spec), choices, strict=True):
        last = start + stack.depth
        x = _stage(backend, p, stack, choice.setting, arch[start:last], z[start:last], x)
        start = last
    return leave(spec, params, x)


def enter(spec: MacroSpec, params: Params, images: Array) -> Array:
    """The stem: images [B, H, W, C] -> [B, H', W', stem]."""
    x = convolutions.conv(images, params["stem"], 0, (3,), spec.stem_stride)
    return ops.norm_act(x, params["stem_norm"], spec.stem, "relu", None)[0]


def leave(spec: MacroSpec, params: Params, x: Array) -> Array:
    """Head and classifier: the last layer's output -> logits [B, classes]."""
    if spec.head:
        x = convolutions.pointwise(x, params["head"])
        x, _ = ops.norm_act(x, params["head_norm"], spec.head, "relu", None)
    return x.mean((1, 2)) @ params["classifier"] + params["bias"]


def _stage(
    backend: Backend,
    params: Params,
    stack: Stack,
    setting: reference.Setting,
    arch: Array,
    z: Array,
    x: Array,
) -> Array:
    first = _operations(backend, stack.first, residual=False)
    x = superpose(first, arch[0], z[0], params["first"], x, setting)
    if stack.depth == 1:
        return x
    rest = _operations(backend, stack.rest, residual=True)
    setting = setting._replace(cin=setting.cout)

    def step(x: Array, layer: tuple[Params, Array, Array]) -> tuple[Array, None]:
        p, index, switches = layer
        return superpose(rest, index, switches, p, x, setting), None

    return lax.scan(step, x, (params["rest"], arch[1:], z[1:]))[0]


@functools.cache  # the same tuple for the same layers, as `superpose` compares it by identity
def _operations(
    backend: Backend, layers: tuple[Variant, ...], residual: bool
) -> tuple[Operation, ...]:
    """The operations of a layer in the order of its choices; behind the first layer of a stage, an
    identity, and its input added to the others.
    """

    def operation(variant: Variant) -> Operation:
        def run(p: Params, x: Array, setting: Any) -> Array:
            y = backend.apply((variant,), p, x, 0, setting, False)
            return x + y if residual else y

        return run

    identity: tuple[Operation, ...] = ((lambda p, x, setting: x),) * residual
    return identity + tuple(operation(v) for v in layers)
