"""The cell space of NAS-Bench-201 (Dong & Yang, ICLR 2020, arXiv 2001.00326) and NATS-Bench.

A cell is a complete directed graph of four nodes; each of its six edges carries one of five
operations and each node is the sum of its incoming edges. The network stacks cells in three
stages with residual reductions between them.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.spaces import base

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
# (source, target) of each decision, in the order of the string form.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
CARDINALITIES = (len(OPS),) * len(EDGES)
_WEIGHTS = len(OPS) ** np.arange(len(EDGES) - 1, -1, -1)  # index in lexicographic order


class CellSpec(NamedTuple):
    """What the network of a cell consists of, beside the six decisions."""

    channels: int = 16  # of the stem and the first stage; each later stage doubles them
    cells_per_stage: int = 5
    stages: int = 3


def make(channels: int = 16, cells_per_stage: int = 5) -> base.Space:
    """The space of 5^6 = 15,625 cells, which are 6,466 up to isomorphism.

    The text form is "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...~0|...~1|...~2|": the nodes
    joined by "+", each with its incoming edges as operation~source.
    """
    if channels < 1 or cells_per_stage < 1:
        raise ValueError(
            f"channels and cells_per_stage must be at least 1, got {channels}, {cells_per_stage}"
        )
    return base.Space(
        name="cell",
        cardinalities=CARDINALITIES,
        names=tuple(f"edge{source}-{target}" for source, target in EDGES),
        sample=functools.partial(base.sample_uniform, CARDINALITIES),
        validate=functools.partial(base.in_range, CARDINALITIES),
        canonical=canonical,
        describe=_describe,
        parse=parse,
        blocks=_blocks,
        graph=_graph,
        num_ops=2 + len(OPS),
        spec=CellSpec(channels, cells_per_stage),
    )


def unique_form(arch: tuple[int, ...]) -> str:
    """The cell's last node as a formula of its input "0"; equal formulas are isomorphic cells.

    A node is the sorted sum of its addends: `(source)@op`, the source's own formula for
    `skip_connect`, and "#" for `none` or anything applied to a node that is "#". These are the
    benchmark's published rules, spelling and all, because its 6,466 depends on them: sums that
    come through a skip are sorted as one piece of text, and "#" stays in a sum. Sorting all
    addends and dropping every "#" would leave 4,930, a count that no paper uses.
    """
    nodes = ["0"]
    for target in (1, 2, 3):
        addends = []
        for (source, end), op in zip(EDGES, arch, strict=True):
            if end != target:
                continue
            if op == 0 or nodes[source] == "#":
                addends.append("#")
            elif op == 1:
                addends.append(nodes[source])
            else:
                addends.append(f"({nodes[source]})@{OPS[op]}")
        nodes.append("+".join(sorted(addends)))
    return nodes[3]


@functools.cache
def representatives() -> np.ndarray:
    """[15625] int32: for each cell in lexicographic order, the first one isomorphic to it."""
    first: dict[str, int] = {}
    cells = itertools.product(range(len(OPS)), repeat=len(EDGES))
    return np.array([first.setdefault(unique_form(c), i) for i, c in enumerate(cells)], np.int32)


def canonical(archs: Array) -> Array:
    """[N, 6] -> [N, 6]: the lexicographically first cell isomorphic to each."""
    chex.assert_shape(archs, (None, len(EDGES)))
    index = jnp.asarray(representatives())[archs @ jnp.asarray(_WEIGHTS, jnp.int32)]
    return (index[:, None] // jnp.asarray(_WEIGHTS, jnp.int32)) % len(OPS)


def _describe(arch: Any) -> dict[str, Any]:
    ops = [OPS[int(a)] for a in np.asarray(arch)]
    nodes = [
        "|"
        + "|".join(f"{op}~{s}" for (s, end), op in zip(EDGES, ops, strict=True) if end == target)
        + "|"
        for target in (1, 2, 3)
    ]
    return {
        "text": "+".join(nodes),
        "edges": dict(zip((f"{s}-{t}" for s, t in EDGES), ops, strict=True)),
    }


def parse(text: str) -> np.ndarray:
    """The string form -> [6] int32. Raises ValueError with what is wrong."""
    nodes = text.strip().split("+")
    if len(nodes) != 3:
        raise ValueError(f"{text!r} has {len(nodes)} nodes; 3 are needed, joined by '+'")
    decisions = []
    for target, node in enumerate(nodes, start=1):
        edges = node.strip("|").split("|")
        sources = [source for source, end in EDGES if end == target]
        if len(edges) != len(sources) or not (node.startswith("|") and node.endswith("|")):
            raise ValueError(f"node {target} of {text!r} needs {len(sources)} edges between '|'")
        for source, edge in zip(sources, edges, strict=True):
            op, _, tail = edge.partition("~")
            if op not in OPS or tail != str(source):
                raise ValueError(f"{edge!r} in {text!r} is not OP~{source} with OP of {OPS}")
            decisions.append(OPS.index(op))
    return np.array(decisions, np.int32)


def _blocks(archs: Array) -> Array:
    """[N, 6, 5]: the one-hot operation of each edge of the canonical form."""
    return (canonical(archs)[..., None] == jnp.arange(len(OPS))).astype(jnp.float32)


def _graph(archs: Array) -> tuple[Array, Array]:
    """Operations as nodes: input (0), the six edges of the canonical form (2 + op), output (1).

    `adjacency[n, i, j]` means that node j reads node i; it is the same for all cells.
    """
    n = archs.shape[0]
    ends = jnp.zeros((n, 1), jnp.int32)
    nodes = jnp.concatenate([ends, canonical(archs) + 2, ends + 1], axis=1)
    size = len(EDGES) + 2
    adjacency = np.zeros((size, size), bool)
    for j, (source, target) in enumerate(EDGES, start=1):
        adjacency[0, j] = source == 0
        adjacency[j, size - 1] = target == 3
        for i, (_, end) in enumerate(EDGES, start=1):
            adjacency[i, j] = end == source
    return nodes, jnp.broadcast_to(jnp.asarray(adjacency), (n, size, size))
