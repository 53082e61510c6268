"""When a search ends, and why."""

from __future__ import annotations

from typing import Any

from fnas_jax.core import budget
from fnas_jax.core.types import UserError
from fnas_jax.iteration import State
from fnas_jax.methods.base import SearchMethod
from fnas_jax.tasks.base import Evaluator, Task


def check(search: Any, task: Task, evaluator: Evaluator) -> None:
    """Raises UserError where the section `search` counts images, and nobody trains children."""
    if search.images and not trains_children(task, evaluator):
        why = "one network is trained for all" if task.trains else f"{task.name} trains no networks"
        raise UserError(
            f"search.images is {search.images}, and {why}: search.budget says how many"
            " architectures are evaluated"
        )


def over(config: Any, task: Task, method: SearchMethod, evaluator: Evaluator, state: State) -> bool:
    """The budget, time or images are spent, nothing new is left to ask for, or the method says so.

    `config` is the run's, and the time that of `state`, with what the finals will take.
    """
    seconds = state.seconds["total"] + finals_seconds(config, evaluator, state)
    if budget.spent(config.search, state.counts, state.iteration, seconds):
        return True
    if out_of_images(config, task, evaluator, state) or used_up(config.search, evaluator, state):
        return True
    return method.done is not None and bool(method.done(state.method))


def finals_seconds(config: Any, evaluator: Evaluator, state: State) -> float:
    """As `finals_expected`; 0 where nobody shares out the time."""
    return finals_expected(config, evaluator, state) if config.search.winner_share else 0.0


def finals_expected(config: Any, evaluator: Evaluator, state: State) -> float:
    """How many seconds the finals will take, by the children so far; 0 where there will be none.

    `config` is the run's.
    """
    measured, coming = children(state), finalists(config, evaluator, state)
    if not coming or not measured:
        return 0.0
    # In full, of which those that were stopped early have made a part only.
    share = steps_made(config, evaluator, state) / (measured * config.children.steps)
    return coming * state.seconds["children"] / measured / share


def trains_children(task: Task, evaluator: Evaluator) -> bool:
    """Whether each child is trained by itself; others are judged with inherited weights."""
    return task.trains and evaluator.hooks.load_weights is None


def children(state: State) -> int:
    """How many have been trained, those of the pool's fair rounds among them."""
    return state.counts["trained"] + state.counts["prepared"]


def steps_made(config: Any, evaluator: Evaluator, state: State) -> int:
    """Of all children."""
    saved = int(evaluator.stats(state.evaluator).get("steps_saved", 0))
    return children(state) * config.children.steps - saved


def finalists(config: Any, evaluator: Evaluator, state: State) -> int:
    """How many will be trained again in the finals, by the children so far."""
    count = min(config.winner.finalists, state.counts["trained"])
    return count if evaluator.hooks.finals is not None and count > 1 else 0


def images(
    config: Any, task: Task, evaluator: Evaluator, state: State, finals: int | None = None
) -> int:
    """On how many children have been trained, a minibatch a step, and finalists.

    `finals`: how many of these there were; None: they are to come. A child that came to no number,
    and so to an early end, counts as if it had none.
    """
    coming = finalists(config, evaluator, state) if finals is None else finals
    steps = steps_made(config, evaluator, state) + coming * config.children.steps
    return steps * batch_of(config, task)


def batch_of(config: Any, task: Task) -> int:
    """Images of a training step of a child."""
    batch = config.children.batch_size
    return batch if task.dataset is None else min(batch, len(task.dataset.train_labels))


def out_of_images(config: Any, task: Task, evaluator: Evaluator, state: State) -> bool:
    """Whether `search.images` have been shown, and one iteration is made, which a result needs."""
    most = config.search.images
    return most > 0 and state.iteration > 0 and images(config, task, evaluator, state) >= most


def why(config: Any, task: Task, evaluator: Evaluator, state: State) -> str:
    """Why the search that is over has not spent its budget, in words; "" where it need not say."""
    search = config.search
    seconds = state.seconds["total"] + finals_seconds(config, evaluator, state)
    reason = used_up(search, evaluator, state)
    if not reason and out_of_images(config, task, evaluator, state):
        shown = images(config, task, evaluator, state)
        reason = (
            f"search.images is {search.images:,}: the search ends here, after {shown:,} with those"
            " of the finals"
        )
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
