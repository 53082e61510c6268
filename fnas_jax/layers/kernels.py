"""Layers by the kernels for CPUs: sizes are data, and nothing is compiled.

Channels beyond the child's are zero in results and derivatives, and cost no time. The parameters of
a layer are one vector for them (`pack`): of a dozen arrays a layer, the copies would be most of
what is compiled, and of small children most of a step.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers import compile_kernels, parameters
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.spec import NORMS, LayerSpec, Slot


class Layout(NamedTuple):
    """Where the vector of a layer has its parameters, in the order of layer.h; Python ints."""

    paths: tuple[tuple[str, ...], ...]  # of each in `Params`; (): the layer has none
    shapes: tuple[tuple[int, ...], ...]  # of each; (0,): the layer has none
    stride: int
    short: bool = False  # products are of bfloat16 numbers, as are results of convolutions

    @property
    def counts(self) -> list[int]:
        """Numbers of each."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def sizes(self) -> list[int]:
        """What the kernels have to know besides: `slot_of` in ffi.cc."""
        full, _, depthwise = self.shapes[:3]
        cout, (gated, hidden) = self.shapes[6][-1], (*self.shapes[10], 0)[:2]
        middle = (*depthwise, 0, 0)[2]
        return [cout, full[0], depthwise[0], middle, gated, hidden]


@functools.lru_cache(maxsize=1024)
def layout(slot: Slot) -> Layout:
    """Of the layers of a slot, as `parameters.init` makes them."""
    return _layout(parameters.shapes(slot), slot.stride)


def _layout(shapes: dict[str, Any], stride: int) -> Layout:
    """Of layers whose parameters have these shapes."""
    full = ("shortcut",) if "shortcut" in shapes else ("conv",)
    wanted = (
        *(full, ("expand",), ("depthwise",), ("project",)),
        *((name, part) for part in ("scale", "bias") for name in NORMS),
        *(("se", name) for name in ("w1", "b1", "w2", "b2")),
    )
    found = [_at(shapes, path) for path in wanted]
    if full == ("shortcut",):
        found[0] = (1, 1, *found[0])
    return Layout(
        tuple(path if shape else () for path, shape in zip(wanted, found, strict=True)),
        tuple(shape or (0,) for shape in found),
        stride,
    )


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    """What `tree` has there; () where it has nothing."""
    for name in path:
        if name not in tree:
            return ()
        tree = tree[name]
    return tree


def pack(params: Params) -> Array:
    """[.., P]: the parameters of layers, which may be stacked, as the kernels read them."""
    leading = params["norm_out"]["scale"].ndim - 1
    own = _layout(jax.tree.map(lambda leaf: leaf.shape[leading:], params), 1)
    found = [_at(params, path) for path in own.paths if path]
    flat = [leaf.reshape(*leaf.shape[:leading], -1) for leaf in found]
    return jnp.concatenate(flat, axis=-1)


def unpack(slot: Slot, vector: Array) -> Params:
    """The inverse of `pack`."""
    own = layout(slot)
    params: Params = {}
    parts = lax.split(vector, [n for n in own.counts if n], axis=vector.ndim - 1)
    there = [(path, shape) for path, shape in zip(own.paths, own.shapes, strict=True) if path]
    for part, (path, shape) in zip(parts, there, strict=True):
        branch = params
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        shape = shape[2:] if path == ("shortcut",) else shape
        branch[path[-1]] = part.reshape(*vector.shape[:-1], *shape)
    return params


def pack_stats(stats: dict[str, Moments]) -> Moments:
    """Moments [.., N] of all normalisations of layers, one behind the other."""
    there = [stats[name] for name in NORMS if name in stats]
    return Moments(*(jnp.concatenate(parts, axis=-1) for parts in zip(*there, strict=True)))


def unpack_stats(slot: Slot, packed: Moments) -> dict[str, Moments]:
    """The inverse of `pack_stats`."""
    return _unpack_stats(layout(slot), packed)


def _unpack_stats(own: Layout, packed: Moments) -> dict[str, Moments]:
    names = [name for name in NORMS if (name, "scale") in own.paths]
    widths = [n for n in own.counts[4:7] if n]
    parts = (lax.split(leaf, widths, axis=leaf.ndim - 1) for leaf in packed)
    return {name: Moments(*part) for name, *part in zip(names, *parts, strict=True)}


def rows(spec: LayerSpec, root: bool = False) -> Array:
    """[.., 9] int32, what layer.h reads of layers."""
    fields = [jnp.asarray(field, jnp.int32) for field in (*spec, root)]
    return jnp.stack(jnp.broadcast_arrays(*fields), axis=-1)


def apply(
    slot: Slot,
    params: Params | Array,
    x: Array,
    spec: LayerSpec | Array,
    root: bool = False,
    short: bool = False,
) -> Array:
    """See `choose.Backend`; the derivative of a `root`'s input is zero, and costs no time.

    `params` may be those of `pack`, and `spec` one of `rows`. `short`: factors of full and of 1x1
    convolutions are bfloat16 numbers, summed in float32, and so is what is kept for the derivative;
    faster where `compile_kernels.short_products`.
    """
    chex.assert_rank(x, 4)
    own, vector = _read(slot, params, short)
    return _layer(own, vector, x, rows(spec, root) if isinstance(spec, LayerSpec) else spec)


def apply_eval(
    slot: Slot,
    params: Params | Array,
    x: Array,
    spec: LayerSpec | Array,
    stats: dict[str, Moments] | Moments,
    collect: Array,
    short: bool = False,
) -> tuple[Array, Any]:
    """See `choose.Backend`; `stats` may be those of `pack_stats`, and what is returned then is."""
    chex.assert_rank(x, 4)
    own, vector = _read(slot, params, short)
    moments = stats if isinstance(stats, Moments) else pack_stats(stats)
    row = rows(spec) if isinstance(spec, LayerSpec) else spec
    call = _call("FnasEvaluate", (_output(x, own), *moments), own)
    y, *new = call(x, row, vector, *moments, jnp.asarray(collect, jnp.int32))
    found = Moments(*new)
    return y, found if isinstance(stats, Moments) else _unpack_stats(own, found)


def _read(slot: Slot, params: Params | Array, short: bool) -> tuple[Layout, Array]:
    """The parameters of a layer of `slot`, and where they stand; as an array, of `pack`."""
    if not isinstance(params, dict):
        return layout(slot)._replace(short=short), params
    # Of a wider slot, where one of its choices is run by itself.
    own = _layout(jax.tree.map(jnp.shape, params), slot.stride)
    return own._replace(short=short), pack(params)


def _output(x: Array, own: Layout) -> jax.ShapeDtypeStruct:
    batch, height, width, _ = x.shape
    shape = (batch, -(-height // own.stride), -(-width // own.stride), own.sizes[0])
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _call(name: str, results: tuple, own: Layout) -> Callable[..., Any]:
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
    return functools.partial(
        checked,
        stride=np.int64(own.stride),
        offsets=np.array([0, *itertools.accumulate(own.counts)], np.int64),
        sizes=np.array([*own.sizes, own.short], np.int64),
    )


def _kept(own: Layout, x: Array, y: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Room for what the widest child keeps; memory that a child does not use is never touched."""
    cout, _, _, middle, _, hidden = own.sizes
    in_pixels, out_pixels = (shape[1] * shape[2] for shape in (x.shape, y.shape))
    size = compile_kernels.kept_size(
        x.shape[0], in_pixels, out_pixels, middle, cout, hidden, own.short
    )
    return jax.ShapeDtypeStruct((size,), jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(own: Layout, params: Array, x: Array, sizes: Array) -> Array:
    return _layer_fwd(own, params, x, sizes)[0]


def _layer_fwd(own: Layout, params: Array, x: Array, sizes: Array) -> tuple[Array, tuple]:
    result = _output(x, own)
    y, kept = _call("FnasForward", (result, _kept(own, x, result)), own)(x, sizes, params)
    return y, (params, x, sizes, kept)


def _layer_bwd(own: Layout, residuals: tuple, dy: Array) -> tuple:
    params, x, sizes, kept = residuals
    dx, dparams = _call("FnasBackward", (x, params), own)(x, sizes, params, kept, dy)
    return dparams, dx, None


_layer.defvjp(_layer_fwd, _layer_bwd)
