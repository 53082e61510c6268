"""The data-set encoder phi: images of C classes -> R^K, by two Set Transformers.

The first turns the images of a class into one vector, the second turns the classes' vectors into
the code. Each is SAB, SAB, PMA with one seed, and a linear layer (Lee et al., ICML 2019, arXiv
1810.00825), so that neither the order of images nor that of classes matters (MetaD2A, Lee et al.,
ICLR 2021).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods.tnas import layers

HEADS = 4


class Attention(NamedTuple):
    """MAB(X, Y) = H + relu(H W + b) with H = X + Attention(X, Y, Y) (equations 6 and 7)."""

    query: layers.Dense  # [H, H], and so the next three
    key: layers.Dense
    value: layers.Dense
    out: layers.Dense


class SetTransformer(NamedTuple):
    """From a set of vectors to one vector."""

    enter: layers.Dense  # [inputs, H]
    first: Attention
    second: Attention
    seed: Array  # [1, H]
    pool: Attention
    leave: layers.Dense  # [H, outputs]


class SetEncoder(NamedTuple):
    """All weights of phi."""

    images: SetTransformer
    classes: SetTransformer


class Sample(NamedTuple):
    """Features of up to n images of each of up to C classes of Q data sets."""

    features: Array  # [Q, C, n, F] float32
    mask: Array  # [Q, C, n] bool: there is such an image


def init(key: Array, features: int, hidden: int, code: int) -> SetEncoder:
    """Weights for images of `features` numbers; `hidden` must be a multiple of `HEADS`."""

    def attention(key: Array) -> Attention:
        return Attention(*(layers.dense_init(k, hidden, hidden) for k in jax.random.split(key, 4)))

    def transformer(key: Array, inputs: int, outputs: int) -> SetTransformer:
        keys = jax.random.split(key, 6)
        return SetTransformer(
            layers.dense_init(keys[0], inputs, hidden),
            attention(keys[1]),
            attention(keys[2]),
            jax.random.normal(keys[3], (1, hidden)),
            attention(keys[4]),
            layers.dense_init(keys[5], hidden, outputs),
        )

    key_images, key_classes = jax.random.split(key)
    return SetEncoder(
        transformer(key_images, features, hidden), transformer(key_classes, hidden, code)
    )


def encode(p: SetEncoder, sample: Sample) -> Array:
    """[Q, K] codes of mean 0 and variance 1; images and classes masked out have no influence."""
    return jax.vmap(_encode, (None, 0))(p, sample)


def _encode(p: SetEncoder, sample: Sample) -> Array:
    """[K] of one data set (leading axis Q dropped)."""
    vectors = jax.vmap(_transform, (None, 0, 0))(p.images, sample.features, sample.mask)
    return layers.layer_norm(_transform(p.classes, vectors, sample.mask.any(axis=-1)))


def _transform(p: SetTransformer, x: Array, mask: Array) -> Array:
    """[m, inputs] with mask [m] -> [outputs]."""
    x = layers.dense(p.enter, x)
    x = _attend(p.first, x, x, mask)
    x = _attend(p.second, x, x, mask)
    return layers.dense(p.leave, _attend(p.pool, p.seed, x, mask)[0])


def _attend(p: Attention, x: Array, y: Array, mask: Array) -> Array:
    """MAB(x [m, H], y [n, H]) -> [m, H]; `mask` [n] of y."""

    def heads(part: layers.Dense, z: Array) -> Array:
        return layers.dense(part, z).reshape(len(z), HEADS, -1)

    query, key, value = heads(p.query, x), heads(p.key, y), heads(p.value, y)
    scores = jnp.einsum("ihd,jhd->hij", query, key) / query.shape[-1] ** 0.5
    shares = jax.nn.softmax(jnp.where(mask, scores, -1e9), axis=-1)
    found = jnp.einsum("hij,jhd->ihd", jnp.where(mask, shares, 0.0), value)
    h = layers.layer_norm(x + found.reshape(x.shape))
    return layers.layer_norm(h + jax.nn.relu(layers.dense(p.out, h)))
