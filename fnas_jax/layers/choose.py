"""The backends of a layer; all are the same function.

kernels: the kernels of CPUs, to which sizes are data. They know no layers of the user's own: places
where one may occur run as those of `reference`.
kernels_bf16: the same with products of bfloat16 numbers, where the CPU has these, and half of the
bytes for what layers keep for the derivative. What goes from layer to layer is float32.
reference: XLA's code, a branch for every kind of layer, of which one runs. For CPUs without
compiler, and for tests to compare with.
masked: one piece of code for all kinds of layer, the widest, with zeros where the child has
nothing, in bfloat16 on accelerators. No conditional, so nobody waits for a host.
branched: a branch of code for each of a few sizes of layer, of which one runs, also in a batch of
children; in bfloat16 on accelerators.
exact: a program for each child, of its own layers and nothing else; in bfloat16 on accelerators.
regional: programs of single layers, in the sizes of `branched`, which the host runs one after
another for each child; in bfloat16 on accelerators.
Which of the last four is the fastest depends on device, images, batch and how long children train,
and is measured where they are trained (`tasks.ways`). A network that many
architectures share runs as `branched` where this is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core.types import Array, UserError
from fnas_jax.layers import branched, compile_kernels, exact, kernels, masked, own, reference
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.spec import LayerSpec, Slot


class Packing(NamedTuple):
    """What the layers of a slot, which may be stacked, are as few arrays; `Backend` takes both."""

    pack: Callable[[Slot, Params], Any] = lambda slot, params: params
    unpack: Callable[[Slot, Any], Params] = lambda slot, packed: packed
    pack_stats: Callable[[Slot, Any], Any] = lambda slot, stats: stats
    unpack_stats: Callable[[Slot, Any], Any] = lambda slot, packed: packed
    rows: Callable[[LayerSpec], Any] = lambda spec: spec


class Backend(NamedTuple):
    """How layers run, each a record `spec` among the `choices` of its slot."""

    # (slot, params, x [B, H, W, Cin], spec, root=False) -> [B, H/s, W/s, Cout], skip added, widths
    # maximal; training: by the batch's statistics. `root`: x is data, whose derivative nobody needs
    apply: Callable[..., Array]
    # (slot, params, x, spec, stats, collect) -> (result, the batch's statistics): by `stats`, or
    # by the batch where `collect` [] bool says so
    apply_eval: Callable[..., tuple[Array, dict[str, Moments]]]
    looped: bool  # equal layers as a `scan`: compiled once
    packing: Packing = Packing()


def _by_kernels(
    short: bool, slot: Slot, params: Any, x: Array, spec: Any, root: bool = False
) -> Array:
    if own.codes(slot):
        return reference.apply(slot, params, x, _spec_of(spec), root)
    return kernels.apply(slot, params, x, spec, root, short)


def _evaluate_by_kernels(
    short: bool, slot: Slot, params: Any, x: Array, spec: Any, stats: Any, collect: Array
) -> tuple[Array, Any]:
    if own.codes(slot):
        return reference.apply_eval(slot, params, x, _spec_of(spec), stats, collect)
    return kernels.apply_eval(slot, params, x, spec, stats, collect, short)


def _spec_of(row: LayerSpec | Array) -> LayerSpec:
    """The record of a row of `kernels.rows`."""
    return row if isinstance(row, LayerSpec) else LayerSpec(*list(row)[: len(LayerSpec._fields)])


def _unless_own(function: Callable[..., Any], slot: Slot, *given: Any) -> Any:
    """`function`; what layers of the user's own have stays as it is."""
    return given[0] if own.codes(slot) else function(slot, *given)


_OF_KERNELS = Packing(
    pack=functools.partial(_unless_own, lambda slot, params: kernels.pack(params)),
    unpack=functools.partial(_unless_own, kernels.unpack),
    pack_stats=functools.partial(_unless_own, lambda slot, stats: kernels.pack_stats(stats)),
    unpack_stats=functools.partial(_unless_own, kernels.unpack_stats),
    rows=kernels.rows,
)
KERNELS, SHORT_KERNELS = (
    Backend(
        functools.partial(_by_kernels, short),
        functools.partial(_evaluate_by_kernels, short),
        looped=False,
        packing=_OF_KERNELS,
    )
    for short in (False, True)
)
KERNELS_OF = {"kernels": KERNELS, "kernels_bf16": SHORT_KERNELS}
REFERENCE = Backend(reference.apply, reference.apply_eval, looped=True)


@functools.cache  # one backend for one type, as compiled functions compare it by identity
def _in_type(code: ModuleType, looped: bool, dtype: Any) -> Backend:
    """By `code`, with convolutions and activations in `dtype`, normalisations in float32."""
    apply, apply_eval = code.apply, code.apply_eval
    return Backend(
        functools.partial(apply, dtype), functools.partial(apply_eval, dtype), looped=looped
    )


# dtype -> Backend
masked_in = functools.partial(_in_type, masked, True)
branched_in = functools.partial(_in_type, branched, True)
exact_in = functools.partial(_in_type, exact, False)  # its layers are numbers when compiled


def candidates(name: str = "auto") -> tuple[str, ...]:
    """The backends that `name` may stand for on these devices, first the one that does unmeasured.

    Which of several is the fastest has to be tried.
    """
    if name != "auto":
        return (name,)
    if jax.default_backend() == "cpu":
        return ("kernels" if compile_kernels.available() else "reference",)
    return ("branched", "masked")


def has_short_products() -> bool:
    """Whether these devices are a CPU that runs "kernels_bf16"."""
    return candidates() == ("kernels",) and compile_kernels.short_products()


def short_type() -> Any:
    """The type that convolutions have on these devices, but for `kernels` and `reference`."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def choose(name: str = "auto") -> Backend:
    """The backend of a name; "auto": what suits the devices.

    Raises UserError for kernels where there are none.
    """
    on_cpu, name = jax.default_backend() == "cpu", candidates(name)[0]
    if name in KERNELS_OF and not (on_cpu and compile_kernels.available()):
        raise UserError(
            f"children.backend is {name!r}, and there are no kernels for these devices; allowed"
            " are auto, reference, masked, branched, exact and regional"
        )
    if name == "kernels_bf16" and not has_short_products():
        raise UserError(
            "children.backend is 'kernels_bf16', and this CPU has no products of bfloat16 numbers"
            " (AVX512-BF16, Intel AMX); allowed are auto, kernels, reference, masked, branched,"
            " exact and regional"
        )
    if name == "masked":
        return masked_in(short_type())
    if name in ("branched", "exact", "regional"):
        return branched_in(short_type())
    return REFERENCE if name == "reference" else KERNELS_OF[name]


def scan(backend: Backend, step: Callable[..., Any], x: Array, layers: Any) -> tuple[Array, Any]:
    """`lax.scan`, or the same written out where a layer is nothing but a call.

    A loop would copy what each layer keeps for its derivative.
    """
    if backend.looped:
        return lax.scan(step, x, layers)
    leaves, structure = jax.tree.flatten(layers)
    results = []
    for of_layer in zip(*map(_split, leaves), strict=True):
        x, result = step(x, jax.tree.unflatten(structure, of_layer))
        results.append(result)
    return x, jax.tree.map(lambda *r: jnp.stack(r), *results)


def _split(leaf: Array | np.ndarray) -> list[Any]:
    """Its parts along axis 0; those of numpy arrays stay numbers in what is compiled."""
    if isinstance(leaf, np.ndarray):
        return list(leaf)
    # The derivative of a split is one concatenation; of indices, a sum of arrays full of zeros.
    return [part[0] for part in lax.split(leaf, (1,) * leaf.shape[0])]
