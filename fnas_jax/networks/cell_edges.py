"""What an edge of a cell is: one of five operations, or the sum of any of four.

A stage holds the parameters of all its edges, [cells, edges, ..] each. Where an edge has one
operation, its convolutions share a normalisation; where it may have several, each has its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.layers import convolutions, ops
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.spec import NONE
from fnas_jax.layers.switch import Halves, select, switch
from fnas_jax.networks.base import Stats
from fnas_jax.networks.mixed_op import mixed_op
from fnas_jax.spaces import cell, cells, mixed_cell, mixed_chain
from fnas_jax.spaces.cell import EDGES, CellSpec
from fnas_jax.spaces.mixed_cell import OPS
from fnas_jax.spaces.mixed_chain import MixedChainSpec

# (params of an edge, its moments, what it runs, x, collect) -> (y, new moments); moments of None:
# training, by the batch's
Run = Callable[[Params, Any, Any, Array, Array], tuple[Array, Any]]
_Given = tuple[Moments | None, Any]  # (moments, collect) as `ops.norm_act` takes them
_SKIP, _CONV1, _CONV3, _POOL = range(len(OPS))
# Of edges with several operations: what belongs to each convolution
_PARTS = {_CONV1: ("conv1", "norm1"), _CONV3: ("conv3", "norm3")}


class Edges(NamedTuple):
    """A kind of edges: what its stages hold, and how it is run."""

    places: tuple[tuple[int, int], ...]  # (source, target) of each of E edges
    init: Callable[[tuple[int, int], int], Params]  # ((cells, edges), width) -> a stage
    stats: Callable[[Params], Stats]  # shapes of a stage -> zeros
    used: Callable[[Array], dict[str, Array]]  # arch [T] -> [E] bool for each entry of a stage
    blocks: int  # for weights that change networks; see `networks.base.Parts`
    split: Callable[[dict[str, Params]], list[Params]]  # stages -> blocks
    join: Callable[[list[Params]], dict[str, Params]]  # the inverse
    choice: Callable[[Array], Array]  # arch [T] -> [E, ..] what each edge runs
    run: Run


def of(spec: Any) -> Edges:
    """Those of a space."""
    return mixed(spec) if isinstance(spec, cells.MIXED) else SINGLE


def norm(
    x: Array, p: Params, moments: Moments | None, collect: Array, act: int = NONE
) -> tuple[Array, Moments | None]:
    """A normalisation of `ops`, and the batch's moments."""
    return ops.norm_act(x, p, x.shape[-1], act, moments, collect)


def rectified(x: Array, p: Params) -> Array:
    """ReLU of x, in front of the convolution that the normalisation `p` is of."""
    return ops.watched(jax.nn.relu(x), p, x.shape[-1])


# ---- one of five operations


def _init(shape: tuple[int, int], width: int) -> Params:
    return _convs(shape, width) | {"norm": ops.norm_params(*shape, width)}


def _convs(shape: tuple[int, int], width: int) -> Params:
    return {
        "conv1": ops.he_normal((*shape, width, width), width),
        "conv3": ops.he_normal((*shape, 3, 3, width, width), 9 * width),
    }


def _stats(stage: Params) -> Stats:
    return ops.zero_moments(stage["norm"])


def _used(arch: Array) -> dict[str, Array]:
    on = cells.switches(CellSpec(), arch)
    one, three = on[:, _CONV1], on[:, _CONV3]
    return {"conv1": one, "conv3": three, "norm": one | three}


def _split(stages: dict[str, Params]) -> list[Params]:
    return [jax.tree.map(lambda p, e=e: p[:, e], stages) for e in range(len(EDGES))]


def _join(blocks: list[Params]) -> dict[str, Params]:
    return jax.tree.map(lambda *p: jnp.stack(p, axis=1), *blocks)


def _run(
    p: Params, moments: Moments | None, op: Array, x: Array, collect: Array
) -> tuple[Array, Moments | None]:
    if moments is None:
        return switch(_TRAIN, op, p, x, None), None
    return select(_EVALUATE, op, p, x, (moments, collect))


def _conv1(p: Params, x: Array) -> Array:
    return convolutions.pointwise(rectified(x, p["norm"]), p["conv1"].astype(x.dtype))


def _conv3(p: Params, x: Array) -> Array:
    return convolutions.conv(rectified(x, p["norm"]), p["conv3"].astype(x.dtype), 0, (3,), 1)


def _normed(f: Any) -> Any:
    """An operation and its normalisation, with statistics."""
    return lambda p, x, given: norm(f(p, x), p["norm"], *given)


def _halves(f: Any) -> Halves:
    """The same in training."""
    return Halves(
        lambda p, x, _: f(p, x), lambda p, h, x, _: norm(h, p["norm"], None, jnp.bool_(False))[0]
    )


def _plain(f: Any) -> Any:
    """An operation without normalisation, with statistics that nobody reads."""
    return lambda p, x, given: (f(x), ops.zero_moments(p["norm"]))


def _alone(f: Any) -> Halves:
    """The same in training, where what lies between the halves has one shape in all of them."""
    return Halves(lambda p, x, _: f(x), lambda p, h, x, _: h)


# In the order of spaces.cell.OPS: none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3.
_EVALUATE = (
    _plain(jnp.zeros_like),
    _plain(lambda x: x),
    _normed(_conv1),
    _normed(_conv3),
    _plain(lambda x: convolutions.average_pool(x, 1)),
)
_TRAIN = (
    _alone(jnp.zeros_like),
    _alone(lambda x: x),
    _halves(_conv1),
    _halves(_conv3),
    _alone(lambda x: convolutions.average_pool(x, 1)),
)
SINGLE = Edges(EDGES, _init, _stats, _used, len(EDGES), _split, _join, cell.prune, _run)


# ---- any of four operations


def _init_mixed(shape: tuple[int, int], width: int) -> Params:
    norms = {name: ops.norm_params(*shape, width) for _, name in _PARTS.values()}
    return _convs(shape, width) | norms


def _stats_mixed(stage: Params) -> Stats:
    return {name: ops.zero_moments(stage[name]) for _, name in _PARTS.values()}


def _used_mixed(spec: Any, arch: Array) -> dict[str, Array]:
    on = cells.switches(spec, arch)
    return {name: on[:, op] for op, names in _PARTS.items() for name in names}


def _split_mixed(edges: int, stages: dict[str, Params]) -> list[Params]:
    """A block for each operation of each edge; shortcuts and averages hold nothing."""

    def block(stage: Params, edge: int, op: int) -> Params:
        if op not in _PARTS:
            return {"nothing": stage["conv1"][:, edge, :0]}
        return jax.tree.map(lambda p: p[:, edge], {name: stage[name] for name in _PARTS[op]})

    places = [(edge, op) for edge in range(edges) for op in range(len(OPS))]
    return [{name: block(stage, *place) for name, stage in stages.items()} for place in places]


def _join_mixed(blocks: list[Params]) -> dict[str, Params]:
    by_op = {op: _join(blocks[op :: len(OPS)]) for op in _PARTS}
    return {
        stage: {name: p for op in _PARTS for name, p in by_op[op][stage].items()}
        for stage in blocks[0]
    }


def _run_mixed(p: Params, moments: Any, on: Array, x: Array, collect: Array) -> tuple[Array, Any]:
    new: dict[str, Any] = {}
    # Shortcuts and averages hold nothing, so that they are the same in training and after it.
    total = jnp.where(on[_SKIP], x, jnp.zeros_like(x))
    for op, (conv, name) in _PARTS.items():
        own, at = {"norm": p[name], conv: p[conv]}, 1 + op
        given = None if moments is None else moments[name]
        if given is None:
            y, new[name] = (
                switch((_TRAIN[0], _TRAIN[at]), on[op].astype(jnp.int32), own, x, None),
                None,
            )
        else:
            pair = (_EVALUATE[0], _EVALUATE[at])
            y, new[name] = select(pair, on[op].astype(jnp.int32), own, x, (given, collect))
        total = total + y
    averaged = switch((_TRAIN[0], _TRAIN[1 + _POOL]), on[_POOL].astype(jnp.int32), {}, x, None)
    return total + averaged, None if moments is None else new


def mixed(spec: Any) -> Edges:
    """Edges that are sums, of one of `cells.MIXED`."""
    places = cells.edges_of(spec)
    return Edges(
        places,
        _init_mixed,
        _stats_mixed,
        functools.partial(_used_mixed, spec),
        len(places) * len(OPS),
        functools.partial(_split_mixed, len(places)),
        _join_mixed,
        functools.partial(cells.switches, spec),
        _run_mixed,
    )


def with_switches(spec: Any, arch: Array, z: Array) -> tuple[Array, Array, Array]:
    """What each edge runs, with derivatives in its switches `z` [E, 4], which are those of `arch`.

    Nothing depends on a switch of an edge whose source is always zero, nor is it asked. The last
    is 1 where an edge is an identity because it has no operation, with derivatives in `z`, too.
    """
    if isinstance(spec, MixedChainSpec):
        return mixed_chain.by_layer(arch) > 0, z, jnp.prod(1 - z, axis=-1)
    fed = cell.fed_nodes(mixed_cell.by_edge(arch).any(-1))
    reads = jnp.stack([jnp.asarray(fed[source]) for source, _ in EDGES])
    return cells.switches(spec, arch), z * reads[:, None], jnp.zeros(len(EDGES))


def run_with_switches(
    p: Params, moments: None, choice: tuple[Array, Array, Array], x: Array, collect: Array
) -> tuple[Array, None]:
    """The `Run` of edges whose switches have derivatives, in training."""
    on, z, identity = choice
    passed = jnp.stack([1 - identity, identity])
    total = mixed_op(_GATED[_SKIP], (identity > 0).astype(jnp.int32), passed, {}, x)
    for op, pair in enumerate(_GATED):
        own = {}
        if op in _PARTS:
            conv, name = _PARTS[op]
            own = {conv: p[conv], "norm": p[name]}
        two = jnp.stack([1 - z[op], z[op]])
        total = total + mixed_op(pair, on[op].astype(jnp.int32), two, own, x)
    return total, None


def _by_itself(branch: Halves, p: Params, x: Array) -> Array:
    return branch.outer(p, branch.inner(p, x, None), x, None)


# In the order of `mixed_cell.OPS`: nothing, or the operation.
_GATED = tuple(
    (lambda p, x: jnp.zeros_like(x), functools.partial(_by_itself, branch)) for branch in _TRAIN[1:]
)
