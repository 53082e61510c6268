"""Chains of mixed layers: each of three layers is the sum of any of four operations.

The cell of `spaces.cell` with the edges from node to node only, each with the switches of
`spaces.mixed_cell`. A layer without any operation is an identity, as one whose shortcut alone is
on: a chain is never cut. All cells of the network have the same layers, with weights of their own.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.spaces import base, cell, mixed_cell
from fnas_jax.spaces.mixed_cell import OPS

EDGES = ((0, 1), (1, 2), (2, 3))
SLOTS = (len(OPS),) * len(EDGES)
CARDINALITIES = (2,) * sum(SLOTS)
_IDENTITY = np.eye(len(OPS), dtype=np.int32)[OPS.index("skip_connect")]


class MixedChainSpec(NamedTuple):
    """What the network of a chain consists of, beside the 12 switches; see `cell.CellSpec`."""

    channels: int = 16
    cells_per_stage: int = 5
    stages: int = 3


def make(channels: int = 16, cells_per_stage: int = 5) -> base.Space:
    """The space of 2^12 = 4,096 chains, which are 2,955 different networks.

    The text form is "skip_connect&nor_conv_3x3/none/avg_pool_3x3": the layers' operations. Raises
    UserError for sizes below 1.
    """
    cell.check_sizes(channels, cells_per_stage)
    return base.Space(
        name="mixed_chain",
        cardinalities=CARDINALITIES,
        names=tuple(f"layer{i}/{op}" for i in range(len(EDGES)) for op in OPS),
        sample=functools.partial(base.sample_uniform, CARDINALITIES),
        validate=functools.partial(base.in_range, CARDINALITIES),
        canonical=canonical,
        describe=_describe,
        parse=parse,
        blocks=_blocks,
        graph=_graph,
        num_ops=2 + len(cell.OPS),
        spec=MixedChainSpec(channels, cells_per_stage),
        words=(("off", "on"),) * len(CARDINALITIES),
        slots=SLOTS,
    )


def by_layer(archs: Any) -> Any:
    """[.., 12] -> [.., 3, 4]: the switches of each layer."""
    return archs.reshape(*archs.shape[:-1], len(EDGES), len(OPS))


def filled(archs: Any) -> Any:
    """[.., 12] -> [.., 3, 4]: the operations that run; where all are off, the shortcut."""
    xp = jnp if isinstance(archs, jax.Array) else np
    layers = by_layer(archs)
    return xp.where(layers.any(-1)[..., None], layers, _IDENTITY)


def canonical(archs: Array) -> Array:
    """[N, 12] -> [N, 12]: identities, written as shortcuts, stand behind the other layers."""
    chex.assert_shape(archs, (None, len(CARDINALITIES)))
    layers = filled(jnp.asarray(archs))
    passes = (layers == jnp.asarray(_IDENTITY)).all(-1)
    order = jnp.argsort(passes, axis=1, stable=True)
    return jnp.take_along_axis(layers, order[..., None], axis=1).reshape(archs.shape)


def _describe(arch: Any) -> dict[str, Any]:
    texts = [mixed_cell.text_of(on) for on in by_layer(np.asarray(arch))]
    return {"text": "/".join(texts), "layers": texts}


def parse(text: str) -> np.ndarray:
    """The string form -> [12] int32. Raises UserError with what is wrong."""
    layers = text.strip().split("/")
    if len(layers) != len(EDGES):
        raise UserError(
            f"{text!r} has {len(layers)} layers; {len(EDGES)} are needed, joined by '/'"
        )
    return np.array([on for words in layers for on in mixed_cell.switches(words, text)], np.int32)


def _blocks(archs: Array) -> Array:
    """[N, 12, 5]: one-hot, in `cell.OPS`, of what each switch of the canonical form adds."""
    return mixed_cell.one_hot(mixed_cell.operations(canonical(archs)))


def _graph(archs: Array) -> tuple[Array, Array]:
    """Operations as nodes, as `mixed_cell` has them, of the canonical form."""
    return mixed_cell.graph_of(EDGES, mixed_cell.operations(canonical(archs)))
