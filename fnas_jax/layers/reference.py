"""The layers of mobile networks: convolution, separable convolution and inverted bottleneck.

conv:    kxk - norm - act - (SE)
sepconv: depthwise kxk - norm - act - (SE) - 1x1 - norm
mbconv:  1x1 to expansion * cin - norm - act - depthwise kxk - norm - act - (SE) - 1x1 - norm
shortcut: 1x1 - norm (what NAS-Bench-Macro calls identity where shapes change)
and to each, `skip` of its input is added.

MobileNetV2, arXiv 1801.04381; squeeze-excitation with a quarter of the layer's input channels,
as MnasNet. MnasNet names its skip operations without defining them for every shape (ours):
"identity" adds the input where shapes agree and nothing elsewhere, "pool" adds the 3x3 average
of the input at the layer's stride, with channels cut or filled with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers import convolutions, ops
from fnas_jax.layers.ops import Moments, Params

SE_FRACTION = 4  # hidden units of squeeze-excitation: input channels / 4
SKIP_POOL, SKIP_IDENTITY, SKIP_NONE = 0, 1, 2  # the order of spaces.mnas.SKIPS
NORMS = ("norm_expand", "norm_depthwise", "norm_out")


class Variant(NamedTuple):
    """The compiled part of a layer: another value needs other code."""

    op: str  # "conv" | "sepconv" | "mbconv" | "shortcut"
    kernels: tuple[int, ...]  # what `Setting.kernel` chooses from
    expansion: int  # 1 unless mbconv
    stride: int
    act: str  # "relu6" | "relu"


class Setting(NamedTuple):
    """The data part of a layer: plain numbers, each [] int32 or bool."""

    kernel: Array  # index into `Variant.kernels`
    cin: Array  # active input channels
    cout: Array  # active output channels
    se: Array  # bool; ignored where the parameters hold no "se"
    skip: Array  # SKIP_POOL, SKIP_IDENTITY or SKIP_NONE


class Evaluation(NamedTuple):
    """What a layer needs outside training; see `ops.Running`."""

    stats: dict[str, Moments]  # per name in NORMS, wide as that norm's parameters
    collect: Array


def layer(
    variant: Variant, params: Params, x: Array, setting: Setting, evaluation: Evaluation | None
) -> tuple[Array, dict[str, Moments]]:
    """X [B, H, W, Cin] -> [B, H/s, W/s, Cout] and the batch's statistics; widths are maximal.

    `evaluation` None: training; the statistics are then zeros that nobody reads.
    """
    v, stats = variant, zero_stats(params)

    def norm_here(name: str, h: Array, active: Array | int, act: str) -> Array:
        h, stats[name] = norm(params, name, h, active, act, evaluation)
        return h

    if v.op == "shortcut":
        h = convolutions.pointwise(x, params["shortcut"], v.stride)
        return norm_here("norm_out", h, setting.cout, "none"), stats
    if v.op == "conv":
        if v.kernels == (1,):
            h = convolutions.pointwise(x, params["conv"][0, 0], v.stride)
        else:
            h = convolutions.conv(x, params["conv"], setting.kernel, v.kernels, v.stride)
        return gate(params, norm_here("norm_out", h, setting.cout, v.act), setting), stats
    middle, width, h = setting.cin, x.shape[-1], x
    if v.op == "mbconv":
        middle, width = v.expansion * setting.cin, v.expansion * width
        h = convolutions.pointwise(x, params["expand"][:, :width])
        h = norm_here("norm_expand", h, middle, v.act)
    kernel = params["depthwise"][..., :width]
    h = convolutions.depthwise(h, kernel, setting.kernel, v.kernels, v.stride)
    h = gate(params, norm_here("norm_depthwise", h, middle, v.act), setting)
    h = convolutions.pointwise(h, params["project"][:width])
    return norm_here("norm_out", h, setting.cout, "none"), stats


def norm(
    params: Params,
    name: str,
    h: Array,
    active: Array | int,
    act: str,
    evaluation: Evaluation | None,
) -> tuple[Array, Moments]:
    """`ops.norm_act` by the parameters called `name`, and moments as wide as these.

    In training, the moments are zeros.
    """
    running = evaluation and ops.Running(evaluation.stats[name], evaluation.collect)
    h, moments = ops.norm_act(h, params[name], active, act, running)
    if moments is None:
        return h, ops.zero_moments(params[name])
    width = params[name]["scale"].shape[0]
    return h, Moments(*(ops.fit_channels(m, width) for m in moments))


def gate(params: Params, h: Array, setting: Setting) -> Array:
    """Squeeze-excitation of h [B, H, W, C], where the child has it."""
    if "se" not in params:
        return h
    gates = ops.squeeze_excite(h, params["se"], se_hidden(setting.cin))
    # Not a conditional: that would double the code to compile for little time saved.
    return h * jnp.where(setting.se, gates, 1.0).astype(h.dtype)


def skip(x: Array, cout: int, stride: int, setting: Setting) -> Array:
    """What the skip operation adds: x [B, H, W, Cin] -> [B, H/s, W/s, cout]."""

    def pool(x: Array) -> Array:
        # A wider input must not fill channels that this child lacks.
        mask = jnp.arange(cout) < setting.cout
        return ops.fit_channels(convolutions.average_pool(x, stride), cout) * mask.astype(x.dtype)

    def none(x: Array) -> Array:
        height, width = (-(-size // stride) for size in x.shape[1:3])
        return jnp.zeros((x.shape[0], height, width, cout), x.dtype)

    def identity(x: Array) -> Array:
        return ops.fit_channels(x, cout) if stride == 1 else none(x)

    fits = setting.cin == setting.cout
    index = jnp.where((setting.skip == SKIP_IDENTITY) & ~fits, SKIP_NONE, setting.skip)
    return lax.switch(index, [pool, identity, none], x)


def widest_output(params: Params) -> int:
    """Output channels of the widest layer with these parameters."""
    return params["norm_out"]["scale"].shape[0]


def kernel_table(variants: Sequence[Variant]) -> list[tuple[int, ...]]:
    """What `Setting.kernel` chooses from, variant by variant.

    Rows are filled up with their first entry, which no setting then chooses.
    """
    most = max(len(v.kernels) for v in variants)
    return [v.kernels + v.kernels[:1] * (most - len(v.kernels)) for v in variants]


def se_hidden(cin: Array) -> Array:
    """Hidden units of squeeze-excitation for a layer of `cin` input channels."""
    return jnp.maximum(1, cin // SE_FRACTION)


def zero_stats(params: Params) -> dict[str, Moments]:
    """Statistics of the layer with these parameters, all zero."""
    return {name: ops.zero_moments(params[name]) for name in NORMS if name in params}
