"""What a search says before it begins, and when."""

from __future__ import annotations

import functools
import sys
from typing import Any

import ml_collections

from fnas_jax import registry
from fnas_jax.core import hosts
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.base import SearchMethod
from fnas_jax.tasks import facts
from fnas_jax.tasks.base import Evaluator, Task


def build(
    config: ml_collections.ConfigDict, knowledge: Knowledge, **given: Any
) -> tuple[Task, SearchMethod, Evaluator]:
    """`registry.build_all` with the arguments that are `given`, and what the task is said at once.

    So that it stands in the first lines, because methods may take long to build, say something of
    their own, or refuse.
    """
    say = functools.partial(tell, config.search) if hosts.is_first() else None
    return registry.build_all(config, knowledge, tell=say, **given)


def tell(search: ml_collections.ConfigDict, task: Task) -> None:
    """Says what the task and its data are, and where the `search` will train more than was told."""
    if task.dataset is not None:
        facts.tell(task.dataset.notes)
    for line in (*task.said, *above_budget(search.batch, search.budget)):
        if line:
            print(line, file=sys.stderr, flush=True)


def above_budget(batch: int, budget: int) -> tuple[str, ...]:
    """What to say where the first batch alone is more than the budget."""
    if batch <= budget:
        return ()
    return (
        f"search.budget is {budget}, and search.batch {batch}: a search ends after a whole batch,"
        f" so that up to {batch} architectures are trained",
    )
