"""Uniform single-path one-shot search (SPOS, arXiv 1904.00420), without its evolutionary stage.

Each step of `prepare` trains one architecture, drawn uniformly; then architectures, again uniform,
are judged with their inherited weights. The baseline of PGNAS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, update_best
from fnas_jax.methods.oneshot import supernet
from fnas_jax.methods.oneshot.supernet import Supernet, Weights
from fnas_jax.spaces.base import Space


class State(NamedTuple):
    """The supernet and the best so far."""

    weights: Weights
    best: Best


def make_step(space: Space, net: Supernet, decay: float) -> supernet.Step:
    """One step with one architecture, uniform over decision vectors."""

    def step(
        state: State, images: Array, labels: Array, key: Array
    ) -> tuple[State, dict[str, Array]]:
        none = jnp.zeros((1, 0, 0))
        batch = (images, labels, decay)
        weights, found = net.train_step(state.weights, space.sample(key, 1), none, *batch)
        return state._replace(weights=weights), {"nll": found.nll.mean()}

    return step


def make(
    space: Space,
    net: Supernet,
    batch: int,
    initial: Callable[[Array], Any],
    prepare: Callable[..., Any],
) -> SearchMethod:
    """Proposes `batch` uniform architectures at a time; `initial(key)` are the first parameters."""

    def init(key: Array) -> State:
        return State(net.start(initial(key)), no_best(len(space.cardinalities)))

    def ask(state: State, key: Array) -> tuple[State, Proposal]:
        archs = space.sample(key, batch)
        log_q = -jnp.log(jnp.asarray(space.cardinalities, jnp.float32)).sum()
        return state, propose(archs)._replace(log_prob=jnp.full(batch, log_q))

    def tell(state: State, proposal: Proposal, metrics: Metrics) -> State:
        return state._replace(best=update_best(state.best, proposal, metrics))

    return SearchMethod(init, ask, tell, best=lambda state: state.best, prepare=prepare)


def report(state: State, scalars: dict[str, Any]) -> dict[str, Any]:
    """What is logged of a part of the training."""
    nll = float(scalars["nll"])
    return {"nll": nll, "text": f": nll {nll:.4f}"}
