"""Whole networks as programs that are timed: the function that ships, of stock Flax layers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.networks import flax_reference, shipped
from fnas_jax.networks.dense import Outputs
from fnas_jax.spaces.base import Space
from fnas_jax.timing import clock, operations

# Of what `latency_ms` times and how, for protocols; to be counted up whenever its numbers change.
# 1: the network's logits of normalised pixels, weights as arguments, the median of all passes.
# 2: classes and probabilities of pixels as stored, weights as constants, `clock.undisturbed`.
DEFINITION = 2


class Images(NamedTuple):
    """What the networks of a task take."""

    shape: tuple[int, int, int]  # height, width, channels
    dtype: Any  # of pixels as stored
    classes: Outputs
    normalise: Callable[[Array], Array]  # [B, H, W, C] as stored -> what the network takes


def program(
    space: Space, arch: Any, images: Images, batch: int
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """(a function, its argument): the network of `arch` [T] says what `batch` images are.

    Not by the convolutions that train children on CPUs, and with its weights as constants: so it
    is exported.
    """
    module = flax_reference.build(space, np.asarray(arch), images.classes, fast=False)
    pixels = jnp.zeros((batch, *images.shape), images.dtype)
    variables = operations.drawn(module, images.normalise(pixels), train=False)
    return functools.partial(shipped.classify, module, images.normalise, variables), (pixels,)


def latency_ms(space: Space, arch: Any, images: Images, batch: int, repeats: int) -> float:
    """Milliseconds of a pass of the network of `arch` [T] on this device, by `repeats` of them.

    Raises UserError where its memory does not suffice.
    """
    with clock.enough_memory(batch):
        call = clock.compiled(*program(space, arch, images, batch))
        clock.warm_up(call)
        return clock.undisturbed(clock.readings(call, repeats))
