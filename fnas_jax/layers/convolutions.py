"""Convolutions whose kernel size is data: an index into a tuple of odd sizes.

Weights have the largest size, and a smaller kernel is their centre. Images are [B, H, W, C], on
accelerators in bfloat16, padding is 'SAME', strides are 1 or 2, kernels at least 3 wide where the
stride is 2.

XLA needs help. A grouped convolution takes ten times as long on a CPU as the shifted products it
stands for. On a GPU, children at once would make grouped convolutions of all, whose derivatives
take minutes to compile and to run: there, children at once have shifted products (`taps.shifted`)
and products of matrices (`_patched`). What its compiler for CPUs needs besides is in
`cpu_convolutions`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers import cpu_convolutions
from fnas_jax.layers.taps import (
    LAYOUT,
    TAPS,
    Sizes,
    crop,
    same_padding,
    shifted,
    shifted_input_gradient,
    uncropped,
    views,
)

Op = Callable[[Array, Array, int], Array]  # (x, w, stride) -> the convolution


def pointwise(x: Array, w: Array, stride: int = 1) -> Array:
    """1x1 convolution as a matrix product: x [B, H, W, I], w [I, O] -> [B, H/s, W/s, O]."""
    return x[:, ::stride, ::stride] @ w


def average_pool(x: Array, stride: int) -> Array:
    """3x3 average pooling, padding not counted: [B, H, W, C] -> [B, ceil(H/s), ceil(W/s), C]."""
    counts = []
    for size in x.shape[1:3]:
        low, _, out = same_padding(size, 3, stride)
        start = np.arange(out) * stride - low
        counts.append(np.minimum(start + 3, size) - np.maximum(start, 0))
    count = np.outer(*counts)[None, :, :, None]
    return functools.reduce(jnp.add, views(x, 3, stride)) * (1 / count).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def depthwise(x: Array, w: Array, size: Array | int, sizes: Sizes, stride: int) -> Array:
    """Depthwise convolution: x [B, H, W, C], w [K, K, C], kernel `sizes[size]`."""
    alone, together = (_by_size(op, sizes, stride) for op in (_grouped, shifted))
    return _by_platform(x.dtype, together, alone_or_together(alone, together), size, x, w)


def _depthwise_bwd(
    sizes: Sizes, stride: int, residuals: tuple[Array, Array, Array], g: Array
) -> tuple[Array, Array, None]:
    def cpu(x: Array, w: Array, size: Array, g: Array) -> tuple[Array, Array]:
        branches = [functools.partial(shifted_input_gradient, x, stride, k) for k in sizes]
        sums = cpu_convolutions.tap_sums(x, g, size, sizes, w.shape[0], stride)
        return _switch(size, branches, w, g), sums

    def together(x: Array, w: Array, size: Array, g: Array) -> tuple[Array, Array]:
        branches = [functools.partial(_shifted_derivatives, stride, k) for k in sizes]
        return _switch(size, branches, w, x, g)

    accelerators = alone_or_together(_derivatives(_grouped, sizes, stride), together)
    return *_by_platform(residuals[0].dtype, cpu, accelerators, *residuals, g), None


depthwise.defvjp(
    lambda x, w, size, sizes, stride: (depthwise(x, w, size, sizes, stride), (x, w, size)),
    _depthwise_bwd,
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def conv(x: Array, w: Array, size: Array | int, sizes: Sizes, stride: int) -> Array:
    """Full convolution: x [B, H, W, I], w [K, K, I, O], kernel `sizes[size]`."""
    forms = (cpu_convolutions.padded, _direct, _patched)
    cpu, alone, together = (_by_size(op, sizes, stride) for op in forms)
    return _by_platform(x.dtype, cpu, alone_or_together(alone, together), size, x, w)


def _conv_bwd(
    sizes: Sizes, stride: int, residuals: tuple[Array, Array, Array], g: Array
) -> tuple[Array, Array, None]:
    def cpu(x: Array, w: Array, size: Array, g: Array) -> tuple[Array, Array]:
        branches = [functools.partial(cpu_convolutions.derivatives, stride, k) for k in sizes]
        return _switch(size, branches, w, x, g)

    alone, together = (_derivatives(op, sizes, stride) for op in (_direct, _patched))
    accelerators = alone_or_together(alone, together)
    return *_by_platform(residuals[0].dtype, cpu, accelerators, *residuals, g), None


conv.defvjp(
    lambda x, w, size, sizes, stride: (conv(x, w, size, sizes, stride), (x, w, size)), _conv_bwd
)


def _by_platform(
    dtype: Any, cpu: Callable[..., Any], accelerators: Callable[..., Any], *given: Array | int
) -> Any:
    """`cpu(*given)` or `accelerators(*given)`, arrays of type `dtype`.

    In bfloat16, which is for accelerators, theirs alone is traced, on a CPU, too: tracing takes a
    tenth less of the time.
    """
    if dtype == jnp.bfloat16:
        return accelerators(*given)
    return lax.platform_dependent(*given, cpu=cpu, default=accelerators)


def _switch(index: Array | int, branches: list, *operands: Array) -> Any:
    """`lax.switch`, without its cost where there is one branch."""
    return branches[0](*operands) if len(branches) == 1 else lax.switch(index, branches, *operands)


def _by_size(op: Op, sizes: Sizes, stride: int) -> Callable[[Array | int, Array, Array], Array]:
    """(size, x, w) -> op(x, centre of w, stride)."""
    branches = [lambda x, w, k=k: op(x, crop(w, k), stride) for k in sizes]
    return lambda size, x, w: _switch(size, branches, x, w)


def _shifted_derivatives(stride: int, k: int, w: Array, x: Array, g: Array) -> tuple[Array, Array]:
    """Gradients of input and weights [K, K, C] of the depthwise convolution by their k x k centre.

    Those of weights are one sum over all taps, where JAX's own derivative has one for each: by that
    a layer takes 1.3 to 2.7 times as long on a GPU (docs/performance.md).
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    with jax.named_scope(TAPS):
        products = jnp.stack(views(x, k, stride)).astype(wide) * g.astype(wide)
    dw = products.sum((1, 2, 3)).reshape(k, k, -1)
    dx = shifted_input_gradient(x, stride, k, w, g)
    return dx, uncropped(dw, w.shape[0]).astype(w.dtype)


def _grouped(x: Array, w: Array, stride: int) -> Array:
    strides, w = (stride, stride), w[:, :, None, :]
    return lax.conv_general_dilated(
        x, w, strides, "SAME", dimension_numbers=LAYOUT, feature_group_count=w.shape[-1]
    )


def _direct(x: Array, w: Array, stride: int) -> Array:
    return lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=LAYOUT)


def _patched(x: Array, w: Array, stride: int) -> Array:
    """The same as one product of matrices, of K x K times the memory of x."""
    patches = jnp.concatenate(views(x, w.shape[0], stride), axis=-1)
    return patches @ w.reshape(-1, w.shape[-1])


def _derivatives(op: Op, sizes: Sizes, stride: int) -> Callable[..., Any]:
    """(x, w, size, g) -> gradients of x and w by JAX, of the operation `op`."""

    def of(x: Array, w: Array, size: Array, g: Array) -> tuple[Array, Array]:
        return jax.vjp(lambda x, w: _by_size(op, sizes, stride)(size, x, w), x, w)[1](g)

    return of


def alone_or_together(
    alone: Callable[..., Any], together: Callable[..., Any]
) -> Callable[..., Any]:
    """`alone`, which under `vmap` is `vmap(together)`: two ways to the same result."""
    chosen = jax.custom_batching.custom_vmap(alone)

    @chosen.def_vmap
    def _(size: int, batched: Any, *given: Any) -> tuple[Any, Any]:
        axes = jax.tree.map(lambda has: 0 if has else None, batched)
        found = jax.vmap(together, in_axes=tuple(axes), axis_size=size)(*given)
        return found, jax.tree.map(lambda _: True, found)

    return chosen
