"""What a search says before it begins, and when."""

from __future__ import annotations

import functools
import sys
from typing import Any

import ml_collections

from fnas_jax import ending, registry, unread
from fnas_jax.core import budget, hosts
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.base import SearchMethod
from fnas_jax.tasks import facts
from fnas_jax.tasks.base import Evaluator, Task
from fnas_jax.training import halving


def build(
    config: ml_collections.ConfigDict, knowledge: Knowledge, **given: Any
) -> tuple[Task, SearchMethod, Evaluator]:
    """`registry.build_all` with the arguments that are `given`, and what the task is said at once.

    So that it stands in the first lines, because methods may take long to build, say something of
    their own, or refuse. Behind it stands which settings have no effect.
    """
    say = functools.partial(tell, config) if hosts.is_first() else None
    return registry.build_all(config, knowledge, tell=say, **given)


def tell(config: ml_collections.ConfigDict, task: Task) -> None:
    """Says what the task and its data are, what the method makes of `config`, where more is trained
    than that says, and which of its keys have no effect.
    """
    search = config.search
    if task.dataset is not None:
        facts.tell(task.dataset.notes)
    ends = (*above_budget(search.batch, search.budget), *below_images(config, task))
    for line in (*task.said, *early(config), *ends, unread.line(config)):
        if line:
            print(line, file=sys.stderr, flush=True)


def early(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """What to say of how children stop early, however the keys of that were given."""
    name, own = config.method.name, config.children
    at = halving.rungs(own.steps, own.halving, own.rungs)
    brackets = halving.brackets(at, own.brackets)
    if name in registry.EARLY:
        said = f"children.halving={own.halving} and children.brackets={brackets}"
        return (f"{name} is {registry.EARLY[name]} with {said}",)
    if own.halving and own.brackets > brackets:
        count = f"with {len(at)} rungs there are {brackets}"
        return (f"children.brackets is {own.brackets}, and {count}",)
    return ()


def above_budget(batch: int, most: int) -> tuple[str, ...]:
    """What to say where the first batch alone is more than the budget."""
    if batch <= most:
        return ()
    return (
        f"search.budget is {most}, and search.batch {batch}: a search ends after a whole batch,"
        f" so that up to {batch} architectures are trained",
    )


def below_images(config: ml_collections.ConfigDict, task: Task) -> tuple[str, ...]:
    """What to say where the budget ends the search before `search.images` can."""
    search, own = config.search, config.children
    if not search.images or task.dataset is None:
        return ()
    each = own.steps * ending.batch_of(config, task)
    most = search.budget + search.batch + budget.others(config, task.space.cardinalities)
    if most * each >= search.images:
        return ()
    return (
        f"search.images is {search.images:,}, and search.budget {search.budget}, which ends the"
        f" search before: {search.budget} children of {own.steps} steps are"
        f" {search.budget * each:,} images",
    )
