"""What the spaces of cells have in common: which operations run between which nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.spaces import cell, mixed_cell, mixed_chain
from fnas_jax.spaces.cell import EDGES, CellSpec
from fnas_jax.spaces.mixed_cell import NONE, OPS, MixedCellSpec
from fnas_jax.spaces.mixed_chain import MixedChainSpec

SPECS = (CellSpec, MixedCellSpec, MixedChainSpec)
MIXED = (MixedCellSpec, MixedChainSpec)  # an edge may have several operations


class Running(NamedTuple):
    """An operation of a cell that runs."""

    source: int  # node that it reads
    target: int  # node that it is added to
    op: str  # of `OPS`
    name: str  # of its variables, beside what they are; "" where it has none


def edges_of(spec: Any) -> tuple[tuple[int, int], ...]:
    """(source, target) of the E edges that its cells may have."""
    return mixed_chain.EDGES if isinstance(spec, MixedChainSpec) else EDGES


def switches(spec: Any, archs: Any) -> Any:
    """[.., T] -> [.., E, 4] bool: what runs on the edges, without what changes nothing.

    Numpy arrays make numpy arrays.
    """
    if isinstance(spec, MixedChainSpec):
        return mixed_chain.filled(archs) > 0
    if isinstance(spec, MixedCellSpec):
        return mixed_cell.by_edge(mixed_cell.prune(archs)) > 0
    return cell.prune(archs)[..., None] == 1 + np.arange(len(OPS))


def running(spec: Any, arch: Any) -> tuple[Running, ...]:
    """The operations of `arch` [T] that run, in the order in which they are added up."""
    return of_texts(texts(spec, arch), several=isinstance(spec, MIXED))


def of_texts(words: Mapping[str, str], several: bool) -> tuple[Running, ...]:
    """`running` by the `texts` of edges, which may have `several` operations each."""
    return tuple(
        _running(source, target, op, several)
        for source, target in EDGES
        for op in words.get(f"edge{source}_{target}", NONE).split("&")
        if op != NONE
    )


def _running(source: int, target: int, op: str, several: bool) -> Running:
    """Variables are called by the edge, and by the operation where there may be `several`."""
    name = f"edge{source}_{target}" + (f"_{op[-3:]}" if several else "")
    return Running(source, target, op, name if op.startswith("nor_conv") else "")


def everywhere(spec: Any, op: str) -> np.ndarray:
    """[T] int32: the cell with this operation of `cell.OPS`, and no other, on every edge."""
    if isinstance(spec, MIXED):
        return np.tile([int(op == o) for o in OPS], len(edges_of(spec))).astype(np.int32)
    return np.full(len(EDGES), cell.OPS.index(op), np.int32)


def texts(spec: Any, arch: Any) -> dict[str, str]:
    """The operations of each edge in words, "none" where nothing runs: {"edge0_1": ..}."""
    on = switches(spec, np.asarray(arch))
    words = (mixed_cell.text_of(ops) for ops in on)
    return {f"edge{s}_{t}": text for (s, t), text in zip(edges_of(spec), words, strict=True)}


def added(spec: Any, on: Any) -> Any:
    """[..] int32, how many sums the nodes of a cell are; `on` [.., E, 4] says what runs."""
    xp = jnp if isinstance(on, jax.Array) else np
    ends_at = np.asarray([[target == node for _, target in edges_of(spec)] for node in (1, 2, 3)])
    terms = (ends_at * on.sum(-1)[..., None, :]).sum(-1)
    return xp.maximum(terms - 1, 0).sum(-1)
