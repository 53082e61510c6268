"""The elastic networks of cells (NAS-Bench-201, arXiv 2001.00326): four nodes and six edges.

Stem, three stages of equal cells, a residual block that halves the resolution and doubles the
channels between stages, normalisation, average over pixels, linear classifier. Ours: with logits at
every pixel (`dense`), what each stage makes is normalised for them as the last one's is, because
cells of shortcuts add up what they are given. What an edge is, `cell_edges` says.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers import convolutions, ops
from fnas_jax.layers.ops import Params
from fnas_jax.layers.spec import RELU
from fnas_jax.networks import cell_edges, dense
from fnas_jax.networks.base import Network, Parts, Stats
from fnas_jax.networks.cell_edges import Edges, norm, rectified
from fnas_jax.networks.dense import Dense, Outputs
from fnas_jax.spaces.cells import MIXED

NODES = 4
Spec = Any  # one of `cells.SPECS`


def build(spec: Spec, channels: int, classes: Outputs, dtype: Any = jnp.float32) -> Network:
    """The elastic cell network for images of `channels` channels.

    Convolutions and sums in `dtype`, normalisations in float32.
    """
    edges = cell_edges.of(spec)
    start = functools.partial(init, edges, spec, channels, classes)
    mixed = isinstance(spec, MIXED)
    return Network(
        init=start,
        init_stats=functools.partial(init_stats, edges, start),
        apply=functools.partial(apply, edges, dtype),
        apply_eval=functools.partial(apply_eval, edges, dtype),
        parts=Parts(
            functools.partial(split, edges),
            functools.partial(join, edges),
            functools.partial(used, edges, start),
            functools.partial(bypassed, edges),
        ),
        apply_mixed=functools.partial(apply_mixed, spec, dtype) if mixed else None,
    )


def init(
    edges: Edges, spec: Spec, channels: int, classes: Outputs, key: Array, arch: Array
) -> Params:
    """See `Network`."""
    widths = [spec.channels * 2**s for s in range(spec.stages)]
    shape, outputs = (spec.cells_per_stage, len(edges.places)), dense.count(classes)
    params = {
        "stem": ops.he_normal((3, 3, channels, spec.channels), 9 * channels),
        "stem_norm": ops.norm_params(spec.channels),
        "stages": [edges.init(shape, width) for width in widths],
        "reductions": [_init_reduction(width) for width in widths[:-1]],
        "last_norm": ops.norm_params(widths[-1]),
        "classifier": ops.he_normal((widths[-1], outputs), 2 * widths[-1]),
        "bias": jnp.zeros(outputs),
    }
    if isinstance(classes, Dense):
        params["scores"] = [
            {"norm": ops.norm_params(width), "conv": ops.he_normal((width, outputs), 2 * width)}
            for width in widths[:-1]
        ]
    return ops.realise(key, params)


def _shapes(start: Callable[..., Params]) -> Params:
    """Shapes of the parameters that `start` makes."""
    return jax.eval_shape(start, jax.random.key(0), jnp.zeros(0, jnp.int32))


def init_stats(edges: Edges, start: Callable[..., Params]) -> Stats:
    """See `Network`; `start` is its `init`."""
    shapes = _shapes(start)
    stats = {
        "stem": ops.zero_moments(shapes["stem_norm"]),
        "stages": [edges.stats(stage) for stage in shapes["stages"]],
        "reductions": [
            {name: ops.zero_moments(block[name]) for name in ("norm1", "norm2")}
            for block in shapes["reductions"]
        ],
        "last": ops.zero_moments(shapes["last_norm"]),
    }
    if "scores" in shapes:
        stats["scores"] = [ops.zero_moments(score["norm"]) for score in shapes["scores"]]
    return stats


# ---- blocks


def used(edges: Edges, start: Callable[..., Params], arch: Array) -> Params:
    """See `Parts`."""
    found = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), _shapes(start))
    runs = edges.used(arch)
    for stage in found["stages"]:
        for name, on in runs.items():
            # Leaves are [cells, edges, ..].
            stage[name] = jax.tree.map(
                lambda leaf, e=on: leaf & e.reshape(-1, *(1,) * (leaf.ndim - 2)), stage[name]
            )
    return found


def split(edges: Edges, params: Params) -> tuple[list[Params], Params]:
    """See `Parts`: a block is what an edge, or one of its operations, holds in all cells."""
    stages = {f"stage{s}": stage for s, stage in enumerate(params["stages"])}
    blocks = [{"first": block} for block in edges.split(stages)]
    return blocks, {name: p for name, p in params.items() if name != "stages"}


def join(edges: Edges, blocks: list[Params], shared: Params) -> Params:
    """The inverse of `split`."""
    stages = edges.join([block["first"] for block in blocks])
    return shared | {"stages": [stages[f"stage{s}"] for s in range(len(stages))]}


def bypassed(edges: Edges, arch: Array) -> list[Array]:
    """See `Parts`: no layer stands behind the first of a block."""
    return [jnp.zeros(0, bool)] * edges.blocks


# ---- forward


def apply(edges: Edges, dtype: Any, params: Params, arch: Array, images: Array) -> Array:
    """See `Network`."""
    return _forward(edges, dtype, params, edges.choice(arch), images)


def apply_mixed(
    spec: Spec, dtype: Any, params: Params, arch: Array, z: Array, images: Array
) -> Array:
    """See `Network`; of mixed cells, whose switches `z` are [E, 4]."""
    choice, edges = cell_edges.with_switches(spec, arch, z), cell_edges.of(spec)
    run = cell_edges.run_with_switches
    return _forward(edges._replace(run=run), dtype, params, choice, images)


def _forward(edges: Edges, dtype: Any, params: Params, choice: Any, images: Array) -> Array:
    """Logits in training, by the batch's moments."""
    nothing = {
        "stem": None,
        "stages": [None] * len(params["stages"]),
        "reductions": [{"norm1": None, "norm2": None}] * len(params["reductions"]),
        "last": None,
        "scores": [None] * len(params.get("scores", ())),
    }
    return _whole(edges, dtype, params, nothing, choice, images, jnp.bool_(False))[0]


def apply_eval(
    edges: Edges,
    dtype: Any,
    params: Params,
    stats: Stats,
    arch: Array,
    images: Array,
    collect: Array,
) -> tuple[Array, Stats]:
    """See `Network`."""
    return _whole(edges, dtype, params, stats, edges.choice(arch), images, collect)


def _whole(
    edges: Edges,
    dtype: Any,
    params: Params,
    stats: Stats,
    choice: Any,
    images: Array,
    collect: Array,
) -> tuple[Array, Stats]:
    """As `apply_eval`; moments of None: training. `choice` [E, ..]: what each edge runs."""
    new: Stats = {"stages": [], "reductions": []}
    before = []
    x = images.astype(dtype)
    x = convolutions.conv(x, params["stem"].astype(dtype), 0, (3,), 1)
    x, new["stem"] = norm(x, params["stem_norm"], stats["stem"], collect)
    for s, stage in enumerate(params["stages"]):
        if s:
            before.append(x)
            x, moments = _reduce(
                x, params["reductions"][s - 1], stats["reductions"][s - 1], collect
            )
            new["reductions"].append(moments)
        x, moments = _stage(edges, x, stage, stats["stages"][s], choice, collect)
        new["stages"].append(moments)
    x, new["last"] = norm(x, params["last_norm"], stats["last"], collect, RELU)
    if "scores" not in params:
        x = x.mean((1, 2), ops.sum_type(x))
        return x @ params["classifier"] + params["bias"], new
    scores, new["scores"] = [], []
    for skip, p, moments in zip(before, params["scores"], stats["scores"], strict=True):
        normed, moments = norm(skip, p["norm"], moments, collect, RELU)
        scores.append(normed @ p["conv"])
        new["scores"].append(moments)
    last = x @ params["classifier"] + params["bias"]
    return dense.total([*scores, last], images.shape[1:3]), new


def _init_reduction(width: int) -> Params:
    return {
        "conv1": ops.he_normal((3, 3, width, 2 * width), 9 * width),
        "norm1": ops.norm_params(2 * width),
        "conv2": ops.he_normal((3, 3, 2 * width, 2 * width), 18 * width),
        "norm2": ops.norm_params(2 * width),
        "shortcut": ops.he_normal((width, 2 * width), width),
    }


def _reduce(x: Array, p: Params, stats: Stats, collect: Array) -> tuple[Array, Stats]:
    """Residual block: [B, H, W, C] -> [B, H/2, W/2, 2 C]; the shortcut averages 2x2 pixels."""
    h = convolutions.conv(rectified(x, p["norm1"]), p["conv1"].astype(x.dtype), 0, (3,), 2)
    h, first = norm(h, p["norm1"], stats["norm1"], collect, RELU)
    h = convolutions.conv(h, p["conv2"].astype(x.dtype), 0, (3,), 1)
    h, second = norm(h, p["norm2"], stats["norm2"], collect)
    shortcut = convolutions.pointwise(_halve(x), p["shortcut"].astype(x.dtype))
    return h + shortcut, {"norm1": first, "norm2": second}


def _halve(x: Array) -> Array:
    """Average of 2x2 pixels; at an odd border, of those that exist."""
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    ones = jnp.pad(
        jnp.ones((1, height, width, 1)), ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    )

    def sums(x: Array) -> Array:
        return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).sum((2, 4))

    return sums(x) / sums(ones).astype(x.dtype)


def _stage(
    edges: Edges, x: Array, params: Params, stats: Any, choice: Any, collect: Array
) -> tuple[Array, Any]:
    """All cells of a stage, [B, H, W, C] -> the same shape.

    Cells, and the edges of a cell, are loops over one piece of code: compiled once a stage.
    """
    return lax.scan(functools.partial(_cell, edges, choice, collect), x, (params, stats))


def _cell(
    edges: Edges, choice: Any, collect: Array, x: Array, layers: tuple[Params, Any]
) -> tuple[Array, Any]:
    sources = jnp.asarray([source for source, _ in edges.places])
    targets = jnp.asarray([target for _, target in edges.places])
    nodes = jnp.zeros((NODES, *x.shape), x.dtype).at[0].set(x)
    items = (*layers, choice, sources, targets)
    one = functools.partial(_edge, edges.run, collect)
    nodes, moments = lax.scan(one, nodes, items)
    return nodes[-1], moments


def _edge(run: cell_edges.Run, collect: Array, nodes: Array, edge: Any) -> tuple[Array, Any]:
    p, moments, choice, source, target = edge
    y, new = run(p, moments, choice, nodes[source], collect)
    return nodes.at[target].add(y), new
