"""Plain Flax networks of stacked mobile layers (MNAS, Macro); semantics of `children.blocks`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn

from fnas_jax.core.types import Array
from fnas_jax.layers import convolutions, ops
from fnas_jax.networks.layer_specs import Layer, Plan

MOMENTUM = 0.9  # of the running statistics
he_normal = nn.initializers.he_normal()  # arXiv 1502.01852


class FastConv(nn.Module):
    """`nn.Conv` without bias, 'SAME' padding, computed by `children.convolutions`.

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


class MobileLayer(nn.Module):
    """One layer."""

    layer: Layer
    act: str
    fast: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """X [B, H, W, cin] -> [B, H/s, W/s, cout]."""
        v, make = self.layer, functools.partial(conv, self.fast)
        act = functools.partial(ops.activate, self.act)
        if v.op == "shortcut":
            h = make("shortcut", v.cout, 1, v.stride)(x)
            h = norm("norm_out", train)(h)
        elif v.op == "conv":
            h = make("conv", v.cout, v.kernel, v.stride)(x)
            h = self._gate(act(norm("norm_out", train)(h)))
        else:
            h = x
            if v.op == "mbconv":
                h = make("expand", v.middle, 1)(h)
                h = act(norm("norm_expand", train)(h))
            h = make("depthwise", v.middle, v.kernel, v.stride, depthwise=True)(h)
            h = self._gate(act(norm("norm_depthwise", train)(h)))
            h = make("project", v.cout, 1)(h)
            h = norm("norm_out", train)(h)
        return self._skip(x, h)

    def _gate(self, h: Array) -> Array:
        """Squeeze-excitation (arXiv 1709.01507)."""
        if not self.layer.se_hidden:
            return h
        g = nn.relu(
            nn.Dense(self.layer.se_hidden, kernel_init=he_normal, name="squeeze")(h.mean((1, 2)))
        )
        g = nn.sigmoid(nn.Dense(self.layer.gated, kernel_init=he_normal, name="excite")(g))
        return h * g[:, None, None, :]

    def _skip(self, x: Array, h: Array) -> Array:
        v = self.layer
        if v.skip == "none":
            return h
        if v.skip == "pool":
            strides = (v.stride, v.stride)
            x = nn.avg_pool(x, (3, 3), strides, "SAME", count_include_pad=False)
            x = ops.fit_channels(x, v.cout)
        return h + x


class MobileNetwork(nn.Module):
    """Stem 3x3, layers, 1x1 head, average over pixels, linear classifier."""

    plan: Plan
    classes: int
    fast: bool = True

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """Images [B, H, W, channels] -> logits [B, classes]."""
        plan, act = self.plan, functools.partial(ops.activate, self.plan.act)
        x = conv(self.fast, "stem", plan.stem, 3, plan.stem_stride)(images)
        x = act(norm("stem_norm", train)(x))
        for layer in plan.layers:
            x = MobileLayer(layer, plan.act, self.fast, name=layer_name(layer))(x, train)
        if plan.head:
            x = conv(self.fast, "head", plan.head, 1)(x)
            x = act(norm("head_norm", train)(x))
        return nn.Dense(self.classes, name="classifier")(x.mean((1, 2)))


def layer_name(layer: Layer) -> str:
    """The name of a layer's parameters, by its place in the elastic network."""
    return f"stack{layer.stack}_layer{layer.position}"
