"""A switch that costs what its branches cost: forward, backward and under `vmap`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Params

Function = Callable[[Params, Array, Any], Array]


class Halves(NamedTuple):
    """A branch in two: `outer(params, inner(params, x, extra), x, extra)`.

    What lies between them, of one shape in all branches, is kept for the derivative, which so
    computes no product of `outer`'s input again.
    """

    inner: Function
    outer: Callable[[Params, Array, Array, Any], Array]


Branch = Function | Halves


def select(branches: Sequence[Callable[..., Any]], index: Array, *operands: Any) -> Any:
    """`branches[index](*operands)`, without derivatives; under `vmap`, too, no other branch runs.

    JAX would run all branches for all, if `index` differs. Here, those that take the same branch
    run it together, in tiles of `tile_size` (`_in_tiles`).
    """
    if len(branches) == 1:
        return branches[0](*operands)
    chosen = jax.custom_batching.custom_vmap(
        lambda index, *operands: lax.switch(index, branches, *operands)
    )

    @chosen.def_vmap
    def _(size: int, batched: Any, index: Array, *operands: Any) -> tuple[Any, Any]:
        own = tuple(batched[1:])
        if batched[0]:
            found = _in_tiles(branches, own, index, operands)
        else:
            axes = _axes(own)
            together = [jax.vmap(b, in_axes=axes, axis_size=size) for b in branches]
            found = lax.switch(index, together, *operands)
        return found, jax.tree.map(lambda _: True, found)

    return chosen(index, *operands)


def _axes(batched: Any) -> Any:
    return jax.tree.map(lambda has: 0 if has else None, batched)


def tile_size(items: int, branches: int) -> int:
    """How many of `items` run a branch together.

    A branch that is taken leaves half a tile empty on average, so that with this size a quarter
    is executed for nothing, if all branches are taken equally often.
    """
    return 1 + items // (2 * branches)


def _in_tiles(
    branches: Sequence[Callable[..., Any]], batched: Any, index: Array, operands: Any
) -> Any:
    """Results [N, ..] of items, each by its branch `index` [N]; leaves are [N, ..] if `batched`.

    Items are sorted by their branch into tiles, each of one branch; a loop over tiles has a
    conditional of a scalar. The number of tiles is that of the worst case; what is left is empty.
    """
    n, kinds = len(index), len(branches)
    size = tile_size(n, kinds)
    leaves, structure = jax.tree.flatten(operands)
    has_axis = jax.tree.leaves(batched)

    def taken(rows: Array) -> Any:
        pairs = zip(leaves, has_axis, strict=True)
        own = [jnp.take(leaf, rows, axis=0) if has else leaf for leaf, has in pairs]
        return jax.tree.unflatten(structure, own)

    if size == 1:
        return lax.map(lambda i: lax.switch(index[i], branches, *taken(i)), jnp.arange(n))
    tiles = min(kinds, n) + (n - min(kinds, n)) // size
    index = jnp.clip(index, 0, kinds - 1)  # as `lax.switch` does
    counts = jnp.sum(index[:, None] == jnp.arange(kinds), axis=0)
    ends = jnp.cumsum(-(-counts // size))  # in tiles
    order = jnp.argsort(index)
    kind = index[order]
    within = jnp.arange(n) - (jnp.cumsum(counts) - counts)[kind]
    place = ((ends - (-(-counts // size)))[kind] * size + within).astype(jnp.int32)
    rows = jnp.zeros(tiles * size, jnp.int32).at[place].set(order.astype(jnp.int32))
    axes = _axes(batched)
    together = [jax.vmap(branch, in_axes=axes, axis_size=size) for branch in branches]
    shapes = jax.eval_shape(lambda *of: together[0](*of), *taken(rows[:size]))

    def empty(*_: Any) -> Any:
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def of_tile(tile: tuple[Array, Array]) -> Any:
        return lax.switch(tile[0], [*together, empty], *taken(tile[1]))

    kind_of = jnp.searchsorted(ends, jnp.arange(tiles), side="right")
    found = lax.map(of_tile, (kind_of, rows.reshape(tiles, size)))
    back = jnp.zeros(n, jnp.int32).at[order].set(place)
    return jax.tree.map(
        lambda leaf: jnp.take(leaf.reshape(tiles * size, *leaf.shape[2:]), back, axis=0), found
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def switch(
    branches: tuple[Branch, ...], index: Array, params: Params, x: Array, extra: Any
) -> Array:
    """`branches[index](params, x, extra)`, differentiable in `params` and `x`; see `select`.

    JAX's own derivative of `lax.switch` joins the residuals of all branches and fills those of
    the others with zeros. Here the inputs are the only residuals, and what is between `Halves`; the
    backward pass is one switch over the branches' own derivatives.
    """
    return select([_whole(branch) for branch in branches], index, params, x, extra)[0]


def _whole(branch: Branch) -> Callable[..., tuple[Array, Array | None]]:
    """(params, x, extra) -> (result, what is kept)."""
    if not isinstance(branch, Halves):
        return lambda params, x, extra: (branch(params, x, extra), None)

    def run(params: Params, x: Array, extra: Any) -> tuple[Array, Array]:
        h = branch.inner(params, x, extra)
        return branch.outer(params, h, x, extra), h

    return run


def _switch_fwd(
    branches: tuple[Branch, ...], index: Array, params: Params, x: Array, extra: Any
) -> tuple[Array, Any]:
    y, h = select([_whole(branch) for branch in branches], index, params, x, extra)
    return y, (index, params, x, h, extra)


def _derivative(branch: Branch, params: Params, x: Array, h: Any, extra: Any, g: Array) -> Any:
    if not isinstance(branch, Halves):
        return jax.vjp(lambda p, x: branch(p, x, extra), params, x)[1](g)
    of_outer, dh, around = jax.vjp(lambda p, h, x: branch.outer(p, h, x, extra), params, h, x)[1](g)
    # The value of `inner` is known, and nobody reads it here: XLA leaves its last product out.
    of_inner, dx = jax.vjp(lambda p, x: branch.inner(p, x, extra), params, x)[1](dh)
    return jax.tree.map(jnp.add, of_outer, of_inner), dx + around


def _switch_bwd(branches: tuple[Branch, ...], residuals: Any, g: Array) -> tuple[Any, ...]:
    index, params, x, h, extra = residuals
    derivatives = [functools.partial(_derivative, branch) for branch in branches]
    dparams, dx = select(derivatives, index, params, x, h, extra, g)
    return None, dparams, dx, None


switch.defvjp(_switch_fwd, _switch_bwd)
