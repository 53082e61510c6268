"""The elastic network of NAS-Bench-Macro (arXiv 2103.11922): one stack of layers a stage."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.layers import reference
from fnas_jax.layers.backends import Backend
from fnas_jax.layers.reference import Setting, Variant
from fnas_jax.networks import mobile
from fnas_jax.networks.base import Network
from fnas_jax.networks.mobile import Choice, Stack
from fnas_jax.spaces.macro import MacroSpec


def build(spec: MacroSpec, channels: int, classes: int, backend: Backend) -> Network:
    """The elastic Macro network for images of `channels` channels."""
    return mobile.network(
        stacks=macro_stacks(spec),
        choose=functools.partial(macro_choices, spec),
        stem=spec.stem,
        stem_stride=spec.stem_stride,
        head=spec.head,
        act="relu",
        channels=channels,
        classes=classes,
        decisions=sum(spec.stages),
        by_layer=True,
        backend=backend,
    )


def macro_stacks(spec: MacroSpec) -> tuple[Stack, ...]:
    """One stack a stage. An identity is a shortcut in the first layer and no layer elsewhere."""

    def bottlenecks(stride: int) -> tuple[Variant, ...]:
        return tuple(
            Variant("mbconv", (k,), e, stride, "relu")
            for e, k in zip(spec.expansions, spec.kernels, strict=True)
            if e > 0
        )

    widths = (spec.stem, *spec.channels)
    return tuple(
        Stack(
            cin=widths[s],
            cout=widths[s + 1],
            depth=depth,
            first=(Variant("shortcut", (1,), 1, stride, "relu"), *bottlenecks(stride)),
            rest=bottlenecks(1),
            se=False,
        )
        for s, (depth, stride) in enumerate(zip(spec.stages, spec.strides, strict=True))
    )


def macro_choices(spec: MacroSpec, arch: Array) -> list[Choice]:
    """[8] -> one `Choice` a stage."""
    widths = (spec.stem, *spec.channels)
    starts = np.cumsum((0, *spec.stages[:-1]))
    choices = []
    for s, (start, depth) in enumerate(zip(starts, spec.stages, strict=True)):
        rest = arch[start + 1 : start + depth]
        setting = Setting(
            kernel=jnp.int32(0),
            cin=jnp.int32(widths[s]),
            cout=jnp.int32(widths[s + 1]),
            se=jnp.bool_(False),
            skip=jnp.int32(reference.SKIP_NONE),  # stages change shapes, so no residual is possible
        )
        exists = rest > 0
        choices.append(
            Choice(
                variant=arch[start],
                setting=setting,
                rest=jnp.where(exists, rest - 1, len(spec.expansions) - 1),
                rest_skip=jnp.where(exists, reference.SKIP_IDENTITY, reference.SKIP_NONE),
            )
        )
    return choices
