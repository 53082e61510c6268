"""The graph encoder psi: an architecture's graph -> R^L (D-VAE, Zhang et al., NeurIPS 2019).

Nodes are visited in topological order, each by one step of a GRU whose state is what comes in from
its predecessors u,

    m_v = sum_u sigmoid(W_g [h_u; e_u]) * (W_m [h_u; e_u])        h_v = GRU(x_v, m_v)

with e_u the one-hot position of u and x_v the features of v. A second GRU runs from the output
back to the input, and the two end states are concatenated and projected.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods.tnas import layers
from fnas_jax.spaces.base import Space

MOST_OPS = 64  # spaces of more operations are encoded by their blocks' descriptors


class Direction(NamedTuple):
    """The weights of one direction; `[h; e] @ W` is `h @ W_h + W_e[position]`."""

    gru: layers.Gru
    gate: layers.Dense  # [H, H]
    gate_at: Array  # [positions, H]
    map: Array  # [H, H]
    map_at: Array  # [positions, H]


class GraphEncoder(NamedTuple):
    """All weights of psi."""

    forward: Direction
    backward: Direction
    project: layers.Dense  # [2 H, L]


class Graphs(NamedTuple):
    """N graphs of at most V nodes, in topological order from the input to the output."""

    features: Array  # [N, V, F] float32
    adjacency: Array  # [N, V, V] bool; [i, j]: node j reads node i
    mask: Array  # [N, V] bool, False where a graph has no such node: after its output


def graphs(space: Space, archs: Array) -> Graphs:
    """The graphs of canonical architectures `archs` [N, T].

    Node features are the operation's one-hot code, or, in spaces of more than `MOST_OPS`
    operations, where each block is a node, whether it is an input, an output, and the block's
    descriptor.
    """
    ops, adjacency = space.graph(archs)
    mask = jnp.ones(ops.shape, bool)
    if space.num_ops <= MOST_OPS:
        return Graphs(jax.nn.one_hot(ops, space.num_ops), adjacency, mask)
    blocks = jnp.pad(space.blocks(archs), ((0, 0), (1, 1), (0, 0)))
    ends = (ops[..., None] == jnp.arange(2)).astype(blocks.dtype)
    return Graphs(jnp.concatenate([ends, blocks], axis=-1), adjacency, mask)


def sizes(space: Space) -> tuple[int, int]:
    """(V, F) of the space's graphs."""
    shapes = jax.eval_shape(
        lambda: graphs(space, jnp.zeros((1, len(space.cardinalities)), jnp.int32))
    )
    return shapes.features.shape[1:]


def init(key: Array, positions: int, features: int, hidden: int, code: int) -> GraphEncoder:
    """Weights for graphs of at most `positions` nodes."""

    def direction(key: Array) -> Direction:
        keys = jax.random.split(key, 5)
        return Direction(
            layers.gru_init(keys[0], features, hidden),
            layers.dense_init(keys[1], hidden, hidden),
            0.5 * jax.random.normal(keys[2], (positions, hidden)),
            layers.dense_init(keys[3], hidden, hidden).w,
            0.5 * jax.random.normal(keys[4], (positions, hidden)),
        )

    key_forward, key_backward, key_project = jax.random.split(key, 3)
    return GraphEncoder(
        direction(key_forward),
        direction(key_backward),
        layers.dense_init(key_project, 2 * hidden, code),
    )


def encode(p: GraphEncoder, graphs: Graphs) -> Array:
    """[N, L] codes; nodes that are masked out have no influence."""
    return jax.vmap(_encode, (None, 0))(p, graphs)


def _encode(p: GraphEncoder, graph: Graphs) -> Array:
    """[L] of one graph (leading axis N dropped)."""
    edges = graph.adjacency & graph.mask[:, None] & graph.mask
    last = graph.mask.sum() - 1
    ahead = _walk(p.forward, graph.features, edges, jnp.arange(len(graph.mask)))
    back = _walk(p.backward, graph.features, edges.T, jnp.arange(len(graph.mask))[::-1])
    return layers.dense(p.project, jnp.concatenate([ahead[last], back[0]]))


def _walk(p: Direction, features: Array, edges: Array, order: Array) -> Array:
    """States [V, H] of the nodes, visited in `order` [V]; edges [V, V]: column reads row."""
    hidden = p.map.shape[0]

    def visit(carry: tuple[Array, Array], v: Array) -> tuple[tuple[Array, Array], None]:
        states, messages = carry
        state = layers.gru(p.gru, features[v], edges[:, v].astype(messages.dtype) @ messages)
        gate = jax.nn.sigmoid(layers.dense(p.gate, state) + p.gate_at[v])
        message = gate * (state @ p.map + p.map_at[v])
        return (states.at[v].set(state), messages.at[v].set(message)), None

    nothing = jnp.zeros((len(order), hidden), features.dtype)
    (states, _), _ = jax.lax.scan(visit, (nothing, nothing), order)
    return states
