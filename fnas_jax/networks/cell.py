"""The elastic network of NAS-Bench-201 (arXiv 2001.00326): cells of six edges with five operations.

Stem, three stages of equal cells, a residual block that halves the resolution and doubles the
channels between stages, normalisation, average over pixels, linear classifier.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers import convolutions, ops
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.networks.base import Network, Parts, Stats, switch
from fnas_jax.spaces.cell import EDGES, OPS, CellSpec

NODES = 4
CONVS = ("conv1", "conv3")


def build(spec: CellSpec, channels: int, classes: int) -> Network:
    """The elastic cell network for images of `channels` channels."""
    net = _Cells(spec.channels, spec.cells_per_stage, spec.stages, channels, classes)
    parts = Parts(net.split, net.join, net.used, net.bypassed)
    return Network(net.init, net.init_stats, net.apply, net.apply_eval, parts)


class _Cells(NamedTuple):
    width: int  # channels of the first stage
    cells: int  # per stage
    stages: int
    channels: int
    classes: int

    def init(self, key: Array, arch: Array) -> Params:
        widths = [self.width * 2**s for s in range(self.stages)]
        params = {
            "stem": ops.he_normal((3, 3, self.channels, self.width), 9 * self.channels),
            "stem_norm": ops.norm_params(self.width),
            "stages": [self._init_stage(width) for width in widths],
            "reductions": [_init_reduction(width) for width in widths[:-1]],
            "last_norm": ops.norm_params(widths[-1]),
            "classifier": ops.he_normal((widths[-1], self.classes), 2 * widths[-1]),
            "bias": jnp.zeros(self.classes),
        }
        return ops.realise(key, params)

    def _init_stage(self, width: int) -> Params:
        shape = (self.cells, len(EDGES))
        return {
            "conv1": ops.he_normal((*shape, width, width), width),
            "conv3": ops.he_normal((*shape, 3, 3, width, width), 9 * width),
            "norm": ops.norm_params(*shape, width),
        }

    def used(self, arch: Array) -> Params:
        shapes = jax.eval_shape(self.init, jax.random.key(0), arch)
        used = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), shapes)
        runs = {name: arch == OPS.index(f"nor_conv_{name[-1]}x{name[-1]}") for name in CONVS}
        for stage in used["stages"]:
            for name, edges in (runs | {"norm": runs["conv1"] | runs["conv3"]}).items():
                # Leaves are [cells, edges, ..].
                stage[name] = jax.tree.map(
                    lambda leaf, e=edges: leaf & e.reshape(-1, *(1,) * (leaf.ndim - 2)),
                    stage[name],
                )
        return used

    def split(self, params: Params) -> tuple[list[Params], Params]:
        """A block is what an edge holds in all cells."""
        stages = {f"stage{s}": stage for s, stage in enumerate(params["stages"])}
        blocks = [
            {"first": jax.tree.map(lambda p, e=e: p[:, e], stages)} for e in range(len(EDGES))
        ]
        return blocks, {name: p for name, p in params.items() if name != "stages"}

    def join(self, blocks: list[Params], shared: Params) -> Params:
        edges = [block["first"] for block in blocks]
        stages = jax.tree.map(lambda *p: jnp.stack(p, axis=1), *edges)
        return shared | {"stages": [stages[f"stage{s}"] for s in range(self.stages)]}

    def bypassed(self, arch: Array) -> list[Array]:
        return [jnp.zeros(0, bool)] * len(EDGES)

    def init_stats(self) -> Stats:
        shapes = jax.eval_shape(self.init, jax.random.key(0), jnp.zeros(len(EDGES), jnp.int32))
        return {
            "stem": ops.zero_moments(shapes["stem_norm"]),
            "stages": [ops.zero_moments(stage["norm"]) for stage in shapes["stages"]],
            "reductions": [
                {name: ops.zero_moments(block[name]) for name in ("norm1", "norm2")}
                for block in shapes["reductions"]
            ],
            "last": ops.zero_moments(shapes["last_norm"]),
        }

    def apply(self, params: Params, arch: Array, images: Array) -> Array:
        return self._run(params, None, arch, images, jnp.bool_(False))[0]

    def apply_eval(
        self, params: Params, stats: Stats, arch: Array, images: Array, collect: Array
    ) -> tuple[Array, Stats]:
        return self._run(params, stats, arch, images, collect)

    def _run(
        self, params: Params, stats: Stats | None, arch: Array, images: Array, collect: Array
    ) -> tuple[Array, Stats]:
        def norm(x: Array, p: Params, moments: Moments | None, act: str) -> tuple[Array, Any]:
            running = None if moments is None else ops.Running(moments, collect)
            return ops.norm_act(x, p, x.shape[-1], act, running)

        def of(*path: Any) -> Any:
            found = stats
            for step in path:
                found = found and found[step]
            return found

        new: Stats = {"stages": [], "reductions": []}
        x = convolutions.conv(images, params["stem"], 0, (3,), 1)
        x, new["stem"] = norm(x, params["stem_norm"], of("stem"), "none")
        for s, stage in enumerate(params["stages"]):
            if s:
                block, previous = params["reductions"][s - 1], of("reductions", s - 1)
                x, moments = _reduce(x, block, previous, norm)
                new["reductions"].append(moments)
            x, moments = _stage(x, stage, of("stages", s), arch, collect)
            new["stages"].append(moments)
        x, new["last"] = norm(x, params["last_norm"], of("last"), "relu")
        return x.mean((1, 2)) @ params["classifier"] + params["bias"], new


def _init_reduction(width: int) -> Params:
    return {
        "conv1": ops.he_normal((3, 3, width, 2 * width), 9 * width),
        "norm1": ops.norm_params(2 * width),
        "conv2": ops.he_normal((3, 3, 2 * width, 2 * width), 18 * width),
        "norm2": ops.norm_params(2 * width),
        "shortcut": ops.he_normal((width, 2 * width), width),
    }


def _reduce(x: Array, p: Params, stats: Any, norm: Any) -> tuple[Array, Stats]:
    """Residual block: [B, H, W, C] -> [B, H/2, W/2, 2 C]; the shortcut averages 2x2 pixels."""
    stats = stats or {"norm1": None, "norm2": None}
    h = convolutions.conv(jax.nn.relu(x), p["conv1"], 0, (3,), 2)
    h, first = norm(h, p["norm1"], stats["norm1"], "relu")
    h = convolutions.conv(h, p["conv2"], 0, (3,), 1)
    h, second = norm(h, p["norm2"], stats["norm2"], "none")
    shortcut = convolutions.pointwise(_halve(x), p["shortcut"])
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

    return sums(x) / sums(ones)


def _stage(
    x: Array, params: Params, stats: Moments | None, arch: Array, collect: Array
) -> tuple[Array, Moments | None]:
    """All cells of a stage, [B, H, W, C] -> the same shape.

    Cells, and the edges of a cell, are loops over one piece of code: compiled once a stage.
    """
    sources = jnp.asarray([source for source, _ in EDGES])
    targets = jnp.asarray([target for _, target in EDGES])

    def cell(x: Array, layers: tuple[Params, Moments | None]) -> tuple[Array, Moments | None]:
        def edge(nodes: Array, item: Any) -> tuple[Array, Moments | None]:
            p, s, op, source, target = item
            if s is None:
                y, moments = switch(_TRAIN, op, p, nodes[source], None), None
            else:
                y, moments = lax.switch(op, _EVALUATE, p, nodes[source], ops.Running(s, collect))
            return nodes.at[target].add(y), moments

        nodes = jnp.zeros((NODES, *x.shape), x.dtype).at[0].set(x)
        nodes, moments = lax.scan(edge, nodes, (*layers, arch, sources, targets))
        return nodes[-1], moments

    return lax.scan(cell, x, (params, stats))


def _conv1(p: Params, x: Array, running: ops.Running | None) -> tuple[Array, Moments | None]:
    h = convolutions.pointwise(jax.nn.relu(x), p["conv1"])
    return ops.norm_act(h, p["norm"], h.shape[-1], "none", running)


def _conv3(p: Params, x: Array, running: ops.Running | None) -> tuple[Array, Moments | None]:
    h = convolutions.conv(jax.nn.relu(x), p["conv3"], 0, (3,), 1)
    return ops.norm_act(h, p["norm"], h.shape[-1], "none", running)


def _plain(f: Any) -> Any:
    """An operation without normalisation, with statistics that nobody reads."""
    return lambda p, x, running: (f(x), ops.zero_moments(p["norm"]))


# In the order of spaces.cell.OPS: none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3.
_EVALUATE = (
    _plain(jnp.zeros_like),
    _plain(lambda x: x),
    _conv1,
    _conv3,
    _plain(lambda x: convolutions.average_pool(x, 1)),
)
_TRAIN = tuple(lambda p, x, _, f=f: f(p, x, None)[0] for f in _EVALUATE)
