"""The programs of a layer, each compiled once for all children: two to train, one to judge.

What goes from the forward to the backward program of a layer is little: results of convolutions,
products and sums. All else is computed again, in passes over the images that the derivative makes
anyway.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core import devices
from fnas_jax.core.types import Array
from fnas_jax.layers import branched
from fnas_jax.layers.spec import LayerSpec
from fnas_jax.networks import regions
from fnas_jax.networks.regions import Region
from fnas_jax.training import child

FIELDS = len(LayerSpec._fields)
# Programs of a kind that are kept in memory: of several spaces and sizes on each of eight devices.
# With fewer than a space has, the oldest would go that is about to be asked for.
MOST = 16384


class Size(NamedTuple):
    """Of the images that a layer is given."""

    batch: int
    height: int
    width: int


class Key(NamedTuple):
    """What a layer is compiled for."""

    region: Region
    size: Size
    device: jax.Device


class OfTraining(NamedTuple):
    """The compiled programs of a layer in training."""

    # (vector [n], x, spec [FIELDS]) -> (result, what the derivative needs beside these)
    forward: Callable[..., tuple[Array, list[Array]]]
    # (vector, x, spec, what `forward` kept, derivative of its result) -> those of (vector, x), or,
    # of a root, of (vector,)
    backward: Callable[..., tuple[Array, ...]]


@functools.lru_cache(maxsize=MOST)
def of_training(key: Key) -> OfTraining:
    """The programs of a layer in training, compiled."""
    region, given = key.region, _arguments(key)
    kept: list[Any] = []  # how a derivative is put together: found when `forward` is traced

    @functools.partial(jax.checkpoint, policy=_keeps, prevent_cse=False)
    def layer(vector: Array, x: Array, spec: Array) -> Array:
        return regions.apply(region, vector, x, LayerSpec(*spec))

    def forward(vector: Array, x: Array, spec: Array) -> tuple[Array, list[Array]]:
        y, pull = jax.vjp(lambda vector, x: layer(vector, x, spec), vector, x)
        leaves, tree = jax.tree.flatten(pull)
        # What the host has already is not handed out again, which would be a copy.
        there = [_index(leaf, (vector, x, spec)) for leaf in leaves]
        kept[:] = tree, there
        return y, [leaf for leaf, i in zip(leaves, there, strict=True) if i is None]

    def backward(
        vector: Array, x: Array, spec: Array, more: list[Array], g: Array
    ) -> tuple[Array, ...]:
        tree, there = kept
        rest, given = iter(more), (vector, x, spec)
        leaves = [next(rest) if i is None else given[i] for i in there]
        found = jax.tree.unflatten(tree, leaves)(g)
        return found[:1] if region.root else found

    forwards = jax.jit(forward).lower(*given)
    y, more = devices.shapes_on(key.device, forwards.out_info)
    backwards = jax.jit(backward).lower(*given, more, y)
    return OfTraining(forwards.compile(), backwards.compile())


def _keeps(operation: Any, *given: Any, name: str = "", **_: Any) -> bool:
    """Whether the derivative of a layer is given what this gives: convolutions, products and sums.

    All else is computed again, which is not much, so that few arrays go from program to program.
    """
    if operation in (lax.reduce_sum_p, lax.reduce_p):
        return given[0].ndim != 3  # a sum in two steps (`ops`): the second
    # Convolutions are named where they have derivatives of their own, but for the user's layers'.
    return operation in (lax.dot_general_p, lax.conv_general_dilated_p) or name == branched.PRODUCT


def _index(leaf: Any, among: tuple[Any, ...]) -> int | None:
    return next((i for i, other in enumerate(among) if other is leaf), None)


@functools.lru_cache(maxsize=MOST)
def of_judging(key: Key) -> Callable[..., tuple[Array, Any]]:
    """The program of a layer that is judged, compiled.

    (vector, x, spec, sums, estimates, batches) -> (result, sums)

    As the step of `child.collect`: of the `estimates` [] bool, sums of statistics are taken, whose
    average over so many `batches` [] int32 is used by the others.
    """

    def judge(
        vector: Array, x: Array, spec: Array, sums: Any, estimates: Array, batches: Array
    ) -> tuple[Array, Any]:
        stats = child.average(sums, batches)
        y, moments = regions.apply_eval(key.region, vector, x, LayerSpec(*spec), stats, estimates)
        return y, child.added(sums, moments, estimates)

    zeros = regions.zero_stats(key.region.slot)
    numbers = zeros, np.bool_(False), np.int32(0)
    more = devices.shapes_on(key.device, numbers)
    return jax.jit(judge).lower(*_arguments(key), *more).compile()


def _arguments(key: Key) -> tuple[jax.ShapeDtypeStruct, ...]:
    """(vector, x, spec) of a layer, as shapes on the device."""
    slot = key.region.slot
    dtype = jnp.float32 if key.region.root else key.region.dtype
    shapes = (
        jax.ShapeDtypeStruct((regions.size(slot),), jnp.float32),
        jax.ShapeDtypeStruct((*key.size, slot.widest("cin")), dtype),
        jax.ShapeDtypeStruct((FIELDS,), jnp.int32),
    )
    return devices.shapes_on(key.device, shapes)
