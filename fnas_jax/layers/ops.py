"""Normalisation, activation, gates and initialisation of children.

A channel axis may be wider than the child: its active channels come first and the rest hold
zeros. Normalisation keeps it so, because it multiplies scale and bias by the mask.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers.spec import HARD_GATE, HARD_SWISH, NONE, RELU6

BN_EPSILON = 1e-5
_LEAST = 8  # parts of a sum that is taken in two steps
AGREEMENT = "agreement"  # what `watched` looks for beside parameters
Params = dict[str, Any]


class Moments(NamedTuple):
    """Statistics of one normalisation: mean and (biased) variance, each [C] of `sum_type`."""

    mean: Array
    var: Array


def sum_type(x: Array) -> Any:
    """The type that sums over x are taken in: float32, or x's own where that is wider."""
    return jnp.promote_types(x.dtype, jnp.float32)


def activate(act: int, x: Array) -> Array:
    """The activation of this code of `layers.spec`, whatever the gate.

    HARD_SWISH is x hard_sigmoid(x) (MobileNetV3, arXiv 1905.02244).
    """
    act %= HARD_GATE
    if act == NONE:
        return x
    if act == HARD_SWISH:
        return x * hard_sigmoid(x)
    return jnp.clip(x, 0.0, 6.0) if act == RELU6 else jax.nn.relu(x)


def hard_sigmoid(x: Array) -> Array:
    """min(max(x + 3, 0), 6) / 6 (MobileNetV3, arXiv 1905.02244)."""
    return jnp.clip(x + 3.0, 0.0, 6.0) * (1 / 6)


def _activation_gradient(act: int, z: Array, g: Array) -> Array:
    """The gradient of z, where `g` is that of `activate(act, z)`."""
    if act == HARD_SWISH:
        inside = jnp.where(z < 3, (2.0 * z + 3.0) * (1 / 6), 1.0)
        return jnp.where(z > -3, inside * g, 0.0)
    open_ = (z > 0) & (z < 6) if act == RELU6 else z > 0
    return jnp.where(open_, g, 0.0)


def norm_act(
    x: Array,
    p: Params,
    active: Array | int,
    act: int,
    moments: Moments | None = None,
    collect: Array | bool = False,
) -> tuple[Array, Moments | None]:
    """Batch normalisation, then activation; channels from `active` on come out as zero.

    x [B, H, W, C] of any float type, which the result has, too; p = {"scale": [>= C], "bias":
    [>= C]}. Without `moments`: training, by the batch, no moments returned. Otherwise also the
    batch's moments, which are used instead where `collect` [] bool says so.
    """
    channels = x.shape[-1]
    scale, bias = p["scale"][:channels], p["bias"][:channels]
    if not isinstance(active, int) or active < channels:
        mask = jnp.arange(channels) < active
        scale, bias = scale * mask, bias * mask
    if moments is None:
        h = _norm_act(x, scale, bias, act % HARD_GATE)
        return (h if act % HARD_GATE == NONE else watched(h, p, active)), None
    batch = _moments(x)
    mean, var = (
        jnp.where(collect, of_batch, estimate[:channels])
        for of_batch, estimate in zip(batch, moments, strict=True)
    )
    normed = (x - mean) * (scale * lax.rsqrt(var + BN_EPSILON)) + bias
    return activate(act, normed).astype(x.dtype), batch


def _moments(x: Array) -> Moments:
    count, long = x.size / x.shape[-1], x.astype(sum_type(x))
    mean, square = (total / count for total in _sums(x.dtype, long, long * long))
    # Clipped, because rounding can make this difference negative.
    return Moments(mean, jnp.maximum(square - mean * mean, 0.0))


def _sums(dtype: Any, *arrays: Array) -> list[Array]:
    """Each of `arrays` [B, H, W, C] summed to [C]; `dtype` is that of the network's images.

    In bfloat16, which is for accelerators, in two steps of about as many numbers each: a GPU sums
    the few channels of small images by few of its threads (docs/performance.md).
    """
    channels, some = arrays[0].shape[-1], 1
    if dtype == jnp.bfloat16:
        pixels = arrays[0].size // channels
        some = max((n for n in range(1, math.isqrt(pixels) + 1) if pixels % n == 0), default=1)
    if some < _LEAST:
        return [array.sum(tuple(range(array.ndim - 1))) for array in arrays]
    parts = _added([array.reshape(some, -1, channels) for array in arrays], 1)
    # Without the barrier, XLA would make one sum of both.
    return _added(lax.optimization_barrier(parts), 0)


def _added(arrays: Sequence[Array], axis: int) -> list[Array]:
    """Sums of all `arrays` over `axis`, in one pass."""
    zeros = [jnp.zeros((), array.dtype) for array in arrays]
    return list(lax.reduce(list(arrays), zeros, lambda a, b: list(map(jnp.add, a, b)), (axis,)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _norm_act(x: Array, scale: Array, bias: Array, act: int) -> Array:
    """Batch normalisation by the batch's own moments, and activation.

    With a derivative of its own: half as many passes over x as JAX's.
    """
    return _norm_act_fwd(x, scale, bias, act)[0]


def _norm_act_fwd(x: Array, scale: Array, bias: Array, act: int) -> tuple[Array, Any]:
    mean, var = _moments(x)
    rstd = lax.rsqrt(var + BN_EPSILON)
    normed = (x - mean) * (scale * rstd) + bias
    return activate(act, normed).astype(x.dtype), (x, scale, bias, mean, rstd)


def _norm_act_bwd(act: int, residuals: Any, g: Array) -> tuple[Array, Array, Array]:
    x, scale, bias, mean, rstd = residuals
    count = x.size / x.shape[-1]
    normed = (x - mean) * rstd
    if act != NONE:
        g = _activation_gradient(act, normed * scale + bias, g)
    g = g.astype(sum_type(x))
    dbias, dscale = _sums(x.dtype, g, g * normed)
    dx = (scale * rstd) * (g - (dbias + normed * dscale) / count)
    return dx.astype(x.dtype), dscale, dbias


_norm_act.defvjp(_norm_act_fwd, _norm_act_bwd)


def squeeze_excite(x: Array, p: Params, hidden: Array | int, hard: Array | int = 0) -> Array:
    """Gates in (0, 1), [B, 1, 1, C], from channel means (arXiv 1709.01507).

    By sigmoids or, where `hard` is 1, by hard ones, in [0, 1] (MobileNetV3, arXiv 1905.02244).

    p = {"w1": [>= C, R], "b1": [R], "w2": [R, >= C], "b2": [>= C]}; only the first `hidden` of R
    units are used.
    """
    channels = x.shape[-1]
    h = jax.nn.relu(x.mean((1, 2), sum_type(x)) @ p["w1"][:channels] + p["b1"])
    h = watched(h * (jnp.arange(h.shape[-1]) < hidden), p, hidden)
    h = h @ p["w2"][:, :channels] + p["b2"][:channels]
    gate = jnp.where(jnp.asarray(hard) == 1, hard_sigmoid(h), jax.nn.sigmoid(h))
    return gate[:, None, None, :]


def watched(x: Array, p: Params, active: Array | int) -> Array:
    """X, what a rectifier lets through [B, .., C]: 0 behind the first `active` channels.

    Where the parameters `p` around it hold `AGREEMENT` [B, B], the derivative of anything in that
    is how many of its units are open for both of two images, or closed for both (`agreement`).
    Beside others' derivatives it so comes out of loops and branches by itself. For
    `networks.proxies`; XLA's plain code and the cells ask for it, no other backend everywhere.
    """
    return _watched(x, p[AGREEMENT], jnp.asarray(active)) if AGREEMENT in p else x


@jax.custom_vjp
def _watched(x: Array, watch: Array, active: Array) -> Array:
    return x


def _watched_fwd(x: Array, watch: Array, active: Array) -> tuple[Array, Any]:
    return x, (x, watch, active)


def _watched_bwd(kept: Any, g: Array) -> tuple[Array, Array, None]:
    x, watch, active = kept
    return g, agreement(x, active).astype(watch.dtype), None


_watched.defvjp(_watched_fwd, _watched_bwd)


def agreement(x: Array, active: Array | int) -> Array:
    """[B, B] units of x [B, .., C] that are above 0 for both of two images, or for neither."""
    open_ = (x > 0).reshape(len(x), -1).astype(jnp.float32)
    both = jnp.matmul(open_, open_.T, precision=lax.Precision.HIGHEST)
    units, each = active * (x[0].size // x.shape[-1]), jnp.diagonal(both)
    return units - each[:, None] - each[None, :] + 2 * both


def fit_channels(x: Array, channels: int) -> Array:
    """The first `channels` channels of x, with zeros added where x has fewer."""
    missing = max(0, channels - x.shape[-1])
    return jnp.pad(x[..., :channels], [(0, 0)] * (x.ndim - 1) + [(0, missing)])


def norm_params(*shape: int) -> Params:
    """Scale one and bias zero, each of `shape` (layers.., channels)."""
    return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}


def zero_moments(norm: Params) -> Moments:
    """Moments of the width of this normalisation's parameters."""
    zeros = jnp.zeros(norm["scale"].shape, norm["scale"].dtype)
    return Moments(zeros, zeros)


class _Normal(NamedTuple):
    """A tensor that `realise` draws: normal with standard deviation sqrt(2 / fan_in)."""

    shape: tuple[int, ...]
    fan_in: Array | int


def he_normal(shape: tuple[int, ...], fan_in: Array | int) -> _Normal:
    """Standard deviation sqrt(2 / fan_in) (arXiv 1502.01852)."""
    return _Normal(shape, fan_in)


class Drawn(NamedTuple):
    """A tree of tensors that `realise` draws by a function of its own."""

    draw: Callable[[Array], Any]  # of a key


def realise(key: Array, params: Any) -> Any:
    """Replace every `_Normal` of a tree by a draw; one generator call for all compiles fast.

    A `Drawn` becomes the tree that its function draws.
    """
    leaves, tree = jax.tree.flatten(params, is_leaf=lambda leaf: isinstance(leaf, _Normal | Drawn))
    drawn = [leaf for leaf in leaves if isinstance(leaf, _Normal)]
    sizes = [int(np.prod(leaf.shape)) for leaf in drawn]
    parts = iter(lax.split(jax.random.normal(key, (sum(sizes),)), sizes))
    deviations = iter(_deviations([leaf.fan_in for leaf in drawn]))

    def filled(place: int, leaf: Any) -> Any:
        if isinstance(leaf, Drawn):
            return leaf.draw(jax.random.fold_in(key, place))
        if isinstance(leaf, _Normal):
            return next(parts).reshape(leaf.shape) * next(deviations)
        return leaf

    return jax.tree.unflatten(tree, [filled(i, leaf) for i, leaf in enumerate(leaves)])


def _deviations(fans: list[Array | int]) -> list[Array]:
    """sqrt(2 / fan) of each; all at once, as for `realise`."""
    if not fans:
        return []
    each = [jnp.asarray(fan) for fan in fans]
    flat = jnp.concatenate([fan.reshape(-1) for fan in each]).astype(jnp.float32)
    parts = lax.split(jnp.sqrt(2.0 / flat), [fan.size for fan in each])
    return [part.reshape(fan.shape) for part, fan in zip(parts, each, strict=True)]
