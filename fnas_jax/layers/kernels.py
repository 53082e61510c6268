"""Layers by the kernels for CPUs: sizes are data, and nothing is compiled.

Channels beyond the child's are zero in results and derivatives, and cost no time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.layers import compile_kernels
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.parameters import full_weights
from fnas_jax.layers.spec import NORMS, LayerSpec, Slot

_SE = ("w1", "b1", "w2", "b2")


def apply(slot: Slot, params: Params, x: Array, spec: LayerSpec, root: bool = False) -> Array:
    """See `choose.Backend`; the derivative of a `root`'s input is zero, and costs no time."""
    chex.assert_rank(x, 4)
    return _layer(slot.stride, _arrays(params), x, _row(spec, root))


def apply_eval(
    slot: Slot,
    params: Params,
    x: Array,
    spec: LayerSpec,
    stats: dict[str, Moments],
    collect: Array,
) -> tuple[Array, dict[str, Moments]]:
    """See `choose.Backend`."""
    chex.assert_rank(x, 4)
    arrays, cout = _arrays(params), params["norm_out"]["scale"].shape[0]
    nothing = Moments(jnp.zeros(0), jnp.zeros(0))
    moments = [stats.get(name, nothing) for name in NORMS]
    like = [m.mean for m in moments] * 2
    call = _call("FnasEvaluate", (_output(x, slot.stride, cout), *like), slot.stride, cout)
    given = (*(m.mean for m in moments), *(m.var for m in moments))
    y, *new = call(x, _row(spec), *arrays, *given, jnp.asarray(collect, jnp.int32))
    found = {name: Moments(new[i], new[3 + i]) for i, name in enumerate(NORMS)}
    return y, {name: found[name] for name in stats}


def _row(spec: LayerSpec, root: bool = False) -> Array:
    """[9] int32, what layer.h reads of the child."""
    return jnp.stack([jnp.asarray(field, jnp.int32) for field in (*spec, root)])


def _arrays(params: Params) -> tuple[Array, ...]:
    """The parameters in the order of layer.h, with empty arrays for those that are not there."""
    none = jnp.zeros(0)
    full = full_weights(params) if {"conv", "shortcut"} & params.keys() else none
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
        # The kernels do not check types.
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
    middle = depthwise.shape[-1] if depthwise.ndim > 1 else 0
    hidden = w1.shape[1] if w1.ndim > 1 else 0
    in_pixels, out_pixels = (shape[1] * shape[2] for shape in (x.shape, y.shape))
    size = compile_kernels.kept_size(
        x.shape[0], in_pixels, out_pixels, middle, scale_out.shape[0], hidden
    )
    return jax.ShapeDtypeStruct((size,), jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(stride: int, arrays: tuple[Array, ...], x: Array, sizes: Array) -> Array:
    return _layer_fwd(stride, arrays, x, sizes)[0]


def _layer_fwd(
    stride: int, arrays: tuple[Array, ...], x: Array, sizes: Array
) -> tuple[Array, tuple]:
    cout = arrays[6].shape[0]
    result = _output(x, stride, cout)
    call = _call("FnasForward", (result, _kept(arrays, x, result)), stride, cout)
    y, kept = call(x, sizes, *arrays)
    return y, (arrays, x, sizes, kept)


def _layer_bwd(stride: int, residuals: tuple, dy: Array) -> tuple:
    arrays, x, sizes, kept = residuals
    call = _call("FnasBackward", (x, *arrays), stride, dy.shape[-1])
    dx, *darrays = call(x, sizes, *arrays, kept, dy)
    return tuple(darrays), dx, None


_layer.defvjp(_layer_fwd, _layer_bwd)
