"""Convolutions and their derivatives as XLA's compiler for CPUs has them fast.

Inside a conditional or a loop, only plain convolutions (no dilation, kernel no larger than the
image) reach its fast routine, the others take a hundred times as long. So derivatives are written
as plain convolutions of dilated or transposed images.
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers.taps import LAYOUT, Sizes, crop, pad, same_padding, uncropped

_GROUP = 4  # images per pass of a depthwise weight gradient: more leave the cache, fewer loop more


def padded(x: Array, w: Array, stride: int) -> Array:
    """Full convolution of x [B, H, W, I] by w [k, k, I, O]."""
    return _valid(pad(x, w.shape[0], stride)[0], w, stride)


def _valid(x: Array, w: Array, stride: int = 1) -> Array:
    # Without the barrier, XLA would fold the padding back into the convolution, and a kernel
    # larger than the unpadded image would miss the fast routine.
    x = lax.optimization_barrier(x)
    return lax.conv_general_dilated(x, w, (stride, stride), "VALID", dimension_numbers=LAYOUT)


def derivatives(stride: int, k: int, w: Array, x: Array, g: Array) -> tuple[Array, Array]:
    """Gradients of input and weights [K, K, I, O] of the convolution by their k x k centre."""
    dw = _weight_gradient(x, g, k, stride)
    dx = _input_gradient(x, crop(w, k), g, stride)
    return dx, uncropped(dw, w.shape[0])


def _input_gradient(x: Array, w: Array, g: Array, stride: int) -> Array:
    """g, dilated to the input's grid, convolved with the transposed and rotated kernel."""
    k = w.shape[0]
    pads = []
    for size in x.shape[1:3]:
        low, _, out = same_padding(size, k, stride)
        before = k - 1 - low
        pads.append((before, size + low - ((out - 1) * stride + 1), stride - 1))
    dilated = lax.pad(g, _zero(g), ((0, 0, 0), *pads, (0, 0, 0)))
    return _valid(dilated, jnp.swapaxes(w[::-1, ::-1], 2, 3))


def _weight_gradient(x: Array, g: Array, k: int, stride: int) -> Array:
    """A convolution whose kernel is g and whose channels are the images of the batch."""
    dilated = lax.pad(g, _zero(g), ((0, 0, 0), *((0, 0, stride - 1),) * 2, (0, 0, 0)))
    pads = []
    for size, cover in zip(x.shape[1:3], dilated.shape[1:3], strict=True):
        low, _, _ = same_padding(size, k, stride)
        pads.append((low, cover + k - 1 - size - low, 0))  # a negative pad cuts
    padded = lax.pad(x, _zero(x), ((0, 0, 0), *pads, (0, 0, 0)))
    return _valid(padded.transpose(3, 1, 2, 0), dilated.transpose(1, 2, 0, 3)).transpose(1, 2, 0, 3)


def _zero(x: Array) -> Array:
    return jnp.zeros((), x.dtype)


def tap_sums(x: Array, g: Array, size: Array, sizes: Sizes, largest: int, stride: int) -> Array:
    """Weight gradient of `depthwise`, [K, K, C], summed by a few images to stay in the cache.

    One loop for all kernel sizes: with 'SAME' padding, a smaller kernel's taps are the centre
    of the largest one's.
    """
    x, height, width = pad(x, largest, stride)
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
