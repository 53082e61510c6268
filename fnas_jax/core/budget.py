"""How long a search is: architectures that are trained, proposals in all, time, and images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def proposals(most: int, budget: int) -> int:
    """After how many proposals a search ends, by `search.max_proposals` and `search.budget`."""
    return most or 20 * budget


def spent(search: Any, counts: Mapping[str, int], iterations: int, taken: float) -> bool:
    """Whether a search by section `search` is over, by its `counts` of "trained" and "proposed".

    `taken`: seconds so far.
    """
    limit = proposals(search.max_proposals, search.budget)
    if counts["trained"] >= search.budget or counts["proposed"] >= limit:
        return True
    return out_of_time(search, iterations, taken)


def seconds(search: Any) -> float:
    """How long a search by the section `search` may look for networks; 0: no limit."""
    return search.seconds * (1 - search.winner_share)


def out_of_time(search: Any, iterations: int, taken: float) -> bool:
    """Whether the search's `seconds` have passed, and one iteration, which a result needs."""
    return 0 < seconds(search) <= taken and iterations > 0


def children(config: Any, others: int = 0) -> int:
    """About how many architectures a search trains, by `search.budget` and `search.images`.

    `others` are trained besides: in fair rounds and finals. With halving nobody knows how many
    images a child takes.
    """
    search, own = config.search, config.children
    if not search.images or own.halving:
        return search.budget
    by_images = math.ceil(search.images / (own.steps * own.batch_size)) - others
    return min(search.budget, max(by_images, 1))


def others(config: Any, cardinalities: Sequence[int]) -> int:
    """How many children of a space of these `cardinalities` are trained beside the budget.

    With a pool, those of its fair rounds and the finalists.
    """
    if not config.akp.enabled:
        return 0
    finalists = config.winner.finalists if config.winner.finalists > 1 else 0
    return config.akp.rounds * math.lcm(*cardinalities) + finalists


def places(search: Any, refused: bool) -> int:
    """How many networks a search by the section `search` may evaluate, at the most.

    What is `refused`, being above a limit, takes a place without taking of the budget. And a batch
    may start when one evaluation is left.
    """
    most = proposals(search.max_proposals, search.budget) if refused else search.budget
    return most + search.batch


def largest(config: Any, budget: int, most: int) -> Any:
    """`config`, or a copy for at least `budget` trained ones and `most` proposals.

    A run that was begun with more than it has now keeps the arrays of its checkpoints.
    """
    search = config.search
    now = proposals(search.max_proposals, search.budget)
    if search.budget >= budget and now >= most:
        return config
    whole = config.copy_and_resolve_references()
    whole.search.budget = max(search.budget, budget)
    whole.search.max_proposals = max(now, most)
    return whole
