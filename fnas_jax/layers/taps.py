"""Shifted views of padded images, of which convolutions are sums; kernels and their centres.

Images are [B, H, W, C], padding is 'SAME', strides are 1 or 2.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core.types import Array

Sizes = tuple[int, ...]
LAYOUT = ("NHWC", "HWIO", "NHWC")
TAPS = "depthwise_taps"  # name, in programs and profiles, of convolutions as shifted products


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """(low, high, output size) of 'SAME' padding as `lax.conv_general_dilated` defines it."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2, out


def crop(w: Array, size: int) -> Array:
    """The centre size x size part of w [K, K, ..]."""
    margin = (w.shape[0] - size) // 2
    return w[margin : margin + size, margin : margin + size]


def uncropped(w: Array, size: int) -> Array:
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


def pad(x: Array, kernel: int, stride: int) -> tuple[Array, int, int]:
    """X with 'SAME' padding, and the output's height and width."""
    top, bottom, height = same_padding(x.shape[1], kernel, stride)
    left, right, width = same_padding(x.shape[2], kernel, stride)
    return jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0))), height, width


def views(x: Array, kernel: int, stride: int) -> list[Array]:
    """The kernel*kernel shifted views [B, Ho, Wo, C] of a zero-padded x, row by row."""
    x, height, width = pad(x, kernel, stride)
    rows, cols = (height - 1) * stride + 1, (width - 1) * stride + 1
    batch, _, _, channels = x.shape
    return [
        lax.slice(x, (0, i, j, 0), (batch, i + rows, j + cols, channels), (1, stride, stride, 1))
        for i in range(kernel)
        for j in range(kernel)
    ]


def shifted(x: Array, w: Array, stride: int) -> Array:
    """Depthwise convolution of x [B, H, W, C] by w [k, k, C], as a sum of products."""
    k = w.shape[0]
    taps = zip(views(x, k, stride), lax.split(w.reshape(k * k, -1), (1,) * k * k), strict=True)
    with jax.named_scope(TAPS):
        return functools.reduce(jnp.add, (tap * weight for tap, weight in taps))


def shifted_input_gradient(x: Array, stride: int, k: int, w: Array, g: Array) -> Array:
    """Gradient of the images x, of `shifted` by the k x k centre of w [K, K, C]."""
    return jax.vjp(lambda x: shifted(x, crop(w, k), stride), x)[1](g)[0]
