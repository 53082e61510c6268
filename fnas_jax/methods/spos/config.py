"""The section `spos`: how architectures are found that inherit from the network for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from fnas_jax.core.config import key


@dataclass(frozen=True)
class Spos:
    """Single-path one-shot search (arXiv 1904.00420); the numbers are the paper's."""

    sampling: str = key(
        "evolution",
        "what is judged after the training: children of the best, or all uniform",
        choices=("evolution", "uniform"),
    )
    start: int = key(50, "uniform architectures before the first children", 1, 10**6)
    parents: int = key(10, "best networks so far, of which children come", 2, 1000)
    mutation: float = key(0.1, "probability that a mutation draws a decision anew", 0.0, 1.0)
