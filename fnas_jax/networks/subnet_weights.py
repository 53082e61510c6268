"""The variables of one architecture's Flax network, from those of the network it was trained as.

That is the elastic network, out of which its weights are cut, or one that was made for it alone.
"""

from __future__ import annotations

from typing import Any

import jax

from fnas_jax.core.types import Array
from fnas_jax.layers import own, taps
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.parameters import full_weights
from fnas_jax.layers.spec import CONV, MBCONV, OWN, LayerSpec
from fnas_jax.networks import mobile_spaces
from fnas_jax.networks.base import Stats
from fnas_jax.networks.elastic import from_moments
from fnas_jax.networks.flax_mobile import layer_name, score_name
from fnas_jax.spaces import base, cells


def get(space: base.Space, arch: Any, params: Params, stats: Stats) -> dict[str, Any]:
    """{"params": .., "batch_stats": ..} for `flax_reference.build(space, arch, ..)`.

    `params` and `stats` are those of the space's elastic network, as children of `arch` [T] use
    them: leading channels, centres of kernels. Gradients can stand for `params`, as this only
    cuts. Raises ValueError for a space without networks.
    """
    out = _Variables()
    if type(space.spec) in mobile_spaces.MODULES:
        _mobile(space.spec, arch, params, stats, out)
    elif isinstance(space.spec, cells.SPECS):
        _cells(space.spec, arch, params, stats, out)
    else:
        raise ValueError(f"the space {space.name!r} has no networks")
    return {"params": out.params, "batch_stats": out.stats}


def of_fixed(space: base.Space, arch: Any, params: Params, stats: Stats) -> dict[str, Any]:
    """As `get`, of the parameters and statistics of `elastic.fixed_network(space, arch, ..)`."""
    if type(space.spec) not in mobile_spaces.MODULES:  # that network is the Flax network
        return {"params": params, "batch_stats": from_moments(stats)}
    out = _Variables()
    _mobile(space.spec, arch, params, stats, out, fixed=True)
    return {"params": out.params, "batch_stats": out.stats}


class _Variables:
    """The variables under construction, by path."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.stats: dict[str, Any] = {}

    def kernel(self, *path: str, value: Array) -> None:
        """`value` [I, O] of a 1x1 convolution or [k, k, I, O] of any."""
        value = value if value.ndim == 4 else value[None, None]
        _put(self.params, path, {"kernel": value})

    def dense(self, *path: str, kernel: Array, bias: Array) -> None:
        _put(self.params, path, {"kernel": kernel, "bias": bias})

    def linear(self, *path: str, kernel: Array) -> None:
        _put(self.params, path, {"kernel": kernel})

    def norm(self, *path: str, p: Params, moments: Moments, width: int) -> None:
        _put(self.params, path, {name: p[name][:width] for name in ("scale", "bias")})
        _put(self.stats, path, {"mean": moments.mean[:width], "var": moments.var[:width]})


def _put(tree: dict[str, Any], path: tuple[str, ...], leaf: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf


def _mobile(
    spec: Any, arch: Any, params: Params, stats: Stats, out: _Variables, fixed: bool = False
) -> None:
    """`fixed`: each layer that `arch` has is a stack of its own."""
    layers = mobile_spaces.layers_of(spec, arch)
    features = layers[-1][-1].cout
    out.kernel("stem", value=params["stem"])
    out.norm("stem_norm", p=params["stem_norm"], moments=stats["stem"], width=spec.stem)
    skips, width = [], spec.stem  # channels of the last output of each resolution but the last
    for number, (stack, position, stride, layer) in enumerate(layers):
        if stride > 1:
            skips.append(width)
        place, width = number if fixed else stack, layer.cout
        p, s = params["stacks"][place], stats["stacks"][place]
        if position and not fixed:
            p, s = jax.tree.map(lambda leaf, i=position - 1: leaf[i], (p["rest"], s["rest"]))
        else:
            p, s = p["first"], s["first"]
        _layer(layer_name(stack, position), layer, p, s, out)
    if spec.head:
        out.kernel("head", value=params["head"][:features])
        out.norm("head_norm", p=params["head_norm"], moments=stats["head"], width=spec.head)
    width, mix = spec.head or features, mobile_spaces.mix(spec)
    if mix:
        out.dense("mix", kernel=params["mix"][:width], bias=params["mix_bias"])
    out.dense("classifier", kernel=params["classifier"][: mix or width], bias=params["bias"])
    if "scores" in params:
        for i, (score, width) in enumerate(zip(params["scores"], skips, strict=True)):
            out.linear(score_name(i), kernel=score[:width])


def _layer(name: str, v: LayerSpec, p: Params, s: dict[str, Moments], out: _Variables) -> None:
    def norm(which: str, width: int) -> None:
        out.norm(name, which, p=p[which], moments=s[which], width=width)

    if v.op >= OWN:
        for tree, leaf in ((out.params, p), (out.stats, from_moments(s))):
            if leaf[own.name(v.op)]:
                tree[name] = leaf[own.name(v.op)]
        return
    if v.op == CONV:
        kernel = taps.crop(full_weights(p), v.kernel)[:, :, : v.cin, : v.cout]
        out.kernel(name, "conv", value=kernel)
    else:
        if v.op == MBCONV:
            out.kernel(name, "expand", value=p["expand"][: v.cin, : v.middle])
            norm("norm_expand", v.middle)
        kernel = taps.crop(p["depthwise"], v.kernel)[:, :, None, : v.middle]
        out.kernel(name, "depthwise", value=kernel)
        norm("norm_depthwise", v.middle)
        out.kernel(name, "project", value=p["project"][: v.middle, : v.cout])
    norm("norm_out", v.cout)
    if v.se_hidden:
        se, hidden, gated = p["se"], v.se_hidden, v.gated
        out.dense(name, "squeeze", kernel=se["w1"][:gated, :hidden], bias=se["b1"][:hidden])
        out.dense(name, "excite", kernel=se["w2"][:hidden, :gated], bias=se["b2"][:gated])


def _cells(spec: Any, arch: Any, params: Params, stats: Stats, out: _Variables) -> None:
    widths = [spec.channels * 2**s for s in range(spec.stages)]
    convs = [one for one in cells.running(spec, arch) if one.name]
    mixed = isinstance(spec, cells.MIXED)  # then each convolution has its own normalisation
    out.kernel("stem", value=params["stem"])
    out.norm("stem_norm", p=params["stem_norm"], moments=stats["stem"], width=spec.channels)
    for s, width in enumerate(widths):
        p, moments = params["stages"][s], stats["stages"][s]
        for c in range(spec.cells_per_stage):
            for one in convs:
                path, size = f"stage{s}_cell{c}", one.op[-1]
                e = cells.edges_of(spec).index((one.source, one.target))
                out.kernel(path, f"{one.name}_conv", value=p[f"conv{size}"][c, e])
                normed = f"norm{size}" if mixed else "norm"
                kept = p[normed], moments[normed] if mixed else moments
                norm, of = jax.tree.map(lambda leaf, c=c, e=e: leaf[c, e], kept)
                out.norm(path, f"{one.name}_norm", p=norm, moments=of, width=width)
    for r, (p, s) in enumerate(zip(params["reductions"], stats["reductions"], strict=True)):
        path, width = f"reduction{r}", widths[r + 1]
        for name in ("conv1", "conv2", "shortcut"):
            out.kernel(path, name, value=p[name])
        for name in ("norm1", "norm2"):
            out.norm(path, name, p=p[name], moments=s[name], width=width)
    out.norm("last_norm", p=params["last_norm"], moments=stats["last"], width=widths[-1])
    out.dense("classifier", kernel=params["classifier"], bias=params["bias"])
    if "scores" in params:
        for i, (p, moments) in enumerate(zip(params["scores"], stats["scores"], strict=True)):
            out.norm(f"{score_name(i)}_norm", p=p["norm"], moments=moments, width=widths[i])
            out.linear(score_name(i), kernel=p["conv"])
