"""Random search: uniform over decision vectors. The yardstick of every method.

Without memory, but for a list of what exists, of which none is drawn twice.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from fnas_jax.core.types import Array, Metrics, Proposal, propose
from fnas_jax.methods import existing as rows
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, update_best
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task


class State(NamedTuple):
    """The best so far, and what was asked for."""

    best: Best
    asked: Array | None = None  # [M] bool, of what exists; None where all of the space does


class Context(NamedTuple):
    """What does not change during a search."""

    space: Space
    batch: int  # N
    existing: Array | None  # `Task.existing`


def make(space: Space, batch: int, existing: Array | None = None) -> SearchMethod:
    """Proposes `batch` architectures at a time. Known ones cost nothing, so none is avoided.

    But of those that are `existing` (`Task.existing`), each once.
    """
    ctx = Context(space, batch, existing)
    return SearchMethod(partial(init, ctx), partial(ask, ctx), tell, best=lambda state: state.best)


def init(ctx: Context, key: Array) -> State:
    """Nothing is known."""
    return State(no_best(len(ctx.space.cardinalities)), rows.nothing_asked(ctx.existing))


def ask(ctx: Context, state: State, key: Array) -> tuple[State, Proposal]:
    """The next ones."""
    if ctx.existing is None or state.asked is None:
        return state, propose(ctx.space.sample(key, ctx.batch))
    archs, asked = rows.unasked(ctx.existing, state.asked, key, ctx.batch)
    return state._replace(asked=asked), propose(archs)


def tell(state: State, proposal: Proposal, metrics: Metrics) -> State:
    """Only the best is remembered."""
    return state._replace(best=update_best(state.best, proposal, metrics))


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """Random search of `config.search.batch` proposals per iteration."""
    return make(space, config.search.batch, task.existing), task.evaluator
