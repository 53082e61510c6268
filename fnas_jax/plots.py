"""Plots of a finished search, by matplotlib: what `Result.plot_history` and `plot_pareto` draw."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fnas_jax import pareto
from fnas_jax.core.config import nearest
from fnas_jax.core.limits import UNITS
from fnas_jax.core.measure import Measure
from fnas_jax.core.types import COSTS, UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIGHT, DARK = "tab:gray", "tab:blue"


def history(trials: Sequence[dict[str, Any]], measure: Measure, ax: Axes | None = None) -> Axes:
    """The metric of every trained network, in the order of the search, and of the best so far.

    The best is that of the highest reward, as in the search. `trials` are those of `trials.read`;
    what failed has no point, and is counted in the legend. Raises UserError without matplotlib.
    """
    ax = new_axes() if ax is None else ax
    trained = [t for t in trials if t["trained"]]
    measured = [(i, t) for i, t in enumerate(trained, start=1) if _is_measured(t)]
    numbers = [i for i, _ in measured]
    values = np.array([t["value"] for _, t in measured], float)
    failed = len(trained) - len(measured)
    label = "trained network" + (f" ({failed} failed: no point)" if failed else "")
    ax.plot(numbers, values, "o", color=LIGHT, markersize=4, label=label)
    if measured:
        rewards = np.array([t["reward"] for _, t in measured])
        rises = rewards > np.concatenate([[-np.inf], np.maximum.accumulate(rewards)[:-1]])
        holder = np.maximum.accumulate(np.where(rises, np.arange(len(rewards)), 0))
        ax.step(numbers, values[holder], where="post", color=DARK, label="best so far")
    ax.set_xlabel("trained networks")
    ax.set_ylabel(_name(measure))
    ax.legend()
    return ax


def front(
    trials: Sequence[dict[str, Any]], measure: Measure, cost: str, ax: Axes | None = None
) -> Axes:
    """The metric of every measured network against its `cost`, and those that no other beats.

    Beaten is by both, whatever the other costs. What has no known `cost` has no point, and is
    counted in the legend. Raises UserError for a cost that is no cost or is
    not known of the networks, and without matplotlib.
    """
    if cost not in COSTS:
        raise UserError(f"cost is {cost!r}; allowed are {', '.join(COSTS)}{nearest(cost, COSTS)}")
    measured = [t for t in trials if _is_measured(t)]
    known = [t for t in measured if t[cost] is not None]
    if not known:
        others = [c for c in COSTS if any(t[c] is not None for t in measured)]
        listed = f"; it knows {', '.join(others)}" if others else ""
        raise UserError(f"the search does not know {cost} of its networks{listed}")
    ax = new_axes() if ax is None else ax
    costs, values = (np.array([t[name] for t in known], float) for name in (cost, "value"))
    best = np.flatnonzero(pareto.front(measure.sign * values, costs[:, None]))
    best = best[np.argsort(costs[best])]
    unknown = len(measured) - len(known)
    label = "trained network" + (f" ({unknown} of unknown {cost}: no point)" if unknown else "")
    ax.plot(costs, values, "o", color=LIGHT, markersize=4, label=label)
    label = "no other is better at its cost"
    ax.step(costs[best], values[best], "o-", where="post", color=DARK, label=label)
    ax.set_xlabel(f"{cost} ({UNITS[cost]})")
    ax.set_ylabel(_name(measure))
    ax.legend()
    return ax


def new_axes() -> Axes:
    """Axes of a new figure, which notebooks show. Raises UserError without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("plots need matplotlib: pip install fnas-jax[plot]")
    return importlib.import_module("matplotlib.pyplot").subplots()[1]


def _is_measured(trial: dict[str, Any]) -> bool:
    return trial["trained"] and trial["ok"] and None not in (trial["value"], trial["reward"])


def _name(measure: Measure) -> str:
    return "validation accuracy" if measure == Measure() else measure.name
