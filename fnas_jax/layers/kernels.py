"""Layers of `children.blocks` by the kernels for CPUs: sizes are data, and nothing is compiled.

The same function of parameters, input and choices as `blocks.layer` plus `blocks.skip`; channels
beyond the child's are zero in results and derivatives, and cost no time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.layers import reference
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.reference import NORMS, Evaluation, Setting, Variant

# The codes of layer.h
_OPS = {"pass": 0, "conv": 1, "shortcut": 1, "sepconv": 2, "mbconv": 3}
_ACTS = {"none": 0, "relu": 1, "relu6": 2}
_LANES = 16  # channels are kept in multiples of this
_SE = ("w1", "b1", "w2", "b2")


def apply(
    variants: tuple[Variant, ...],
    params: Params,
    x: Array,
    variant: Array | int,
    setting: Setting,
    root: bool = False,
) -> Array:
    """Training: x [B, H, W, Cin] -> [B, H/s, W/s, Cout], skip added; widths are maximal.

    A `variant` beyond the last of `variants` passes its input on. `root`: the input is data, whose
    derivative, then zero, costs no time.
    """
    chex.assert_rank(x, 4)
    sizes = _sizes(variants, variant, _gated(params, setting), root)
    return _layer(variants[0].stride, _arrays(params), x, sizes)


def apply_eval(
    variants: tuple[Variant, ...],
    params: Params,
    x: Array,
    variant: Array | int,
    setting: Setting,
    evaluation: Evaluation,
) -> tuple[Array, dict[str, Moments]]:
    """`apply` outside training, and the batch's statistics if they are to be collected."""
    chex.assert_rank(x, 4)
    stride, arrays, cout = variants[0].stride, _arrays(params), reference.widest_output(params)
    nothing = Moments(jnp.zeros(0), jnp.zeros(0))
    moments = [evaluation.stats.get(name, nothing) for name in NORMS]
    like = [m.mean for m in moments] * 2
    call = _call("FnasEvaluate", (_output(x, stride, cout), *like), stride, cout)
    given = (*(m.mean for m in moments), *(m.var for m in moments))
    collect = jnp.asarray(evaluation.collect, jnp.int32)
    y, *new = call(x, _sizes(variants, variant, _gated(params, setting)), *arrays, *given, collect)
    stats = {name: Moments(new[i], new[3 + i]) for i, name in enumerate(NORMS)}
    return y, {name: stats[name] for name in evaluation.stats}


def _gated(params: Params, setting: Setting) -> Setting:
    """The setting, without squeeze-excitation where the parameters hold none."""
    return setting if "se" in params else setting._replace(se=jnp.bool_(False))


def _sizes(
    variants: tuple[Variant, ...], variant: Array | int, setting: Setting, root: bool = False
) -> Array:
    """[9] int32, what layer.h reads of the child."""
    stride = variants[0].stride
    table = [
        (_OPS[v.op], v.expansion, _ACTS["none" if v.op == "shortcut" else v.act], *kernels)
        for v, kernels in zip(variants, reference.kernel_table(variants), strict=True)
    ]
    absent = (_OPS["pass"], 1, 0, *(1,) * (len(table[0]) - 3))
    row = jnp.asarray(np.asarray([*table, absent], np.int32))[variant]
    exists = row[0] != _OPS["pass"]
    fits = (setting.cin == setting.cout) & (stride == 1)
    adds = exists & ((setting.skip != reference.SKIP_IDENTITY) | fits)
    gated = jnp.asarray([v.op != "shortcut" for v in variants] + [False])[variant]
    hidden = jnp.where(setting.se & gated, reference.se_hidden(setting.cin), 0)
    fields = (
        row[0],
        row[3 + setting.kernel],
        setting.cin,
        row[1] * setting.cin,
        setting.cout,
        hidden,
        jnp.where(adds, setting.skip, reference.SKIP_NONE),
        row[2],
        root,
    )
    return jnp.stack([jnp.asarray(f, jnp.int32) for f in fields])


def _arrays(params: Params) -> tuple[Array, ...]:
    """The parameters in the order of layer.h, with empty arrays for those that are not there."""
    none = jnp.zeros(0)
    full = params.get("conv", none)
    if "shortcut" in params:
        full = params["shortcut"][None, None]
    norms = [params.get(name, {"scale": none, "bias": none}) for name in NORMS]
    return (
        full,
        *(params.get(name, none) for name in ("expand", "depthwise", "project")),
        *(norm["scale"] for norm in norms),
        *(norm["bias"] for norm in norms),
        *(params["se"][name] if "se" in params else none for name in _SE),
    )


def _output(x: Array, stride: int, cout: int) -> jax.ShapeDtypeStruct:
    batch, height, width, _ = x.shape
    shape = (batch, -(-height // stride), -(-width // stride), cout)
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _call(name: str, results: tuple, stride: int, cout: int) -> Callable[..., Any]:
    def checked(*arguments: Array, **attributes: Any) -> Any:
        # The kernels take arrays at their word.
        whole = [a for a in arguments if jnp.issubdtype(a.dtype, jnp.floating)]
        chex.assert_type(whole, jnp.float32)
        return call(*arguments, **attributes)

    call = jax.ffi.ffi_call(
        name,
        [jax.ShapeDtypeStruct(r.shape, jnp.float32) for r in results],
        vmap_method="sequential",
    )
    return functools.partial(checked, stride=np.int64(stride), channels=np.int64(cout))


def _kept(arrays: tuple[Array, ...], x: Array, y: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Room for what the widest child keeps; memory that a child does not use is never touched."""
    depthwise, scale_out, w1 = arrays[2], arrays[6], arrays[10]
    middle = _pitch(depthwise.shape[-1]) if depthwise.ndim > 1 else 0
    cout = _pitch(scale_out.shape[0])
    hidden, gated = (w1.shape[1], w1.shape[0]) if w1.ndim > 1 else (0, 0)
    into, out = (math.prod(shape[:3]) for shape in (x.shape, y.shape))
    size = (into + out) * middle + out * cout + 2 * (2 * middle + cout)
    size += x.shape[0] * (2 * _pitch(max(gated, middle, cout)) + _pitch(hidden))
    return jax.ShapeDtypeStruct((size,), jnp.float32)


def _pitch(channels: int) -> int:
    return -(-channels // _LANES) * _LANES


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(stride: int, arrays: tuple[Array, ...], x: Array, sizes: Array) -> Array:
    return _layer_fwd(stride, arrays, x, sizes)[0]


def _layer_fwd(
    stride: int, arrays: tuple[Array, ...], x: Array, sizes: Array
) -> tuple[Array, tuple]:
    cout = arrays[6].shape[0]
    result = _output(x, stride, cout)
    call = _call("FnasTrain", (result, _kept(arrays, x, result)), stride, cout)
    y, kept = call(x, sizes, *arrays)
    return y, (arrays, x, sizes, kept)


def _layer_bwd(stride: int, residuals: tuple, dy: Array) -> tuple:
    arrays, x, sizes, kept = residuals
    call = _call("FnasBackward", (x, *arrays), stride, dy.shape[-1])
    dx, *darrays = call(x, sizes, *arrays, kept, dy)
    return tuple(darrays), dx, None


_layer.defvjp(_layer_fwd, _layer_bwd)
