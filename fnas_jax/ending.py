"""When a search ends, and why."""

from __future__ import annotations

from typing import Any

from fnas_jax.core import budget
from fnas_jax.iteration import State
from fnas_jax.methods.base import SearchMethod
from fnas_jax.tasks.base import Evaluator


def over(config: Any, method: SearchMethod, evaluator: Evaluator, state: State) -> bool:
    """The budget or the time is spent, nothing new is left to ask for, or the method says so.

    `config` is the run's, and the time that of `state`, with what the finals will take.
    """
    seconds = state.seconds["total"] + finals_seconds(config, evaluator, state)
    if budget.spent(config.search, state.counts, state.iteration, seconds):
        return True
    if used_up(config.search, evaluator, state):
        return True
    return method.done is not None and bool(method.done(state.method))


def finals_seconds(config: Any, evaluator: Evaluator, state: State) -> float:
    """As `finals_expected`; 0 where nobody shares out the time."""
    return finals_expected(config, evaluator, state) if config.search.winner_share else 0.0


def finals_expected(config: Any, evaluator: Evaluator, state: State) -> float:
    """How many seconds the finals will take, by the children so far; 0 where there will be none.

    `config` is the run's.
    """
    trained = state.counts["trained"]
    measured = trained + state.counts["prepared"]
    finalists = min(config.winner.finalists, trained)
    held = evaluator.hooks.finals is not None and finalists > 1
    if not held or not measured:
        return 0.0
    made = measured * config.children.steps
    # In full, of which those that were stopped early have made a part only.
    share = 1 - float(evaluator.stats(state.evaluator).get("steps_saved", 0)) / max(made, 1)
    return finalists * state.seconds["children"] / measured / share


def why(config: Any, evaluator: Evaluator, state: State) -> str:
    """Why the search that is over has not spent its budget, in words; "" where it need not say."""
    search = config.search
    seconds = state.seconds["total"] + finals_seconds(config, evaluator, state)
    reason = used_up(search, evaluator, state)
    if not reason and budget.out_of_time(search, state.iteration, seconds):
        left = f", of which search.winner_share={search.winner_share:g} is the winner's"
        reason = (
            f"search.seconds is {search.seconds:g}{left if search.winner_share else ''}:"
            f" the search ends here, after {state.seconds['total']:.1f} s"
        )
    return reason


def used_up(search: Any, evaluator: Evaluator, state: State) -> str:
    """Why there is nothing more to ask for, in words; "" while there is.

    In a space of fewer networks than the budget, the default of `search.max_proposals` goes by
    their number: some methods never come to the last ones.
    """
    left, trained = evaluator.left, state.counts["trained"]
    if left is None or trained >= search.budget:
        return ""
    remaining = int(left(state.evaluator))
    if not remaining:
        return (
            f"all networks that can be evaluated are known, {trained} of them trained: the search"
            f" ends here, below search.budget ({search.budget})"
        )
    there, proposed = trained + remaining, state.counts["proposed"]
    if not search.max_proposals and proposed >= budget.proposals(0, min(there, search.budget)):
        return (
            f"{proposed} proposals have come to {trained} of the {there} networks that can be"
            f" evaluated: the search ends here, below search.budget ({search.budget})"
        )
    return ""
