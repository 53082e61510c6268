"""Ordinary Flax networks of stacked mobile layers (MNAS, Macro), as `layers.spec` defines them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from fnas_jax.core.types import Array
from fnas_jax.layers import convolutions, ops, own
from fnas_jax.layers.spec import CONV, MBCONV, NO_SKIP, OWN, POOL, LayerSpec
from fnas_jax.networks import dense, mobile_spaces
from fnas_jax.networks.dense import Dense, Outputs

MOMENTUM = 0.9  # of the running statistics
he_normal = nn.initializers.he_normal()  # arXiv 1502.01852


class FastConv(nn.Module):
    """`nn.Conv` without bias, 'SAME' padding, computed by `layers.convolutions`.

    Its parameter has the name and the shape of `nn.Conv`'s, so either can use the other's.
    """

    features: int
    size: int
    stride: int = 1
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X [B, H, W, C] -> [B, H/s, W/s, features]."""
        inputs = 1 if self.depthwise else x.shape[-1]
        w = self.param("kernel", he_normal, (self.size, self.size, inputs, self.features))
        if self.depthwise:
            return convolutions.depthwise(x, w[:, :, 0], 0, (self.size,), self.stride)
        if self.size == 1:
            return convolutions.pointwise(x, w[0, 0], self.stride)
        return convolutions.conv(x, w, 0, (self.size,), self.stride)


def conv(
    fast: bool, name: str, features: int, size: int, stride: int = 1, depthwise: bool = False
) -> Callable[[Array], Array]:
    """A convolution without bias, `FastConv` or `nn.Conv`."""
    if fast:
        return FastConv(features, size, stride, depthwise, name=name)
    return nn.Conv(
        features,
        (size, size),
        (stride, stride),
        feature_group_count=features if depthwise else 1,
        use_bias=False,
        kernel_init=he_normal,
        name=name,
    )


def norm(name: str, train: bool) -> nn.BatchNorm:
    """Batch normalisation; `train` uses and records the batch's moments."""
    return nn.BatchNorm(
        use_running_average=not train, momentum=MOMENTUM, epsilon=ops.BN_EPSILON, name=name
    )


def average(x: Array, size: int, stride: int) -> Array:
    """Averages of size x size pixels, of those that exist, 'SAME' padding."""
    # By keyword: while jax2onnx converts, its own function stands here, which takes no other.
    return nn.avg_pool(
        x,
        window_shape=(size, size),
        strides=(stride, stride),
        padding="SAME",
        count_include_pad=False,
    )


def gate(h: Array, hidden: int, hard: int = 0) -> Array:
    """Squeeze-excitation (arXiv 1709.01507) of h [B, H, W, C]; `hidden` units, 0: none.

    `hard` 1: by hard sigmoids.

    To be called within a module, of which its two linear layers are.
    """
    if not hidden:
        return h
    g = nn.relu(nn.Dense(hidden, kernel_init=he_normal, name="squeeze")(h.mean((1, 2))))
    g = nn.Dense(h.shape[-1], kernel_init=he_normal, name="excite")(g)
    g = nn.hard_sigmoid(g) if hard else nn.sigmoid(g)
    return h * g[:, None, None, :]


def pooled(x: Array, stride: int, channels: int) -> Array:
    """What a pooling skip adds: [B, H, W, C] -> [B, H/s, W/s, channels], cut or with zeros."""
    return ops.fit_channels(average(x, 3, stride), channels)


class MobileLayer(nn.Module):
    """One layer."""

    layer: LayerSpec  # Python ints
    stride: int
    fast: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """X [B, H, W, cin] -> [B, H/s, W/s, cout]."""
        v, make = self.layer, functools.partial(conv, self.fast)
        act = functools.partial(ops.activate, v.act)
        if v.op == CONV:
            h = make("conv", v.cout, v.kernel, self.stride)(x)
            h = gate(act(norm("norm_out", train)(h)), v.se_hidden, v.hard_gate)
        else:
            h = x
            if v.op == MBCONV:
                h = make("expand", v.middle, 1)(h)
                h = act(norm("norm_expand", train)(h))
            h = make("depthwise", v.middle, v.kernel, self.stride, depthwise=True)(h)
            h = gate(act(norm("norm_depthwise", train)(h)), v.se_hidden, v.hard_gate)
            h = make("project", v.cout, 1)(h)
            h = norm("norm_out", train)(h)
        return add_skip(v, self.stride, x, h)


def add_skip(v: LayerSpec, stride: int, x: Array, h: Array) -> Array:
    """`h` with what the layer's skip makes of its input `x` added."""
    if v.skip == NO_SKIP:
        return h
    return h + (pooled(x, stride, v.cout) if v.skip == POOL else x)


class MobileNetwork(nn.Module):
    """Stem 3x3, layers, 1x1 head, average over pixels, linear classifier (or two).

    `Dense`: logits at every pixel, by every resolution.
    """

    spec: Any  # of the space
    layers: tuple[tuple[int, int, int, LayerSpec], ...]  # of `mobile_spaces.layers_of`
    classes: Outputs
    fast: bool = True

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """Images [B, H, W, channels] -> logits, see `Outputs`."""
        spec, act = self.spec, functools.partial(ops.activate, mobile_spaces.act(self.spec))
        x = conv(self.fast, "stem", spec.stem, 3, spec.stem_stride)(images)
        x = act(norm("stem_norm", train)(x))
        scores: list[Array] = []
        for stack, position, stride, layer in self.layers:
            name = layer_name(stack, position)
            if stride > 1 and isinstance(self.classes, Dense):
                scores.append(score(len(scores), self.classes)(x))
            if layer.op >= OWN:
                x = add_skip(layer, stride, x, own.module(layer.op, name)(x, train))
            else:
                x = MobileLayer(layer, stride, self.fast, name=name)(x, train)
        if spec.head:
            x = conv(self.fast, "head", spec.head, 1)(x)
            x = act(norm("head_norm", train)(x))
        mix = mobile_spaces.mix(spec)
        before = (lambda x: act(nn.Dense(mix, name="mix")(x))) if mix else None
        return logits(self.classes, scores, x, images, before)


def score(number: int, outputs: Outputs) -> nn.Dense:
    """The 1x1 convolution from the last output of a resolution to scores, of which one is added.

    Resolutions but the last are counted from 0.
    """
    return nn.Dense(dense.count(outputs), use_bias=False, name=score_name(number))


def score_name(number: int) -> str:
    """The name of the parameters of `score`."""
    return f"score{number}"


def logits(
    outputs: Outputs,
    scores: list[Array],
    x: Array,
    images: Array,
    before: Callable[[Array], Array] | None = None,
) -> Array:
    """What a network says, by features x [B, h, w, C] and `scores` of the resolutions before.

    To be called within a module, of which its linear layer is; `before` stands in front of that.
    """
    x = x if isinstance(outputs, Dense) else x.mean((1, 2))
    said = nn.Dense(dense.count(outputs), name="classifier")(x if before is None else before(x))
    if isinstance(outputs, Dense):
        return dense.total([*scores, said], images.shape[1:3])
    return said


def layer_name(stack: int, position: int) -> str:
    """The name of a layer's parameters, by its place in the elastic network."""
    return f"stack{stack}_layer{position}"
