"""The elastic network of the MNAS space: one stack of layers a block."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.layers import reference
from fnas_jax.layers.backends import Backend
from fnas_jax.layers.reference import Setting, Variant
from fnas_jax.networks import mobile
from fnas_jax.networks.base import Network
from fnas_jax.networks.mobile import Choice, Stack
from fnas_jax.spaces import mnas


def variants(stride: int) -> tuple[Variant, ...]:
    """The layers of the MNAS space, in the order of `variant_index`."""
    make = functools.partial(Variant, kernels=mnas.KERNELS, stride=stride, act="relu6")
    return (
        make("conv", expansion=1),
        make("sepconv", expansion=1),
        *(make("mbconv", expansion=e) for e in mnas.EXPANSIONS),
    )


def variant_index(op: Array, expansion: Array) -> Array:
    """Position in `variants` of these decisions (indices of spaces.mnas)."""
    return op + jnp.where(op == mnas.OPS.index("mbconv"), expansion, 0)


def mnas_stacks(spec: mnas.MnasSpec) -> tuple[Stack, ...]:
    """One stack a block."""
    widest = (spec.stem, *(max(c) for c in spec.channels))
    return tuple(
        Stack(
            cin=widest[s],
            cout=widest[s + 1],
            depth=max(spec.depths[s]),
            first=variants(stride),
            rest=variants(1),
            se=True,
        )
        for s, stride in enumerate(spec.strides)
    )


def mnas_choices(spec: mnas.MnasSpec, arch: Array) -> list[Choice]:
    """[T] -> one `Choice` a block."""
    decisions = mnas.split(arch[None])
    cin, cout, depth = mnas.channels_of(spec, decisions)
    b = jax.tree.map(lambda field: field[0], decisions)
    index = variant_index(b.op, b.expansion)
    choices = []
    for s, depths in enumerate(spec.depths):
        exists = jnp.arange(1, max(depths)) < depth[0, s]
        choices.append(
            Choice(
                variant=index[s],
                setting=Setting(b.kernel[s], cin[0, s], cout[0, s], b.se[s] == 1, b.skip[s]),
                rest=jnp.where(exists, index[s], len(variants(1))),
                rest_skip=jnp.where(exists, b.skip[s], reference.SKIP_NONE),
            )
        )
    return choices


def build(spec: mnas.MnasSpec, channels: int, classes: int, backend: Backend) -> Network:
    """The elastic MNAS network for images of `channels` channels."""
    return mobile.network(
        stacks=mnas_stacks(spec),
        choose=functools.partial(mnas_choices, spec),
        stem=spec.stem,
        stem_stride=spec.stem_stride,
        head=spec.head,
        act="relu6",
        channels=channels,
        classes=classes,
        decisions=len(spec.strides) * len(mnas.FIELDS),
        backend=backend,
    )
