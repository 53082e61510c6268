"""Figures of searches, by plotly: each a function of a workdir or a `Result`.

    fnas_jax.plots.incumbent("runs/a").show()
    fnas_jax.plots.incumbent(["runs/a", "runs/b"]).write_html("both.html")

A search may still run. Where it has not what a figure is of, `UserError` says which method has it.
"""

from __future__ import annotations

from collections.abc import Iterable

import plotly.graph_objects as go

from fnas_jax.plots import (
    best_so_far,
    critics,
    decisions,
    fronts,
    overlays,
    policies,
    pools,
    spent,
    supernets,
)
from fnas_jax.plots.data import Run, Source, read, read_all

__all__ = [
    "Run",
    "Source",
    "coverage",
    "critic_errors",
    "entropy",
    "evaluations",
    "front",
    "importance",
    "incumbent",
    "policy",
    "pool",
    "posterior",
    "predictions",
    "read",
    "supernet",
    "time",
]


def incumbent(run: Source | Iterable[Source], x: str = "evaluations") -> go.Figure:
    """The best so far, by "evaluations", "seconds" of the search or "simulated_seconds" (`x`).

    These are the seconds that the networks evaluated up to there took to train, one after another,
    by the training times of a table.

    Of several runs on one task, a line for each configuration: the median over its seeds, within a
    band from their 10% to their 90% quantile.
    """
    runs = read_all(run)
    return best_so_far.incumbent(runs[0], x) if len(runs) == 1 else overlays.overlay(runs, x)


def evaluations(run: Source, x: str = "evaluations") -> go.Figure:
    """Every network that was tried, and the best so far; `x` as that of `incumbent`."""
    return best_so_far.evaluations(read(run), x)


def front(run: Source | Iterable[Source], cost: str = "mflops") -> go.Figure:
    """The metric against "mflops", "params_m" or "latency_ms", of one run or of several."""
    runs = read_all(run)
    overlays.same_measure(runs)
    return fronts.front(runs, cost)


def policy(run: Source) -> go.Figure:
    """The probability of each choice over the search: of ppo, fnas and pgnas."""
    return policies.policy(read(run))


def entropy(run: Source) -> go.Figure:
    """Entropy of the policy, or of the posterior of pgnas, in nats."""
    return policies.entropy(read(run))


def posterior(run: Source) -> go.Figure:
    """The posterior of pgnas where it stands: pi of each choice of each decision."""
    return policies.posterior(read(run))


def predictions(run: Source) -> go.Figure:
    """What the critic of fnas had predicted, against what came out of those that were trained."""
    return critics.predictions(read(run))


def coverage(run: Source) -> go.Figure:
    """How often outcomes lie within the critic's uncertainty, and how that is calibrated."""
    return critics.coverage(read(run))


def critic_errors(run: Source) -> go.Figure:
    """Errors of the critic over the search, and how well it orders networks."""
    return critics.errors(read(run))


def pool(run: Source) -> go.Figure:
    """Hits, similarity, exactness and entries of the knowledge pool, and the drift of readings."""
    return pools.pool(read(run))


def supernet(run: Source) -> go.Figure:
    """The loss of the network for all architectures, of pgnas and spos."""
    return supernets.supernet(read(run))


def time(run: Source | Iterable[Source]) -> go.Figure:
    """Where the time went: children, method, compilation, disk, other."""
    return spent.time(read_all(run))


def importance(run: Source) -> go.Figure:
    """Which decisions matter: permutation importance by a random forest, on held-out networks."""
    return decisions.importance(read(run))
