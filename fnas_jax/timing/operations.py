"""Each operation of `units` as a program of stock Flax layers, as networks ship."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers import ops
from fnas_jax.networks import flax_cell
from fnas_jax.networks.flax_mobile import average, conv, gate, norm, pooled
from fnas_jax.timing.units import Unit

CHAIN = 8  # runs of an operation in a program


class Operation(nn.Module):
    """One operation outside training."""

    unit: Unit

    @nn.compact
    def __call__(self, x: Array, other: Array) -> Array:
        """`x` [B, height, width, cin], as is `other`, which only sums read."""
        return OPERATIONS[self.unit.kind](self.unit, x, other)


def _conv(u: Unit, x: Array, other: Array) -> Array:
    return _normed(u, conv(False, "conv", u.cout, u.kernel, u.stride)(x))


def _depthwise(u: Unit, x: Array, other: Array) -> Array:
    return _normed(u, conv(False, "conv", u.cout, u.kernel, u.stride, depthwise=True)(x))


def _edge(u: Unit, x: Array, other: Array) -> Array:
    return _normed(u, conv(False, "conv", u.cout, u.kernel)(nn.relu(x)))


def _normed(u: Unit, x: Array) -> Array:
    return jnp.asarray(ops.activate(u.act, norm("norm", False)(x)))


def _classifier(u: Unit, x: Array, other: Array) -> Array:
    return nn.Dense(u.cout, name="dense")(x.mean((1, 2)))


# By kind of `Unit`.
OPERATIONS: dict[str, Callable[[Unit, Array, Array], Array]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "gate": lambda u, x, other: gate(x, u.cout),
    "pool": lambda u, x, other: pooled(x, u.stride, u.cout),
    "add": lambda u, x, other: x + other,
    "edge": _edge,  # of a cell
    "average": lambda u, x, other: average(x, u.kernel, u.stride),
    "reduction": lambda u, x, other: flax_cell.Reduction(False, name="reduction")(x, False),
    "norm": lambda u, x, other: _normed(u, x),
    "classifier": _classifier,
}


def program(unit: Unit, batch: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """(a function, its arguments) that runs `unit` on `batch` images, CHAIN times in a row.

    In a row, because a call by itself costs more than a small operation: its arguments are checked,
    and another thread is woken. Each run reads a number of the result of the run before, so that
    none is left out, none is moved out of the loop, and all wait for each other, as in a network.
    """
    module, x = Operation(unit), jnp.zeros((batch, unit.height, unit.width, unit.cin))
    variables = drawn(module, x, x)
    y = jax.eval_shape(module.apply, variables, x, x)
    apply = functools.partial(module.apply, variables)
    return functools.partial(chain, apply), (x, jnp.zeros(y.shape, y.dtype))


def chain(apply: Callable[..., Any], x: Array, y: Array) -> tuple[Array, Array]:
    """(x, `apply(x, x)`) after CHAIN runs, of which each changes a number of `x`."""

    def run(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        x, y = state
        number = y.ravel()[0].reshape((1,) * x.ndim)
        x = lax.dynamic_update_slice(x, number, (0,) * x.ndim)
        with jax.default_matmul_precision("highest"):  # as networks are shipped
            return x, apply(x, x)

    return lax.fori_loop(0, CHAIN, run, (x, y))


def nothing() -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """As `program`, of no operation: what the row by itself costs."""
    x = jnp.zeros((1, 1, 1, 8))
    return functools.partial(chain, lambda x, other: x + 1), (x, x)


def drawn(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Variables of `module`, called with these arguments: numpy, random, variances positive.

    They become constants of a program, as they are of exported networks: compilers work out ahead
    what depends on them alone. That is a third of the time of a small network, so zeros will not
    do, of which more can be worked out.
    """
    draw = np.random.default_rng(0)

    def leaf(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        values = 0.1 * draw.standard_normal(shape.shape)
        positive = np.abs(values) + 0.5 if path[-1].key == "var" else values
        return positive.astype(shape.dtype)

    shapes = jax.eval_shape(lambda key: module.init(key, *args, **kwargs), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(leaf, shapes)
