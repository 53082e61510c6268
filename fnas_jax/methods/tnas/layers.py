"""Dense layers, normalisation and a GRU cell as pure functions of their parameters.

Symbols of this folder: V nodes of a graph, F features of a node or an image, H hidden units,
L and K numbers of an architecture's and a data set's code, D dimensions of the kernel's input.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array


class Dense(NamedTuple):
    """x -> x w + b."""

    w: Array  # [inputs, outputs]
    b: Array  # [outputs]


class Gru(NamedTuple):
    """A gated recurrent unit; the three blocks of columns are reset, update and candidate."""

    x: Dense  # [inputs, 3 H]
    h: Array  # [H, 3 H]


def dense_init(key: Array, inputs: int, outputs: int, gain: float = 1.0) -> Dense:
    """Normal weights of variance gain^2 / inputs, and zero biases."""
    w = gain * jax.random.normal(key, (inputs, outputs)) / max(inputs, 1) ** 0.5
    return Dense(w, jnp.zeros(outputs))


def dense(p: Dense, x: Array) -> Array:
    """[.., inputs] -> [.., outputs]."""
    return x @ p.w + p.b


def mlp_init(key: Array, sizes: tuple[int, ...]) -> tuple[Dense, ...]:
    """Layers of `sizes` = (inputs, hidden.., outputs), scaled for ReLU."""
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    last = len(sizes) - 2
    return tuple(
        dense_init(k, i, o, 1.0 if n == last else 2.0**0.5) for n, (k, i, o) in enumerate(pairs)
    )


def layer_norm(x: Array) -> Array:
    """[.., n] -> [.., n] of mean 0 and variance 1, without parameters."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)


def gru_init(key: Array, inputs: int, hidden: int) -> Gru:
    """Normal weights scaled by their fan-in."""
    key_x, key_h = jax.random.split(key)
    return Gru(dense_init(key_x, inputs, 3 * hidden), dense_init(key_h, hidden, 3 * hidden).w)


def gru(p: Gru, x: Array, h: Array) -> Array:
    """The next state [H] of inputs x [F] and state h [H] (Cho et al. 2014, arXiv 1406.1078)."""
    from_x = jnp.split(dense(p.x, x), 3, axis=-1)
    from_h = jnp.split(h @ p.h, 3, axis=-1)
    reset, update = (jax.nn.sigmoid(a + b) for a, b in zip(from_x[:2], from_h[:2], strict=True))
    candidate = jnp.tanh(from_x[2] + reset * from_h[2])
    return (1 - update) * candidate + update * h
