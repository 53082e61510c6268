"""An own layer in a space of networks that are trained: a Ghost module (arXiv 1911.11907).

python own_layer.py
"""

import flax.linen as nn
import jax.numpy as jnp

import fnas_jax
from fnas_jax import layered
from fnas_jax.ship.stock import conv, norm


class Ghost(nn.Module):
    """Half of the channels by a convolution, the others by a cheap one of each of these."""

    features: int
    stride: int
    kernel: int = 3

    @nn.compact
    def __call__(self, x, train):
        half = self.features // 2
        h = nn.relu(norm("norm", train)(conv("main", half, 1, self.stride)(x)))
        cheap = conv("cheap", half, self.kernel, groups=half)(h)
        return jnp.concatenate([h, nn.relu(norm("norm_cheap", train)(cheap))], axis=-1)


choices = {"mbconv": layered.mbconv(3, 3), "ghost": layered.own("own_layer:Ghost", kernel=3)}
space = layered.make([layered.stage(16, choices, depth=2, stride=2, optional=True)], stem=8)

if __name__ == "__main__":
    short = {"children": {"steps": 40}, "winner": {"steps": 100}, "budget": 4}
    plain = {"method": "random", "akp": {"enabled": False}}
    parts = {"task": "images/digits", "space": "own_layer:space"}
    result = fnas_jax.search(**parts, **short, **plain, workdir="runs/own_layer")
    print(result, result.export("runs/own_layer/shipped", formats=["flax"]))
