"""The deep kernel's input xi(data set, architecture), from the two encoders (Shala et al., 2023).

    xi = [ vec(X W) / sqrt(2) ;  g MLP([phi; psi]) ]

psi is the graph's code, phi the data set's, and the MLP their fusion. The first part is ours: the
features X of the nodes through one shared matrix W, which is the identity at the start, so that a
kernel that has learnt nothing is one of the decisions' Hamming distance, and of what is known of
networks before training (`methods.beside`). The factor g is small at
the start and grows as the fusion learns something.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods.beside import SHARE, beside
from fnas_jax.methods.tnas import graph_encoder, layers, set_encoder
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.graph_encoder import Graphs
from fnas_jax.methods.tnas.set_encoder import Sample
from fnas_jax.spaces.base import Space, one_hot

CHUNK = 1024  # architectures that are encoded at once
DRAWN = 256  # random networks by which distances are told


class Hyper(NamedTuple):
    """Of the Gaussian process; logarithms, all [] float32."""

    lengthscale: Array
    signal: Array  # variance s^2
    noise: Array  # variance
    share: Array  # log-odds of rho, the correlation of a function between tasks
    gate: Array  # g


class Weights(NamedTuple):
    """w = (w_psi, w_phi, w_xi, w_k) of the paper's equation 3."""

    graph: graph_encoder.GraphEncoder
    data: set_encoder.SetEncoder
    tasks: Array  # [Q, K] learnt codes of tasks without images; or [Z, K], from their vectors
    nodes: Array  # [F, F] W
    fusion: tuple[layers.Dense, ...]
    film: tuple[layers.Dense, ...]  # [K, 2 x units] of each hidden layer
    hyper: Hyper


class Inputs(NamedTuple):
    """What the encoders read of N architectures; leading axis N."""

    graphs: Graphs
    one_hot: Array  # [N, sum K_t]
    known: Array  # [N, G] `Space.features`, scaled as `beside` has them; G may be 0


def inputs(space: Space, archs: Array) -> Inputs:
    """Of canonical architectures `archs` [N, T]."""
    known = jnp.zeros((len(archs), 0))
    if space.features is not None:
        known = beside(known, space.features.of(archs), mean_distance(space))
    return Inputs(graph_encoder.graphs(space, archs), one_hot(space.cardinalities, archs), known)


def mean_distance(space: Space) -> float:
    """The mean squared distance of two random networks by the first part of xi, W the identity.

    Of operations it is the mean Hamming distance; networks by descriptors of blocks are nearer.
    """
    with jax.ensure_compile_time_eval():
        archs = space.canonical(space.sample(jax.random.key(0), DRAWN))
        features = graph_encoder.graphs(space, archs).features[:, 1:-1]
        return max(float(features.reshape(DRAWN, -1).var(axis=0).sum()), 1e-9)


def start_hyper() -> Hyper:
    """Before anything is learnt: lengthscale 2 (in roots of changed decisions), noise 0.05."""
    values = (jnp.log(2.0), 0.0, jnp.log(0.05), 2.0, jnp.log(0.3))
    return Hyper(*(jnp.asarray(v, jnp.float32) for v in values))


def init(key: Array, space: Space, config: Tnas, tasks: int, features: int) -> Weights:
    """Weights for `tasks` learnt codes (see `codes_needed`) and images of `features` numbers."""
    nodes, width = graph_encoder.sizes(space)
    keys = jax.random.split(key, 5)
    code, cards = config.code, space.cardinalities
    entry = (code if config.graph_encoder else sum(cards)) + (0 if config.film else code)
    film = [
        layers.dense_init(k, code, 2 * units, 0.3)
        for k, units in zip(jax.random.split(keys[3], 8), config.fusion[:-1], strict=False)
    ]
    return Weights(
        graph_encoder.init(keys[0], nodes, width, config.hidden, code),
        set_encoder.init(keys[1], features, config.hidden, code),
        0.1 * jax.random.normal(keys[4], (tasks, code)),
        jnp.eye(width),
        layers.mlp_init(keys[2], (entry, *config.fusion)),
        tuple(film),
        start_hyper(),
    )


def task_codes(
    config: Tnas, p: Weights, sample: Sample | None, vectors: Array | None = None
) -> Array:
    """[Q + 1, K] phi of Q known tasks and a new one.

    With a `sample` of Q + 1 data sets from the encoder; with their `vectors` [Q + 1, Z] a linear
    map of these; else the learnt codes, and 0, their mean a priori, for the new task.
    """
    if not config.data_encoder:
        return jnp.zeros((len(p.tasks) + 1 if sample is None else len(sample.mask), config.code))
    if sample is not None:
        return set_encoder.encode(p.data, sample)
    if vectors is not None:
        return vectors @ p.tasks
    return jnp.concatenate([p.tasks, jnp.zeros((1, config.code))])


def embed(config: Tnas, p: Weights, codes: Array, x: Inputs) -> Array:
    """The xi [N, D] of N architectures on the tasks of `codes` [N, K]."""
    plain = (x.graphs.features[:, 1:-1] @ p.nodes).reshape(len(codes), -1) / 2**0.5
    if x.known.shape[1]:
        plain = jnp.concatenate([(1 - SHARE) ** 0.5 * plain, x.known], axis=-1)
    if not config.deep:
        return plain
    psi = graph_encoder.encode(p.graph, x.graphs) if config.graph_encoder else x.one_hot
    h = psi if config.film else jnp.concatenate([codes, psi], axis=-1)
    for i, layer in enumerate(p.fusion[:-1]):
        h = layers.dense(layer, h)
        if config.film:
            scale, shift = jnp.split(layers.dense(p.film[i], codes), 2, axis=-1)
            h = h * (1 + scale) + shift
        h = jax.nn.relu(h)
    out = layers.dense(p.fusion[-1], h)
    return jnp.concatenate([plain, jnp.exp(p.hyper.gate) * out / out.shape[-1] ** 0.5], axis=-1)


def embed_archs(config: Tnas, p: Weights, code: Array, space: Space, archs: Array) -> Array:
    """The xi [M, D] of many architectures [M, T] on the task of `code` [K], by chunks."""
    many = archs.shape[0]
    rows = min(CHUNK, many)
    # Without the barrier XLA computes the graphs of a listed space while it compiles.
    padded = jnp.pad(jax.lax.optimization_barrier(archs), ((0, -many % rows), (0, 0)))

    def chunk(some: Array) -> Array:
        return embed(config, p, jnp.broadcast_to(code, (rows, len(code))), inputs(space, some))

    xi = jax.lax.map(chunk, padded.reshape(-1, rows, archs.shape[1]))
    return xi.reshape(-1, xi.shape[-1])[:many]
