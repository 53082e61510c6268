"""What own spaces, tasks and methods are made of: the types that flow round the loop, and helpers.

    from fnas_jax.interfaces import SearchMethod, no_best, propose, update_best

Public, as the names of `fnas_jax` are; where they are defined may change.
"""

from fnas_jax.core.measure import Measure
from fnas_jax.core.types import Array, Features, Metrics, Proposal, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, update_best
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.base import Apart, Evaluator, Hooks, Judged, Task

__all__ = [
    "Apart",
    "Array",
    "Best",
    "Evaluator",
    "Features",
    "Hooks",
    "Judged",
    "Measure",
    "Metrics",
    "Proposal",
    "SearchMethod",
    "Space",
    "Task",
    "no_best",
    "propose",
    "update_best",
]
