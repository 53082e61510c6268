"""Layers of exported networks: plain Flax, for sizes that are known.

Nothing here is run by fnas_jax: `flax_source` copies what a network needs into its model.py, so no
definition may use anything but flax, jax and what `flax_source` copies with it. Tests compare each
with the network that was trained.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def conv(name: str, features: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv:
    """A convolution without bias; `groups` of as many as there are channels: depthwise."""
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        feature_group_count=groups,
        use_bias=False,
        kernel_init=nn.initializers.he_normal(),
        name=name,
    )


def norm(name: str, train: bool) -> nn.BatchNorm:
    """Batch normalisation; `train` uses and records the batch's moments."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name=name)


def linear(x: Any) -> Any:
    """No activation."""
    return x


def average(x: Any, size: int, stride: int) -> Any:
    """Averages of size x size pixels, of those that exist."""
    return nn.avg_pool(
        x,
        window_shape=(size, size),
        strides=(stride, stride),
        padding="SAME",
        count_include_pad=False,
    )


def gate(x: Any, hidden: int, weigh: Any) -> Any:
    """Squeeze-excitation (arXiv 1709.01507): channels weighed by a network of their means."""
    g = nn.relu(nn.Dense(hidden, name="squeeze")(x.mean((1, 2))))
    g = weigh(nn.Dense(x.shape[-1], name="excite")(g))
    return x * g[:, None, None, :]


def skipped(x: Any, h: Any, skip: str, stride: int) -> Any:
    """`h` with the layer's input `x` added: as it is, or averaged, or not at all."""
    if skip == "identity":
        return h + x
    if skip == "pool":
        x = average(x, 3, stride)[..., : h.shape[-1]]
        missing = h.shape[-1] - x.shape[-1]
        return h + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))
    return h


def total(scores: Any, size: tuple[int, int]) -> Any:
    """Scores, each [N, h, w, C] of its own h and w, enlarged to `size` and added: [N, H, W, C]."""

    def enlarged(x: Any) -> Any:
        return jax.image.scale_and_translate(
            x,
            (x.shape[0], *size, x.shape[3]),
            spatial_dims=(1, 2),
            scale=jnp.asarray([size[0] / x.shape[1], size[1] / x.shape[2]]),
            translation=jnp.zeros(2),
            method="bilinear",
            antialias=False,
        )

    return sum(map(enlarged, scores[1:]), enlarged(scores[0]))


class ConvLayer(nn.Module):
    """A convolution, normalisation, activation; perhaps squeeze-excitation and a skip."""

    out: int
    kernel: int
    stride: int
    squeeze: int  # hidden units of squeeze-excitation; 0: none
    skip: str
    act: Any
    weigh: Any = nn.sigmoid  # of squeeze-excitation

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        """[N, H, W, C] -> [N, H / stride, W / stride, out]."""
        h = conv("conv", self.out, self.kernel, self.stride)(x)
        h = self.act(norm("norm_out", train)(h))
        if self.squeeze:
            h = gate(h, self.squeeze, self.weigh)
        return skipped(x, h, self.skip, self.stride)


class DepthwiseLayer(nn.Module):
    """Depthwise and 1x1 convolution, perhaps with an expansion in front (MobileNetV2)."""

    out: int
    kernel: int
    stride: int
    middle: int  # channels of the depthwise convolution
    expand: bool  # a 1x1 convolution in front; else `middle` is the number of input channels
    squeeze: int  # hidden units of squeeze-excitation; 0: none
    skip: str
    act: Any
    weigh: Any = nn.sigmoid  # of squeeze-excitation

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        """[N, H, W, C] -> [N, H / stride, W / stride, out]."""
        h = x
        if self.expand:
            h = conv("expand", self.middle, 1)(h)
            h = self.act(norm("norm_expand", train)(h))
        h = conv("depthwise", self.middle, self.kernel, self.stride, groups=self.middle)(h)
        h = self.act(norm("norm_depthwise", train)(h))
        if self.squeeze:
            h = gate(h, self.squeeze, self.weigh)
        h = norm("norm_out", train)(conv("project", self.out, 1)(h))
        return skipped(x, h, self.skip, self.stride)


class Cell(nn.Module):
    """Four nodes (NAS-Bench-201), each the sum of its incoming edges; node 0 is the input."""

    edges: tuple[tuple[int, int, str, str], ...]  # from, to, operation, name of its variables

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        """[N, H, W, C] -> the same shape."""
        nodes = [x, jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros_like(x)]
        for source, target, op, name in self.edges:
            h = nodes[source]
            if op == "avg_pool_3x3":
                h = average(h, 3, 1)
            elif op != "skip_connect":  # nor_conv_1x1, nor_conv_3x3
                h = conv(f"{name}_conv", h.shape[-1], int(op[-1]))(nn.relu(h))
                h = norm(f"{name}_norm", train)(h)
            nodes[target] = nodes[target] + h
        return nodes[3]


class Reduction(nn.Module):
    """Residual block that halves height and width and doubles the channels."""

    out: int

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        """[N, H, W, C] -> [N, H / 2, W / 2, out]."""
        h = conv("conv1", self.out, 3, 2)(nn.relu(x))
        h = nn.relu(norm("norm1", train)(h))
        h = norm("norm2", train)(conv("conv2", self.out, 3)(h))
        return h + conv("shortcut", self.out, 1)(average(x, 2, 2))
