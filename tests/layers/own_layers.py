"""Layers of a user's own, good and bad ones."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from fnas_jax import layered
from fnas_jax.ship.stock import conv, norm

HALF = 0.5


class Ghost(nn.Module):
    """A convolution, a cheap one of its channels, and a learnt scale without normalisation."""

    features: int
    stride: int
    kernel: int = 3

    @nn.compact
    def __call__(self, x, train):
        half = self.features // 2
        h = nn.silu(norm("norm", train)(conv("main", half, 3, self.stride)(x)))
        cheap = norm("norm_cheap", train)(conv("cheap", half, self.kernel, groups=half)(h))
        h = jnp.concatenate([h, cheap], axis=-1)
        return h * self.param("gain", nn.initializers.constant(0.5), (self.features,))


class Quick(nn.Module):
    """Normalisation with a momentum of its own."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train, momentum=0.3)(x)


class Turned(nn.Module):
    """A convolution and an activation by name."""

    features: int
    stride: int
    act: str = "relu"

    @nn.compact
    def __call__(self, x, train):
        h = norm("norm", train)(conv("main", self.features, 1, self.stride)(x))
        return {"relu": nn.relu, "tanh": nn.tanh}[self.act](h)


class Still(nn.Module):
    """Normalisation by statistics that stay as they are, or by the batch in use, too."""

    features: int
    stride: int
    frozen: bool = True

    @nn.compact
    def __call__(self, x, train):
        h = conv("main", self.features, 1, self.stride)(x)
        return norm("norm", train)(nn.BatchNorm(use_running_average=self.frozen)(h))


class Branching(nn.Module):
    """A product or none, and another one in a loop of unknown length."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x, train):
        w = self.param("w", nn.initializers.ones, (x.shape[-1], self.features))
        h = lax.cond(x.sum() > 0, lambda x: x @ w, lambda x: x[..., : self.features], x)
        return lax.while_loop(lambda h: h.sum() > 1, lambda h: 0.5 * (h @ w), h)


class Deaf(nn.Module):
    """It does not look at its stride."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x, train):
        return conv("main", self.features, 1)(x)


class Lucky(nn.Module):
    """It needs random numbers."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dropout(0.5, deterministic=not train)(conv("main", self.features, 1)(x))


class Counting(nn.Module):
    """It has variables that are neither parameters nor statistics."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x, train):
        self.variable("cache", "calls", jnp.zeros, ())
        return x


class Sized(nn.Module):
    """Its parameters are as many as the image has pixels."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x, train):
        return x + self.param("place", nn.initializers.zeros, x.shape[1:])


class Foreign(nn.Module):
    """It reads a number of its file."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x, train):
        return HALF * x


space = layered.make(
    [
        layered.stage(
            8,
            {
                "ghost": layered.own(Ghost, skip="identity", kernel=5),
                "mb": layered.mbconv(3, 2, se=True),
            },
            depth=2,
            stride=2,
            optional=True,
        ),
    ],
    stem=8,
    head=16,
)


class Named(nn.Module):
    """A layer with parameters of names that ours have, some of them no weights."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x, train: bool):
        h = nn.Conv(self.features, (3, 3), (self.stride, self.stride), use_bias=False)(x)
        scale = self.param("scale", nn.initializers.ones, ())
        gain = self.param("gain", nn.initializers.ones, (self.features,))
        return h * scale * gain + nn.Dense(self.features, use_bias=False, name="w1")(h)
