"""The elastic network of NAS-Bench-201 (arXiv 2001.00326): cells of six edges with five operations.

Stem, three stages of equal cells, a residual block that halves the resolution and doubles the
channels between stages, normalisation, average over pixels, linear classifier. Ours: with logits at
every pixel (`dense`), what each stage makes is normalised for them as the last one's is, because
cells of shortcuts add up what they are given.
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
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.spec import NONE, RELU
from fnas_jax.layers.switch import Halves, select, switch
from fnas_jax.networks import dense
from fnas_jax.networks.base import Network, Parts, Stats
from fnas_jax.networks.dense import Dense, Outputs
from fnas_jax.spaces.cell import EDGES, OPS, CellSpec, prune

NODES = 4
CONVS = ("conv1", "conv3")
_Given = tuple[Moments | None, Any]  # (moments, collect) as `ops.norm_act` takes them


def build(spec: CellSpec, channels: int, classes: Outputs, dtype: Any = jnp.float32) -> Network:
    """The elastic cell network for images of `channels` channels.

    Convolutions and sums in `dtype`, normalisations in float32.
    """
    start = functools.partial(init, spec, channels, classes)
    return Network(
        init=start,
        init_stats=functools.partial(init_stats, start),
        apply=functools.partial(apply, dtype),
        apply_eval=functools.partial(apply_eval, dtype),
        parts=Parts(split, join, functools.partial(used, start), bypassed),
    )


def init(spec: CellSpec, channels: int, classes: Outputs, key: Array, arch: Array) -> Params:
    """See `Network`."""
    widths = [spec.channels * 2**s for s in range(spec.stages)]
    shape, outputs = (spec.cells_per_stage, len(EDGES)), dense.count(classes)
    params = {
        "stem": ops.he_normal((3, 3, channels, spec.channels), 9 * channels),
        "stem_norm": ops.norm_params(spec.channels),
        "stages": [_init_stage(shape, width) for width in widths],
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


def _init_stage(shape: tuple[int, int], width: int) -> Params:
    return {
        "conv1": ops.he_normal((*shape, width, width), width),
        "conv3": ops.he_normal((*shape, 3, 3, width, width), 9 * width),
        "norm": ops.norm_params(*shape, width),
    }


def _shapes(start: Callable[..., Params]) -> Params:
    """Shapes of the parameters that `start` makes."""
    return jax.eval_shape(start, jax.random.key(0), jnp.zeros(len(EDGES), jnp.int32))


def init_stats(start: Callable[..., Params]) -> Stats:
    """See `Network`; `start` is its `init`."""
    shapes = _shapes(start)
    stats = {
        "stem": ops.zero_moments(shapes["stem_norm"]),
        "stages": [ops.zero_moments(stage["norm"]) for stage in shapes["stages"]],
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


def used(start: Callable[..., Params], arch: Array) -> Params:
    """See `Parts`."""
    found = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), _shapes(start))
    arch = prune(arch)
    runs = {name: arch == OPS.index(f"nor_conv_{name[-1]}x{name[-1]}") for name in CONVS}
    for stage in found["stages"]:
        for name, edges in (runs | {"norm": runs["conv1"] | runs["conv3"]}).items():
            # Leaves are [cells, edges, ..].
            stage[name] = jax.tree.map(
                lambda leaf, e=edges: leaf & e.reshape(-1, *(1,) * (leaf.ndim - 2)), stage[name]
            )
    return found


def split(params: Params) -> tuple[list[Params], Params]:
    """See `Parts`: a block is what an edge holds in all cells."""
    stages = {f"stage{s}": stage for s, stage in enumerate(params["stages"])}
    blocks = [{"first": jax.tree.map(lambda p, e=e: p[:, e], stages)} for e in range(len(EDGES))]
    return blocks, {name: p for name, p in params.items() if name != "stages"}


def join(blocks: list[Params], shared: Params) -> Params:
    """The inverse of `split`."""
    edges = [block["first"] for block in blocks]
    stages = jax.tree.map(lambda *p: jnp.stack(p, axis=1), *edges)
    return shared | {"stages": [stages[f"stage{s}"] for s in range(len(stages))]}


def bypassed(arch: Array) -> list[Array]:
    """See `Parts`: no layer stands behind the first of a block."""
    return [jnp.zeros(0, bool)] * len(EDGES)


# ---- forward


def apply(dtype: Any, params: Params, arch: Array, images: Array) -> Array:
    """See `Network`."""
    nothing = {
        "stem": None,
        "stages": [None] * len(params["stages"]),
        "reductions": [{"norm1": None, "norm2": None}] * len(params["reductions"]),
        "last": None,
        "scores": [None] * len(params.get("scores", ())),
    }
    return apply_eval(dtype, params, nothing, arch, images, jnp.bool_(False))[0]


def apply_eval(
    dtype: Any, params: Params, stats: Stats, arch: Array, images: Array, collect: Array
) -> tuple[Array, Stats]:
    """See `Network`; moments of None: training, by the batch's."""
    new: Stats = {"stages": [], "reductions": []}
    arch, before = prune(arch), []
    x = images.astype(dtype)
    x = convolutions.conv(x, params["stem"].astype(dtype), 0, (3,), 1)
    x, new["stem"] = _norm(x, params["stem_norm"], stats["stem"], collect)
    for s, stage in enumerate(params["stages"]):
        if s:
            before.append(x)
            x, moments = _reduce(
                x, params["reductions"][s - 1], stats["reductions"][s - 1], collect
            )
            new["reductions"].append(moments)
        x, moments = _stage(x, stage, stats["stages"][s], arch, collect)
        new["stages"].append(moments)
    x, new["last"] = _norm(x, params["last_norm"], stats["last"], collect, RELU)
    if "scores" not in params:
        return x.mean((1, 2), jnp.float32) @ params["classifier"] + params["bias"], new
    scores, new["scores"] = [], []
    for skip, p, moments in zip(before, params["scores"], stats["scores"], strict=True):
        normed, moments = _norm(skip, p["norm"], moments, collect, RELU)
        scores.append(normed @ p["conv"])
        new["scores"].append(moments)
    last = x @ params["classifier"] + params["bias"]
    return dense.total([*scores, last], images.shape[1:3]), new


def _norm(
    x: Array, p: Params, moments: Moments | None, collect: Array, act: int = NONE
) -> tuple[Array, Moments | None]:
    return ops.norm_act(x, p, x.shape[-1], act, moments, collect)


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
    h = convolutions.conv(jax.nn.relu(x), p["conv1"].astype(x.dtype), 0, (3,), 2)
    h, first = _norm(h, p["norm1"], stats["norm1"], collect, RELU)
    h = convolutions.conv(h, p["conv2"].astype(x.dtype), 0, (3,), 1)
    h, second = _norm(h, p["norm2"], stats["norm2"], collect)
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
    x: Array, params: Params, stats: Moments | None, arch: Array, collect: Array
) -> tuple[Array, Moments | None]:
    """All cells of a stage, [B, H, W, C] -> the same shape.

    Cells, and the edges of a cell, are loops over one piece of code: compiled once a stage.
    """
    return lax.scan(functools.partial(_cell, arch, collect), x, (params, stats))


def _cell(
    arch: Array, collect: Array, x: Array, layers: tuple[Params, Moments | None]
) -> tuple[Array, Moments | None]:
    sources = jnp.asarray([source for source, _ in EDGES])
    targets = jnp.asarray([target for _, target in EDGES])
    nodes = jnp.zeros((NODES, *x.shape), x.dtype).at[0].set(x)
    edges = (*layers, arch, sources, targets)
    nodes, moments = lax.scan(functools.partial(_edge, collect), nodes, edges)
    return nodes[-1], moments


def _edge(collect: Array, nodes: Array, edge: Any) -> tuple[Array, Moments | None]:
    p, moments, op, source, target = edge
    if moments is None:
        y, new = switch(_TRAIN, op, p, nodes[source], None), None
    else:
        y, new = select(_EVALUATE, op, p, nodes[source], (moments, collect))
    return nodes.at[target].add(y), new


def _conv1(p: Params, x: Array) -> Array:
    return convolutions.pointwise(jax.nn.relu(x), p["conv1"].astype(x.dtype))


def _conv3(p: Params, x: Array) -> Array:
    return convolutions.conv(jax.nn.relu(x), p["conv3"].astype(x.dtype), 0, (3,), 1)


def _normed(f: Any) -> Any:
    """An operation and its normalisation, with statistics."""
    return lambda p, x, given: _norm(f(p, x), p["norm"], *given)


def _halves(f: Any) -> Halves:
    """The same in training."""
    return Halves(
        lambda p, x, _: f(p, x), lambda p, h, x, _: _norm(h, p["norm"], None, jnp.bool_(False))[0]
    )


def _plain(f: Any) -> Any:
    """An operation without normalisation, with statistics that nobody reads."""
    return lambda p, x, given: (f(x), ops.zero_moments(p["norm"]))


def _alone(f: Any) -> Halves:
    """The same in training, where what lies between the halves has one shape in all of them."""
    return Halves(lambda p, x, _: f(x), lambda p, h, x, _: h)


# In the order of spaces.cell.OPS: none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3.
_EVALUATE = (
    _plain(jnp.zeros_like),
    _plain(lambda x: x),
    _normed(_conv1),
    _normed(_conv3),
    _plain(lambda x: convolutions.average_pool(x, 1)),
)
_TRAIN = (
    _alone(jnp.zeros_like),
    _alone(lambda x: x),
    _halves(_conv1),
    _halves(_conv3),
    _alone(lambda x: convolutions.average_pool(x, 1)),
)
