"""How long a search is: architectures that are trained, and proposals in all."""

from __future__ import annotations

from typing import Any


def proposals(most: int, budget: int) -> int:
    """After how many proposals a search ends, by `search.max_proposals` and `search.budget`."""
    return most or 20 * budget


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
