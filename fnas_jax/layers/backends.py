"""Three ways to run a layer whose kind is data; all are the same function.

`KERNELS`: by the kernels of CPUs, to which sizes are data.
`REFERENCE`: XLA's code, a branch for every variant, of which one runs. For CPUs without compiler.
`masked`: one piece of code for all variants, the widest, with zeros where the child has nothing.
For accelerators: under `vmap` a switch would run all its branches, and they gain from bfloat16.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers import compile_kernels, convolutions, ops, reference
from fnas_jax.layers import kernels as kernels_lib
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.reference import Evaluation, Setting, Variant
from fnas_jax.networks.base import Branch, switch

Variants = tuple[Variant, ...]


class Backend(NamedTuple):
    """How layers run. A variant beyond the last of `variants` passes its input on."""

    # (variants, params, x [B, H, W, Cin], variant, setting, root) -> [B, H/s, W/s, Cout], skip
    # added; `root`: x is data, whose derivative nobody needs
    apply: Callable[[Variants, Params, Array, Array | int, Setting, bool], Array]
    # (variants, params, x, variant, setting, evaluation) -> (result, the batch's statistics)
    apply_eval: Callable[..., tuple[Array, dict[str, Moments]]]
    looped: bool  # equal layers as a `scan`: compiled once


def choose(name: str = "auto") -> Backend:
    """The backend called "kernels", "reference" or "masked"; "auto": what suits the devices."""
    on_cpu = jax.default_backend() == "cpu"
    if name == "auto":
        name = "masked" if not on_cpu else "kernels" if compile_kernels.available() else "reference"
    if name == "kernels" and not (on_cpu and compile_kernels.available()):
        raise ValueError("there are no kernels for these devices")
    if name == "masked":
        return masked(jnp.float32 if on_cpu else jnp.bfloat16)
    return {"kernels": KERNELS, "reference": REFERENCE}[name]


# ---- a branch for each variant


def _reference(
    variants: Variants,
    params: Params,
    x: Array,
    variant: Array | int,
    setting: Setting,
    root: bool = False,
) -> Array:
    cout, stride = reference.widest_output(params), variants[0].stride
    branches = _branches(variants, optional=_may_be_absent(params, x, stride))
    if len(branches) == 1:
        y = branches[0](params, x, setting)
    else:
        y = switch(branches, jnp.asarray(variant), params, x, setting)
    return y + reference.skip(x, cout, stride, _present(variants, variant, setting))


@functools.cache  # the same tuple for the same layers, as `switch` compares it by identity
def _branches(layers: Variants, optional: bool) -> tuple[Branch, ...]:
    """Training branches; `optional` adds one that passes its input on."""
    train = [lambda p, x, setting, v=v: reference.layer(v, p, x, setting, None)[0] for v in layers]
    return tuple(train) + ((lambda p, x, setting: x),) * optional


def _reference_eval(
    variants: Variants,
    params: Params,
    x: Array,
    variant: Array | int,
    setting: Setting,
    evaluation: Evaluation,
) -> tuple[Array, dict[str, Moments]]:
    stride = variants[0].stride
    branches: list[Any] = [functools.partial(reference.layer, v) for v in variants]
    if _may_be_absent(params, x, stride):
        branches.append(lambda p, x, setting, evaluation: (x, reference.zero_stats(p)))
    y, stats = lax.switch(jnp.asarray(variant), branches, params, x, setting, evaluation)
    added = reference.skip(
        x, reference.widest_output(params), stride, _present(variants, variant, setting)
    )
    return y + added, stats


def _may_be_absent(params: Params, x: Array, stride: int) -> bool:
    """Only a layer that keeps its input's shape can be left out."""
    return stride == 1 and x.shape[-1] == reference.widest_output(params)


def _present(variants: Variants, variant: Array | int, setting: Setting) -> Setting:
    """The setting, without a skip operation where there is no layer."""
    skip = jnp.where(variant < len(variants), setting.skip, reference.SKIP_NONE)
    return setting._replace(skip=skip)


# ---- one piece of code for all variants


@functools.cache  # one backend for one type
def masked(dtype: Any) -> Backend:
    """Convolutions and activations in `dtype`, normalisations in float32."""

    def apply(
        variants: Variants,
        params: Params,
        x: Array,
        variant: Array | int,
        setting: Setting,
        root: bool = False,
    ) -> Array:
        return _masked(variants, params, x.astype(dtype), variant, setting, None)[0]

    def apply_eval(
        variants: Variants,
        params: Params,
        x: Array,
        variant: Array | int,
        setting: Setting,
        evaluation: Evaluation,
    ) -> tuple[Array, dict[str, Moments]]:
        return _masked(variants, params, x.astype(dtype), variant, setting, evaluation)

    return Backend(apply, apply_eval, looped=True)


def _masked(
    variants: Variants,
    params: Params,
    x: Array,
    variant: Array | int,
    setting: Setting,
    evaluation: Evaluation | None,
) -> tuple[Array, dict[str, Moments]]:
    """Full and separable convolutions, each once and at their largest; then what the child has."""
    stride, act = variants[0].stride, variants[0].act
    index = jnp.minimum(jnp.asarray(variant), len(variants) - 1)
    stats = reference.zero_stats(params)

    def norm(name: str, h: Array, active: Array | int, act: str) -> Array:
        h, stats[name] = reference.norm(params, name, h, active, act, evaluation)
        return h

    def weights(name: str) -> Array:
        """The parameter in the type of the computation, zero outside the child's kernel."""
        w = params[name].astype(x.dtype)
        if name in ("conv", "depthwise"):
            w *= _kernel_mask(variants, index, setting, w.shape[0]).reshape(
                *w.shape[:2], *(1,) * (w.ndim - 2)
            )
        return w

    def is_one_of(*names: str) -> Array:
        return jnp.asarray([v.op in names for v in variants])[index]

    ops_here = {v.op for v in variants}
    full = deep = None
    if "conv" in ops_here:
        w = weights("conv")
        full = convolutions.conv(x, w, 0, w.shape[:1], stride)
    elif "shortcut" in ops_here:
        full = convolutions.pointwise(x, weights("shortcut"), stride)
    if ops_here & {"sepconv", "mbconv"}:
        middle = jnp.asarray([v.expansion for v in variants])[index] * setting.cin
        h = x
        if "mbconv" in ops_here:
            h = convolutions.pointwise(x, weights("expand"))
            h = norm("norm_expand", h, middle, act)
        if "sepconv" in ops_here:
            h = jnp.where(is_one_of("sepconv"), ops.fit_channels(x, h.shape[-1]), h)
        w = weights("depthwise")
        h = convolutions.depthwise(h, w, 0, w.shape[:1], stride)
        h = reference.gate(params, norm("norm_depthwise", h, middle, act), setting)
        deep = convolutions.pointwise(h, weights("project"))
    is_full = is_one_of("conv", "shortcut")
    found = [h for h in (full, deep) if h is not None]
    y = found[0] if len(found) == 1 else jnp.where(is_full, found[0], found[1])
    y = norm("norm_out", y, setting.cout, "none")
    if "conv" in ops_here:
        y = jnp.where(is_full, reference.gate(params, ops.activate(act, y), setting), y)
    y += reference.skip(
        x, reference.widest_output(params), stride, _present(variants, variant, setting)
    )
    if y.shape == x.shape:
        y = jnp.where(variant < len(variants), y, x)
    return y, stats


def _kernel_mask(variants: Variants, index: Array, setting: Setting, largest: int) -> Array:
    """[K, K]: one inside the kernel that the child has, the centre of the largest."""
    sizes = jnp.asarray(reference.kernel_table(variants))
    side = jnp.abs(np.arange(largest) - largest // 2) <= sizes[index, setting.kernel] // 2
    return jnp.outer(side, side)


KERNELS = Backend(kernels_lib.apply, kernels_lib.apply_eval, looped=False)
REFERENCE = Backend(_reference, _reference_eval, looped=True)
