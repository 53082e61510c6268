"""The cell space of NAS-Bench-201 (Dong & Yang, ICLR 2020, arXiv 2001.00326) and NATS-Bench.

A cell is a complete directed graph of four nodes; each of its six edges carries one of five
operations and each node is the sum of its incoming edges. The network stacks cells in three
stages with residual reductions between them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
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
    """The space of 5^6 = 15,625 cells, which are 5,260 different networks.

    The text form is "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...~0|...~1|...~2|": the nodes
    joined by "+", each with its incoming edges as operation~source.
    """
    check_sizes(channels, cells_per_stage)
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
        words=(OPS,) * len(EDGES),
    )


def check_sizes(channels: int, cells_per_stage: int) -> None:
    """Raises UserError for a network of cells that has none, or no channels."""
    if channels < 1 or cells_per_stage < 1:
        raise UserError(
            f"channels and cells_per_stage must be at least 1, got {channels}, {cells_per_stage}"
        )


def prune(archs: Any) -> Any:
    """[.., 6] -> [.., 6]: `none` for edges that change nothing; numpy arrays make numpy arrays.

    Such an edge reads a node that is always zero, or ends in one that nothing leads from to node 3.
    Networks run, count and price a cell without them: a convolution of zeros would still add the
    bias of its normalisation.
    """
    return archs * live(archs > 0)


def live(runs: Any) -> Any:
    """[.., 6] bool, the edges that do something -> those of them that the output depends on."""
    xp = jnp if isinstance(runs, jax.Array) else np
    by_edge = {edge: runs[..., e] for e, edge in enumerate(EDGES)}
    fed = fed_nodes(runs)
    read = {3: True, 2: by_edge[2, 3]}  # nodes that the output depends on
    read[1] = by_edge[1, 3] | (by_edge[1, 2] & read[2])
    found = [by_edge[source, end] & fed[source] & read[end] for source, end in EDGES]
    return xp.stack(found, axis=-1)


def fed_nodes(runs: Any) -> dict[int, Any]:
    """Whether nodes 0 to 2 are not always zero, [..] bool each, where edges `runs` [.., 6] run."""
    by_edge = {edge: runs[..., e] for e, edge in enumerate(EDGES)}
    fed = {0: True, 1: by_edge[0, 1]}
    fed[2] = by_edge[0, 2] | (by_edge[1, 2] & fed[1])
    return fed


def network_form(arch: tuple[int, ...]) -> str:
    """The cell's last node as an expression; equal ones are the same network but for names (ours).

    A node is a sum of terms, each as often as it is added: the cell's input "x", or an operation on
    the sum of a source. A skip adds the terms of its source. A convolution has weights of its own,
    so that it is a term of its own, named by a number wherever it is read: read twice it is one
    term twice, and two convolutions of the same node are two terms. An average pool has no weights
    and is known by what it reads. (It is linear, but the pool of a sum and the sum of pools stay
    two expressions, which are computed in different ways; else there would be 5,044 networks.)

    Numbers tell convolutions apart that would otherwise read the same; of all ways to give them,
    that with the smallest text counts.
    """
    arch = tuple(prune(np.asarray(arch)).tolist())
    _, terms = _expression(arch, ("",) * len(EDGES))
    alike: dict[str, list[int]] = {}
    for edge, term in enumerate(terms):
        if term and OPS[arch[edge]].startswith("nor_conv"):
            alike.setdefault(term, []).append(edge)
    orders = itertools.product(*map(itertools.permutations, alike.values()))
    return min(_expression(arch, _numbered(order))[0] for order in orders)


def _numbered(groups: Iterable[Iterable[int]]) -> tuple[str, ...]:
    """Six names of edges: its place in its group, "" for those in none."""
    names = {edge: str(i) for group in groups for i, edge in enumerate(group)}
    return tuple(names.get(edge, "") for edge in range(len(EDGES)))


def _expression(arch: tuple[int, ...], names: tuple[str, ...]) -> tuple[str, list[str]]:
    """(node 3 as a sum, the term of each edge) of a pruned cell; "" for nothing and for a skip."""
    nodes: list[list[str]] = [["x"], [], [], []]
    terms = []
    for (source, target), op, name in zip(EDGES, arch, names, strict=True):
        added, term = [], ""
        if OPS[op] == "skip_connect":
            added = nodes[source]
        elif OPS[op] != "none":
            term = f"{OPS[op]}{name}({'+'.join(sorted(nodes[source]))})"
            added = [term]
        nodes[target] += added
        terms.append(term)
    return "+".join(sorted(nodes[3])), terms


def published_form(arch: tuple[int, ...]) -> str:
    """The formula by which NAS-Bench-201 counts 6,466 cells: no network equality (see below).

    Of the cell's input "0": a node is the sorted sum of its addends, `(source)@op`, the source's
    own formula for `skip_connect`, and "#" for `none` or anything applied to a node that is "#".
    These are the benchmark's published rules, spelling and all. They do not say whether equal
    addends are one node read twice or two nodes with weights of their own, so cells of different
    size share a formula; and sums that come through a skip are sorted as one piece of text, and "#"
    stays in a sum, so some networks have several. `network_form` has neither fault.
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
    """[15625] int32: for each cell in lexicographic order, the first that is the same network."""
    first: dict[str, int] = {}
    cells = itertools.product(range(len(OPS)), repeat=len(EDGES))
    return np.array([first.setdefault(network_form(c), i) for i, c in enumerate(cells)], np.int32)


def canonical(archs: Array) -> Array:
    """[N, 6] -> [N, 6]: the lexicographically first cell that is the same network as each."""
    chex.assert_shape(archs, (None, len(EDGES)))
    index = jnp.asarray(representatives())[archs @ jnp.asarray(_WEIGHTS, jnp.int32)]
    return (index[:, None] // jnp.asarray(_WEIGHTS, jnp.int32)) % len(OPS)


def _describe(arch: Any) -> dict[str, Any]:
    return described([OPS[int(a)] for a in np.asarray(arch)])


def described(words: Sequence[str]) -> dict[str, Any]:
    """The text form of a cell and what each edge does, by the `words` of its six edges."""
    nodes = [
        "|"
        + "|".join(f"{w}~{s}" for (s, end), w in zip(EDGES, words, strict=True) if end == target)
        + "|"
        for target in (1, 2, 3)
    ]
    edges = dict(zip((f"{s}-{t}" for s, t in EDGES), words, strict=True))
    return {"text": "+".join(nodes), "edges": edges}


def parse(text: str) -> np.ndarray:
    """The string form -> [6] int32. Raises UserError with what is wrong."""
    decisions = []
    for source, edge in edges_in(text):
        op, _, tail = edge.partition("~")
        if op not in OPS or tail != str(source):
            raise UserError(f"{edge!r} in {text!r} is not OP~{source} with OP of {OPS}")
        decisions.append(OPS.index(op))
    return np.array(decisions, np.int32)


def edges_in(text: str) -> Iterator[tuple[int, str]]:
    """(the node that it reads, its text) of each of the six edges. Raises UserError."""
    nodes = text.strip().split("+")
    if len(nodes) != 3:
        raise UserError(f"{text!r} has {len(nodes)} nodes; 3 are needed, joined by '+'")
    for target, node in enumerate(nodes, start=1):
        edges = node.strip("|").split("|")
        sources = [source for source, end in EDGES if end == target]
        if len(edges) != len(sources) or not (node.startswith("|") and node.endswith("|")):
            raise UserError(f"node {target} of {text!r} needs {len(sources)} edges between '|'")
        yield from zip(sources, edges, strict=True)


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
