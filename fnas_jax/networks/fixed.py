"""The network of one architecture, by the layers of elastic ones: winners and references."""

from __future__ import annotations

import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.layers.backends import Backend
from fnas_jax.layers.reference import SKIP_IDENTITY, SKIP_NONE, SKIP_POOL, Setting, Variant
from fnas_jax.networks.base import Network
from fnas_jax.networks.layer_specs import Layer, Plan
from fnas_jax.networks.mobile import Choice, Stack, network

_SKIPS = {"pool": SKIP_POOL, "identity": SKIP_IDENTITY, "none": SKIP_NONE}


def build(plan: Plan, channels: int, classes: int, backend: Backend) -> Network:
    """The network of one `plan`, whose architecture argument means nothing."""

    def choose(arch: Array) -> list[Choice]:
        none = jnp.zeros(0, jnp.int32)
        return [Choice(jnp.int32(0), _setting(layer), none, none) for layer in plan.layers]

    return network(
        stacks=tuple(_only(layer, plan.act) for layer in plan.layers),
        choose=choose,
        stem=plan.stem,
        stem_stride=plan.stem_stride,
        head=plan.head,
        act=plan.act,
        channels=channels,
        classes=classes,
        decisions=0,
        backend=backend,
    )


def _only(layer: Layer, act: str) -> Stack:
    """The stack that is this layer."""
    variant = Variant(layer.op, (layer.kernel,), layer.expansion, layer.stride, act)
    return Stack(layer.cin, layer.cout, 1, (variant,), (), layer.se_hidden > 0)


def _setting(layer: Layer) -> Setting:
    sizes = (jnp.int32(0), jnp.int32(layer.cin), jnp.int32(layer.cout))
    return Setting(*sizes, jnp.bool_(layer.se_hidden > 0), jnp.int32(_SKIPS[layer.skip]))
