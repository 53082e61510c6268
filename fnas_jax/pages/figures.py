"""The figures of a report: those that a run has the data of, each with what to see in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from fnas_jax import simulated
from fnas_jax.core.types import UserError
from fnas_jax.pages.elements import capital
from fnas_jax.pages.page import Figure
from fnas_jax.plots import (
    best_so_far,
    critics,
    data,
    decisions,
    fronts,
    overlays,
    policies,
    pools,
    spent,
    style,
    supernets,
)
from fnas_jax.plots.data import Run

SIMULATED = (
    "The same by the training times of the table: those of all networks evaluated so far, one after"
    " another."
)
LEAST_GROUPS = 12  # decisions whose course is shown unfolded


# Title, what to see, and the function of a run
LEARNT = (
    (
        "Which decisions matter",
        "How much worse a random forest predicts networks that it has not seen when a decision is"
        " shuffled (permutation importance for ranks of rewards).",
        decisions.importance,
    ),
    (
        "Training of the network for all architectures",
        "The terms of its loss; those of the divergence draw it to cheap and undecided choices.",
        supernets.supernet,
    ),
    (
        "Posterior",
        "The probability of each choice where the training ended.",
        policies.posterior,
    ),
    (
        "Entropy of the policy",
        "How undecided it is; a policy that has decided looks nowhere else.",
        policies.entropy,
    ),
    (
        "Critic: predicted and measured",
        "Networks that were trained though the critic had said something of them. On the dotted"
        " line both agree; bars are the critic's uncertainty.",
        critics.predictions,
    ),
    (
        "Critic: coverage and calibration",
        "Within one standard deviation should lie 68% (dotted). Uncertainties are multiplied by the"
        " factors below, which are learnt from errors.",
        critics.coverage,
    ),
    (
        "Critic: errors",
        "Explored networks were trained although the critic was sure of them: theirs are the errors"
        " of predictions that stand for trainings.",
        critics.errors,
    ),
    (
        "Knowledge pool",
        "How many blocks of new children were found, how similar they were, and by how much"
        " finalists gained when they were read again on equal terms (drift).",
        pools.pool,
    ),
)


class Choice(NamedTuple):
    """A figure that a run may have."""

    title: str
    words: str
    make: Callable[[], go.Figure]


def existing(choices: Sequence[Choice]) -> list[Figure]:
    """The figures of which the run has the data."""
    found = []
    for choice in choices:
        try:
            found.append(Figure(choice.title, choice.words, choice.make()))
        except UserError:  # the run has not what it is of, which is no mistake of a page
            continue
    return found


def search(run: Run) -> list[Figure]:
    """How the search went."""
    if not len(run.trials.text):
        return _curve(run)
    words = "A point is a network; the line is the best so far, by reward as in the search."
    found = [
        Choice(
            "Every network, and the best so far",
            words,
            partial(best_so_far.evaluations, run, "evaluations"),
        )
    ]
    if np.isfinite(run.trials.seconds).any():
        words = "The same by the time of the search, compilation and start included."
        found.append(
            Choice(
                "The best so far, by time", words, partial(best_so_far.incumbent, run, "seconds")
            )
        )
    if np.isfinite(run.trials.simulated_seconds).any():
        found.append(
            Choice(
                "The best so far, by simulated time",
                SIMULATED,
                partial(best_so_far.incumbent, run, simulated.NAME),
            )
        )
    return existing(found)


def _curve(run: Run) -> list[Figure]:
    """The best so far by the metrics alone, of a run whose history cannot be read."""
    x, y = data.series(run.lines, "trained"), data.series(run.lines, "best_accuracy")
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return []
    made = style.figure()
    style.value_axis(made, run)
    style.count_axis(made, 0, float(x[known].max()), "evaluated networks")
    made.add_scatter(
        x=x[known], y=run.measure.sign * y[known], mode="lines+markers", name="best so far"
    )
    return [Figure("The best so far", "By the metrics, which have no single networks.", made)]


def trade_offs(run: Run) -> list[Figure]:
    """The metric against each cost."""
    words = "The line joins those that no other beats in both. Dashed: a limit; dotted: a target."
    return existing(
        [
            Choice(
                f"{capital(run.measure.name)} against {fronts.TITLES[cost]}",
                words,
                partial(fronts.front, [run], cost),
            )
            for cost in fronts.known_costs(run)
        ]
    )


def learnt(run: Run) -> list[Figure]:
    """What the method has learnt: its policy or posterior, its critic, its pool."""
    return existing([Choice(title, words, partial(make, run)) for title, words, make in LEARNT])


def course(run: Run) -> list[Figure]:
    """The policy over the search, which is as high as the space has choices."""
    words = "A row is a choice of a decision; darker is likelier."
    return existing([Choice("The policy over the search", words, partial(policies.policy, run))])


def time(run: Run) -> list[Figure]:
    """Where the time went."""
    words = (
        "Compilation happens once a configuration; other is the start, data and what lies between."
    )
    return existing([Choice("Where the time went", words, partial(spent.time, [run]))])


def together(runs: list[Run]) -> list[Figure]:
    """Several runs in one figure each."""
    words = (
        "The median over the seeds of a configuration, and a band from their 10% to 90% quantile."
    )
    costs = [c for c in fronts.TITLES if all(c in fronts.known_costs(run) for run in runs)]
    return existing(
        [
            Choice("The best so far", words, partial(overlays.overlay, runs, "evaluations")),
            Choice("The best so far, by time", words, partial(overlays.overlay, runs, "seconds")),
            Choice(
                "The best so far, by simulated time",
                SIMULATED,
                partial(overlays.overlay, runs, simulated.NAME),
            ),
            *(
                Choice(
                    f"Against {fronts.TITLES[c]}",
                    "A line joins what no other network of its run beats.",
                    partial(fronts.front, runs, c),
                )
                for c in costs
            ),
            Choice("Where the time went", "A bar for each run.", partial(spent.time, runs)),
        ]
    )
