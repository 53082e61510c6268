"""What the layers of a network say of it before it is trained: counts, depth, sizes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.layers.spec import IDENTITY, OPS, OWN, PASS, POOL
from fnas_jax.networks import mobile_spaces
from fnas_jax.spaces import cells, mixed_cell
from fnas_jax.spaces.base import Space

NODES = 4  # of a cell
WEIGHED = tuple(i for i, op in enumerate(mixed_cell.OPS) if op.startswith("nor_conv"))


class Part(NamedTuple):
    """Some numbers of networks."""

    names: tuple[str, ...]  # F of them
    of: Callable[[Array], Array]  # canonical archs [N, T] -> [N, F] float32, pure and jittable
    identity: str = ""  # what else than space, names and images they depend on; "": nothing


def structure(space: Space) -> Part | None:
    """What can be said of all networks of `space`; None of a space without networks.

    Of a cell: how many edges have each operation, and how many convolutions the longest and the
    shortest way through it pass. Of others: layers, how many have each operation, each skip and
    squeeze-excitation, and means over layers of the kernel's side and the logarithm of the width.
    """
    if isinstance(space.spec, cells.SPECS):
        of_ops = (*mixed_cell.OPS, "longest_path", "shortest_path")
        return Part(of_ops, functools.partial(of_cells, space.spec))
    if type(space.spec) not in mobile_spaces.MODULES:
        return None
    names = ("layers", *OPS.values(), "own", "squeeze", "identity", "pool", "kernel", "log_width")
    return Part(names, functools.partial(of_layers, space.spec))


def of_cells(spec: Any, archs: Array) -> Array:
    """[N, 6] float32 of cells [N, T]."""
    runs = cells.switches(spec, jnp.asarray(archs))  # [N, E, 4]
    counts = runs.sum(axis=1)
    edges, weighed = cells.edges_of(spec), runs[..., WEIGHED].any(axis=-1)
    plain = runs.any(axis=-1)
    # An edge with a convolution beside something else can be passed by both.
    beside = (runs & ~np.isin(np.arange(runs.shape[-1]), WEIGHED)).any(axis=-1)
    longest = _path(edges, plain, weighed, jnp.maximum, -1.0)
    shortest = _path(edges, plain, weighed & ~beside, jnp.minimum, float(NODES))
    return jnp.concatenate([counts, longest[:, None], shortest[:, None]], axis=1)


def _path(
    edges: Sequence[tuple[int, int]],
    runs: Array,
    weighed: Array,
    best: Callable[[Array, Array], Array],
    none: float,
) -> Array:
    """[N] float32 convolutions on the `best` way through cells; `none` where no way leads through.

    `runs` [N, E] are edges that something runs on, `weighed` [N, E] those of which a convolution
    counts.
    """
    start = jnp.zeros(len(runs), jnp.float32)
    found = {0: start}
    for node in range(1, NODES):
        found[node] = jnp.full_like(start, none)
        for e, (source, target) in enumerate(edges):
            if target == node:
                there = runs[:, e] & (found[source] != none)
                way = found[source] + weighed[:, e]
                found[node] = jnp.where(there, best(found[node], way), found[node])
    return found[NODES - 1]


def of_layers(spec: Any, archs: Array) -> Array:
    """[N, 10] float32 of networks of layers [N, T]."""
    v = jax.vmap(functools.partial(mobile_spaces.layers, spec))(jnp.asarray(archs))  # [N, L] each
    v = jax.tree.map(lambda field: jnp.broadcast_to(field, v.op.shape), v)
    there = v.op != PASS
    layers = there.sum(axis=1)

    def mean(values: Array) -> Array:
        return jnp.where(there, values, 0.0).sum(axis=1) / jnp.maximum(layers, 1)

    columns = [
        layers,
        *((v.op == op).sum(axis=1) for op in OPS),
        (v.op >= OWN).sum(axis=1),
        (there & (v.se_hidden > 0)).sum(axis=1),
        (there & (v.skip == IDENTITY)).sum(axis=1),
        (there & (v.skip == POOL)).sum(axis=1),
        mean(v.kernel),
        mean(jnp.log(jnp.maximum(v.cout, 1))),
    ]
    return jnp.stack(columns, axis=1).astype(jnp.float32)
