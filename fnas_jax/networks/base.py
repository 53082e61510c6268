"""What elastic networks share: an interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Params

Stats = Any  # a pytree of `ops.Moments`, one per normalisation of the network


class Parts(NamedTuple):
    """How the parameters of a network divide into S blocks, for weights that change networks.

    A block is {"first": a layer} or {"first": .., "rest": equal layers behind it, along axis 0}.
    """

    split: Callable[[Params], tuple[list[Params], Params]]  # params -> (S blocks, what is shared)
    join: Callable[[list[Params], Params], Params]  # the inverse of `split`
    used: Callable[[Array], Params]  # arch [T] -> what the child uses of the params, as booleans
    # arch [T] -> S arrays [layers in "rest"] bool: the layer's input goes around it, too
    bypassed: Callable[[Array], list[Array]]


class Packing(NamedTuple):
    """Params and statistics as trees of fewer arrays, which `apply` and `apply_eval` take, too.

    Then there is less to compile, and to copy at each step.
    """

    pack: Callable[[Params], Any] = lambda params: params
    unpack: Callable[[Any], Params] = lambda packed: packed
    pack_stats: Callable[[Stats], Any] = lambda stats: stats
    unpack_stats: Callable[[Any], Stats] = lambda packed: packed


class Network(NamedTuple):
    """A network that an architecture vector [T] int32 turns into one of its children.

    Parameters and statistics have the shapes of the largest child; a child uses leading slices.
    """

    init: Callable[[Array, Array], Params]  # (key, arch) -> params
    init_stats: Callable[[], Stats]  # zeros
    # Training: (params, arch, images [B, H, W, C]) -> logits as
    # `dense.Outputs` says, by batch statistics
    apply: Callable[[Params, Array, Array], Array]
    # (params, stats, arch, images, collect []) -> (logits, the batch's statistics); `collect`
    # True normalises by the batch, so that the statistics can be averaged over batches
    apply_eval: Callable[[Params, Stats, Array, Array, Array], tuple[Array, Stats]]
    parts: Parts | None = None  # None for Flax networks
    # (params, arch [T], switches [T, K], images) -> logits of `arch`, with derivatives in its
    # one-hot switches, too; None where decisions are not operations of their own
    apply_mixed: Callable[[Params, Array, Array, Array], Array] | None = None
    # What those that run a network many times use instead of params and statistics
    packing: Packing = Packing()
