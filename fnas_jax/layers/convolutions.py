"""Convolutions whose kernel size is data: an index into a tuple of odd sizes.

Weights have the largest size, and a smaller kernel is their centre. Images are [B, H, W, C], on
accelerators in bfloat16, padding is 'SAME', strides are 1 or 2, kernels at least 3 wide where the
stride is 2.

XLA needs help:

A grouped convolution takes ten times as long on a CPU as the shifted products it stands for. On a
GPU, children at once would make grouped convolutions of all, whose derivatives take minutes to
compile and to run: there, children at once have shifted products (`_shifted`) and products of
matrices (`_patched`).

The rest is help for its CPU compiler only (`_by_platform`):
- inside a conditional or a loop, only plain convolutions (no dilation, kernel no larger than the
  image) reach its fast routine, the others take a hundred times as long. So derivatives are
  written as plain convolutions of dilated or transposed images.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core.types import Array

Sizes = tuple[int, ...]
Op = Callable[[Array, Array, int], Array]  # (x, w, stride) -> the convolution
_LAYOUT = ("NHWC", "HWIO", "NHWC")
TAPS = "depthwise_taps"  # name, in programs and profiles, of convolutions as shifted products
_GROUP = 4  # images per pass of a depthwise weight gradient: more leave the cache, fewer loop more


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """(low, high, output size) of 'SAME' padding as `lax.conv_general_dilated` defines it."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2, out


def crop(w: Array, size: int) -> Array:
    """The centre size x size part of w [K, K, ..]."""
    margin = (w.shape[0] - size) // 2
    return w[margin : margin + size, margin : margin + size]


def _uncropped(w: Array, size: int) -> Array:
    """W [K, K, ..] as the centre of size x size zeros: the derivative of `crop`."""
    margin = (size - w.shape[0]) // 2
    return jnp.pad(w, ((margin, margin), (margin, margin), *((0, 0),) * (w.ndim - 2)))


def centre(w: Array, size: Array | int) -> Array:
    """W [K, K, ..], zero outside its size x size centre."""
    largest = w.shape[0]
    if isinstance(size, int) and size >= largest:
        return w
    side = jnp.abs(np.arange(largest) - largest // 2) <= size // 2
    return w * jnp.outer(side, side).reshape(largest, largest, *(1,) * (w.ndim - 2))


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
    return functools.reduce(jnp.add, _taps(x, 3, stride)) * (1 / count).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def depthwise(x: Array, w: Array, size: Array | int, sizes: Sizes, stride: int) -> Array:
    """Depthwise convolution: x [B, H, W, C], w [K, K, C], kernel `sizes[size]`."""
    alone, together = (_by_size(op, sizes, stride) for op in (_grouped, _shifted))
    return _by_platform(x.dtype, together, alone_or_together(alone, together), size, x, w)


def _depthwise_bwd(
    sizes: Sizes, stride: int, residuals: tuple[Array, Array, Array], g: Array
) -> tuple[Array, Array, None]:
    def cpu(x: Array, w: Array, size: Array, g: Array) -> tuple[Array, Array]:
        branches = [functools.partial(_shifted_input_gradient, x, stride, k) for k in sizes]
        return _switch(size, branches, w, g), _tap_sums(x, g, size, sizes, w.shape[0], stride)

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
    cpu, alone, together = (_by_size(op, sizes, stride) for op in (_padded, _direct, _patched))
    return _by_platform(x.dtype, cpu, alone_or_together(alone, together), size, x, w)


def _conv_bwd(
    sizes: Sizes, stride: int, residuals: tuple[Array, Array, Array], g: Array
) -> tuple[Array, Array, None]:
    def cpu(x: Array, w: Array, size: Array, g: Array) -> tuple[Array, Array]:
        branches = [functools.partial(_conv_derivatives, stride, k) for k in sizes]
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


def _conv_derivatives(stride: int, k: int, w: Array, x: Array, g: Array) -> tuple[Array, Array]:
    """Gradients of input and weights [K, K, I, O] of the convolution by their k x k centre."""
    dw = _conv_weight_gradient(x, g, k, stride)
    dx = _conv_input_gradient(x, crop(w, k), g, stride)
    return dx, _uncropped(dw, w.shape[0])


def _switch(index: Array | int, branches: list, *operands: Array) -> Any:
    """`lax.switch`, without its cost where there is one branch."""
    return branches[0](*operands) if len(branches) == 1 else lax.switch(index, branches, *operands)


def _by_size(op: Op, sizes: Sizes, stride: int) -> Callable[[Array | int, Array, Array], Array]:
    """(size, x, w) -> op(x, centre of w, stride)."""
    branches = [lambda x, w, k=k: op(x, crop(w, k), stride) for k in sizes]
    return lambda size, x, w: _switch(size, branches, x, w)


def _pad(x: Array, kernel: int, stride: int) -> tuple[Array, int, int]:
    """X with 'SAME' padding, and the output's height and width."""
    top, bottom, height = same_padding(x.shape[1], kernel, stride)
    left, right, width = same_padding(x.shape[2], kernel, stride)
    return jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0))), height, width


def _taps(x: Array, kernel: int, stride: int) -> list[Array]:
    """The kernel*kernel shifted views [B, Ho, Wo, C] of a zero-padded x, row by row."""
    x, height, width = _pad(x, kernel, stride)
    rows, cols = (height - 1) * stride + 1, (width - 1) * stride + 1
    batch, _, _, channels = x.shape
    return [
        lax.slice(x, (0, i, j, 0), (batch, i + rows, j + cols, channels), (1, stride, stride, 1))
        for i in range(kernel)
        for j in range(kernel)
    ]


def _shifted(x: Array, w: Array, stride: int) -> Array:
    k = w.shape[0]
    taps = zip(_taps(x, k, stride), lax.split(w.reshape(k * k, -1), (1,) * k * k), strict=True)
    with jax.named_scope(TAPS):
        return functools.reduce(jnp.add, (tap * weight for tap, weight in taps))


def _shifted_input_gradient(x: Array, stride: int, k: int, w: Array, g: Array) -> Array:
    return jax.vjp(lambda x: _shifted(x, crop(w, k), stride), x)[1](g)[0]


def _shifted_derivatives(stride: int, k: int, w: Array, x: Array, g: Array) -> tuple[Array, Array]:
    """Gradients of input and weights [K, K, C] of the depthwise convolution by their k x k centre.

    Those of weights are one sum over all taps, where JAX's own derivative has one for each: by that
    a layer takes 1.3 to 2.7 times as long on a GPU (docs/performance.md).
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    with jax.named_scope(TAPS):
        products = jnp.stack(_taps(x, k, stride)).astype(wide) * g.astype(wide)
    dw = products.sum((1, 2, 3)).reshape(k, k, -1)
    dx = _shifted_input_gradient(x, stride, k, w, g)
    return dx, _uncropped(dw, w.shape[0]).astype(w.dtype)


def _tap_sums(x: Array, g: Array, size: Array, sizes: Sizes, largest: int, stride: int) -> Array:
    """Weight gradient of `depthwise`, [K, K, C], summed by a few images to stay in the cache.

    One loop for all kernel sizes: with 'SAME' padding, a smaller kernel's taps are the centre
    of the largest one's.
    """
    x, height, width = _pad(x, largest, stride)
    rows, cols = (height - 1) * stride + 1, (width - 1) * stride + 1
    positions = [
        [i * largest + j for i in range(m, m + k) for j in range(m, m + k)]
        for k, m in ((k, (largest - k) // 2) for k in sizes)
    ]
    count = jnp.asarray([len(row) for row in positions])[size]
    taps = jnp.asarray([row + [0] * (largest**2 - len(row)) for row in positions])[size]
    rows_of, cols_of = taps // largest, taps % largest

    group = math.gcd(x.shape[0], _GROUP)

    def add_tap(xg: tuple[Array, Array], t: Array, sums: Array) -> Array:
        images, cotangents = xg
        start = (0, rows_of[t], cols_of[t], 0)
        view = lax.dynamic_slice(images, start, (group, rows, cols, images.shape[-1]))
        view = view[:, ::stride, ::stride]
        return sums.at[taps[t]].add(view * cotangents, mode="promise_in_bounds")

    def add_images(sums: Array, xg: tuple[Array, Array]) -> tuple[Array, None]:
        return lax.fori_loop(0, count, functools.partial(add_tap, xg), sums), None

    zeros = jnp.zeros((largest**2, group, *g.shape[1:]), g.dtype)
    grouped = x.reshape(-1, group, *x.shape[1:]), g.reshape(-1, group, *g.shape[1:])
    sums, _ = lax.scan(add_images, zeros, grouped)
    return sums.sum((1, 2, 3)).reshape(largest, largest, -1)


def _grouped(x: Array, w: Array, stride: int) -> Array:
    strides, w = (stride, stride), w[:, :, None, :]
    return lax.conv_general_dilated(
        x, w, strides, "SAME", dimension_numbers=_LAYOUT, feature_group_count=w.shape[-1]
    )


def _direct(x: Array, w: Array, stride: int) -> Array:
    return lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=_LAYOUT)


def _patched(x: Array, w: Array, stride: int) -> Array:
    """The same as one product of matrices, of K x K times the memory of x."""
    patches = jnp.concatenate(_taps(x, w.shape[0], stride), axis=-1)
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


def _valid(x: Array, w: Array, stride: int = 1) -> Array:
    # Without the barrier, XLA would fold the padding back into the convolution, and a kernel
    # larger than the unpadded image would miss the fast routine.
    x = lax.optimization_barrier(x)
    return lax.conv_general_dilated(x, w, (stride, stride), "VALID", dimension_numbers=_LAYOUT)


def _padded(x: Array, w: Array, stride: int) -> Array:
    return _valid(_pad(x, w.shape[0], stride)[0], w, stride)


def _zero(x: Array) -> Array:
    return jnp.zeros((), x.dtype)


def _conv_input_gradient(x: Array, w: Array, g: Array, stride: int) -> Array:
    """g, dilated to the input's grid, convolved with the transposed and rotated kernel."""
    k = w.shape[0]
    pads = []
    for size in x.shape[1:3]:
        low, _, out = same_padding(size, k, stride)
        before = k - 1 - low
        pads.append((before, size + low - ((out - 1) * stride + 1), stride - 1))
    dilated = lax.pad(g, _zero(g), ((0, 0, 0), *pads, (0, 0, 0)))
    return _valid(dilated, jnp.swapaxes(w[::-1, ::-1], 2, 3))


def _conv_weight_gradient(x: Array, g: Array, k: int, stride: int) -> Array:
    """A convolution whose kernel is g and whose channels are the images of the batch."""
    dilated = lax.pad(g, _zero(g), ((0, 0, 0), *((0, 0, stride - 1),) * 2, (0, 0, 0)))
    pads = []
    for size, cover in zip(x.shape[1:3], dilated.shape[1:3], strict=True):
        low, _, _ = same_padding(size, k, stride)
        pads.append((low, cover + k - 1 - size - low, 0))  # a negative pad cuts
    padded = lax.pad(x, _zero(x), ((0, 0, 0), *pads, (0, 0, 0)))
    return _valid(padded.transpose(3, 1, 2, 0), dilated.transpose(1, 2, 0, 3)).transpose(1, 2, 0, 3)
