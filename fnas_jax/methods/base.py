"""The `SearchMethod` interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fnas_jax.core.types import Array, Metrics, Proposal

State = Any  # a pytree of arrays of fixed shapes


class Best(NamedTuple):
    """The best *trained* architecture so far; `reward` is -inf before the first."""

    arch: Array  # [T] int32
    reward: Array  # [] float32


class SearchMethod(NamedTuple):
    """`init(key)`, then `ask` and `tell` in turn. All pure, jittable and vmappable.

    Every `ask` of a method returns the same number N of proposals.
    """

    init: Callable[[Array], State]
    ask: Callable[[State, Array], tuple[State, Proposal]]
    tell: Callable[[State, Proposal, Metrics], State]
    best: Callable[[State], Best]
    # A stage before the loop (supernet training, meta-learning): (state, key) -> (state, metrics)..
    # "steps" of the metrics, (done, in all), and "text" are told and not logged. A part that has
    # nothing else is not logged, and no step of its own: it is there
    # so that its state can be kept, and is shown now and then.
    prepare: Callable[[State, Array], Iterator[tuple[State, dict[str, Any]]]] | None = None
    # Scalars worth logging after a tell: state -> {"entropy": [] float32, ..}
    stats: Callable[[State], dict[str, Array]] = lambda state: {}
    # Arrays worth logging for plots, as {"policy": [T, K] probabilities}: asked for where a line of
    # metrics is written, and by no `scan`
    details: Callable[[State], dict[str, Array]] = lambda state: {}
    # [] bool: more proposals would change nothing, so the search may end before its budget
    done: Callable[[State], Array] | None = None
