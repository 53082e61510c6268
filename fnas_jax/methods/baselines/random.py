"""Random search: uniform over decision vectors, without memory. The yardstick of every method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fnas_jax.core.types import Metrics, Proposal, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, update_best
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task


class State(NamedTuple):
    """Only the best so far."""

    best: Best


def make(space: Space, batch: int) -> SearchMethod:
    """Proposes `batch` architectures at a time. Known ones cost nothing, so none is avoided."""
    return SearchMethod(
        init=lambda key: State(no_best(len(space.cardinalities))),
        ask=lambda state, key: (state, propose(space.sample(key, batch))),
        tell=tell,
        best=lambda state: state.best,
    )


def tell(state: State, proposal: Proposal, metrics: Metrics) -> State:
    """Only the best is remembered."""
    return State(update_best(state.best, proposal, metrics))


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """Random search of `config.search.batch` proposals per iteration."""
    return make(space, config.search.batch), task.evaluator
