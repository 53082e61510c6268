"""The cell of NAS-Bench-201 with mixed edges: each is the sum of any of four operations.

Nodes, edges and operations are those of `spaces.cell`. An edge has a switch for each operation that
is not `none`, and all that are on run side by side, each with weights of its own; the cells of
NAS-Bench-201 are those in which no edge has two. So PGNAS (arXiv 1906.09557) has its networks: any
operations of a slot, added up.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import Array, UserError
from fnas_jax.spaces import base, cell
from fnas_jax.spaces.cell import EDGES

OPS = cell.OPS[1:]  # of an edge, a switch each
NONE = cell.OPS[0]  # an edge without any
SLOTS = (len(OPS),) * len(EDGES)
CARDINALITIES = (2,) * sum(SLOTS)
_PLACES = 2 ** np.arange(2 * len(OPS))[::-1]  # of two edges' switches as one number
# The edges of node 1, and what they are called where nodes 1 and 2 change their names
_FIRST = tuple(EDGES.index(edge) for edge in ((0, 1), (1, 3)))
_SECOND = tuple(EDGES.index(edge) for edge in ((0, 2), (2, 3)))
_BETWEEN = EDGES.index((1, 2))
_ALONE = np.eye(len(OPS), dtype=bool)[OPS.index("skip_connect")]  # an edge that only copies
# Where operations of an edge may as well stand, because one node copies the other or is only added
# to it: the edge and that other one, the edges that only copy then, and those that are empty then
_MOVES = (
    (((1, 2), (1, 3)), ((2, 3),), ()),  # node 2 is added to node 3, and goes nowhere else
    (((0, 2), (0, 3)), ((2, 3),), ()),
    (((1, 2), (0, 2)), ((0, 1),), ()),  # node 1 is the input
    (((1, 3), (0, 3)), ((0, 1),), ()),
    (((0, 1), (0, 2)), ((1, 2),), ((1, 3),)),  # node 1 is added to node 2 alone
    (((0, 1), (0, 3)), ((1, 3),), ((1, 2),)),  # node 1 is added to node 3 alone
    (((2, 3), (0, 3)), ((0, 2),), ((1, 2),)),  # node 2 is the input
    (((2, 3), (1, 3)), ((1, 2),), ((0, 2),)),  # node 2 is node 1
)


class MixedCellSpec(NamedTuple):
    """What the network of a cell consists of, beside the 24 switches; see `cell.CellSpec`."""

    channels: int = 16
    cells_per_stage: int = 5
    stages: int = 3


def make(channels: int = 16, cells_per_stage: int = 5) -> base.Space:
    """The space of 2^24 = 16,777,216 cells.

    The text form is that of `cell`, with the operations of an edge joined by "&":
    "|skip_connect&nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|..". Raises UserError for sizes below 1.
    """
    cell.check_sizes(channels, cells_per_stage)
    return base.Space(
        name="mixed_cell",
        cardinalities=CARDINALITIES,
        names=tuple(f"edge{source}-{target}/{op}" for source, target in EDGES for op in OPS),
        sample=functools.partial(base.sample_uniform, CARDINALITIES),
        validate=functools.partial(base.in_range, CARDINALITIES),
        canonical=canonical,
        describe=_describe,
        parse=parse,
        blocks=_blocks,
        graph=_graph,
        num_ops=2 + len(cell.OPS),
        spec=MixedCellSpec(channels, cells_per_stage),
        words=(("off", "on"),) * len(CARDINALITIES),
        slots=SLOTS,
    )


def by_edge(archs: Any) -> Any:
    """[.., 24] -> [.., 6, 4]: the switches of each edge."""
    return archs.reshape(*archs.shape[:-1], len(EDGES), len(OPS))


def prune(archs: Any) -> Any:
    """[.., 24] -> [.., 24]: off where an edge changes nothing, as `cell.prune` says of edges."""
    edges = by_edge(archs)
    return (edges * cell.live(edges.any(-1))[..., None]).reshape(archs.shape)


def canonical(archs: Array) -> Array:
    """[N, 24] -> [N, 24]: the form that all vectors of one network have.

    Two are one network where the same operations stand between the same nodes, under whatever names
    of nodes 1 and 2, which can be exchanged where nothing stands between them. Edges that change
    nothing are off. Nor does it matter at which of two nodes operations stand where one only copies
    the other, or is only added to it (`_MOVES`); an operation of which both have one stays at both.

    Some networks still have several forms, which `cell.network_form` would join: where an operation
    may stand before or behind a copy that is needed, one stands at two such nodes, or an average is
    taken twice.
    """
    chex.assert_shape(archs, (None, len(CARDINALITIES)))
    # Named before the moves, too: which of two equal operations is moved depends on the names.
    archs = _named(prune(jnp.asarray(archs)))
    archs, _ = jax.lax.scan(_moved, archs, _tables())  # compiled once, and not for each move
    return _named(archs).astype(jnp.int32)


def _named(archs: Array) -> Array:
    """`archs` [N, 24] with nodes 1 and 2 in one order, where nothing stands between them."""
    edges = by_edge(archs)
    first, second = (edges[:, list(of)].reshape(len(edges), -1) for of in (_FIRST, _SECOND))
    free = ~edges[:, _BETWEEN].any(-1)
    places = jnp.asarray(_PLACES, jnp.int32)
    exchange = (free & (first @ places < second @ places))[:, None, None]
    renamed = edges[:, [_renamed(e) for e in range(len(EDGES))]]
    return jnp.where(exchange, renamed, edges).reshape(archs.shape)


def _tables() -> tuple[Any, ...]:
    """Of each of `_MOVES`: its two edges [M, 2], and which only copy and are empty, [M, 6] bool."""
    between, copies, empty = zip(*_MOVES, strict=True)
    pairs = np.asarray([[EDGES.index(edge) for edge in pair] for pair in between])
    return pairs, *(
        np.asarray([[e in of for e in EDGES] for of in sets]) for sets in (copies, empty)
    )


def _moved(archs: Array, move: tuple[Any, ...]) -> tuple[Array, None]:
    """`archs` [N, 24] with the operations of one edge on the other, by a row of `_tables`."""
    edges, (between, copies, empty) = by_edge(archs), move
    only_copies = (edges == _ALONE).all(-1)
    may = (only_copies | ~copies).all(-1) & ~(edges.any(-1) & empty).any(-1)
    one, other = edges[:, between[0]], edges[:, between[1]]
    both = jnp.stack([one & other, one | other], axis=1)
    edges = jnp.where(may[:, None, None], edges.at[:, between].set(both), edges)
    return prune(edges.reshape(archs.shape)), None


def _renamed(edge: int) -> int:
    pairs = dict(zip((*_FIRST, *_SECOND), (*_SECOND, *_FIRST), strict=True))
    return pairs.get(edge, edge)


def _describe(arch: Any) -> dict[str, Any]:
    return cell.described([text_of(on) for on in by_edge(np.asarray(arch))])


def text_of(on: Any) -> str:
    """The operations of an edge whose switches are `on` [4]."""
    return "&".join(op for op, o in zip(OPS, on, strict=True) if o) or NONE


def parse(text: str) -> np.ndarray:
    """The string form -> [24] int32. Raises UserError with what is wrong."""
    found = []
    for source, edge in cell.edges_in(text):
        words, _, tail = edge.partition("~")
        if tail != str(source):
            raise UserError(f"{edge!r} in {text!r} does not end in ~{source}")
        found += switches(words, text)
    return np.array(found, np.int32)


def switches(words: str, text: str) -> list[int]:
    """[4] of the operations `words` of one edge, or layer, of `text`. Raises UserError."""
    ops = [] if words == NONE else words.split("&")
    for i, op in enumerate(ops):
        if op not in OPS:
            raise UserError(
                f"{op!r} in {text!r} is no operation; allowed are {NONE}, or some of"
                f" {', '.join(OPS)}, joined by '&'{nearest(op, OPS)}"
            )
        if op in ops[:i]:
            raise UserError(f"{op} stands twice in one place of {text!r}")
    return [int(op in ops) for op in OPS]


def _blocks(archs: Array) -> Array:
    """[N, 24, 5]: one-hot, in `cell.OPS`, of what each switch of the canonical form adds."""
    return one_hot(operations(canonical(archs)))


def operations(archs: Array) -> Array:
    """[N, T] in `cell.OPS`: the operation of each switch that is on, `none` where it is off."""
    ops = [cell.OPS.index(op) for op in OPS]
    return archs * jnp.tile(jnp.asarray(ops, jnp.int32), archs.shape[1] // len(OPS))


def one_hot(ops: Array) -> Array:
    """[N, T] `operations` -> [N, T, 5] float32."""
    return (ops[..., None] == jnp.arange(len(cell.OPS))).astype(jnp.float32)


def _graph(archs: Array) -> tuple[Array, Array]:
    """`graph_of` the canonical form."""
    return graph_of(EDGES, operations(canonical(archs)))


def graph_of(edges: Sequence[tuple[int, int]], ops: Array) -> tuple[Array, Array]:
    """Operations as nodes: input (0), `operations` [N, T] of the edges (2 + op), output (1).

    `adjacency[n, i, j]` means that node j reads node i; it is the same for all architectures.
    """
    n = ops.shape[0]
    ends = jnp.zeros((n, 1), jnp.int32)
    nodes = jnp.concatenate([ends, ops + 2, ends + 1], axis=1)
    places = [edge for edge in edges for _ in OPS]
    size = len(places) + 2
    adjacency = np.zeros((size, size), bool)
    for j, (source, target) in enumerate(places, start=1):
        adjacency[0, j] = source == 0
        adjacency[j, size - 1] = target == 3
        for i, (_, end) in enumerate(places, start=1):
            adjacency[i, j] = end == source
    return nodes, jnp.broadcast_to(jnp.asarray(adjacency), (n, size, size))
