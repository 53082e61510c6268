"""The metric of networks against a cost, and those that no other beats in both."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go

from fnas_jax import pareto
from fnas_jax.core.limits import UNITS
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import COSTS, UserError
from fnas_jax.plots import data, style
from fnas_jax.plots.data import Run

MOST = 400  # points with what they say when pointed at
TITLES = {"latency_ms": "latency", "mflops": "multiply-adds", "params_m": "parameters"}


def check_cost(cost: str) -> None:
    """Raises UserError for what is no cost."""
    if cost not in COSTS:
        near = nearest(str(cost), COSTS)
        raise UserError(f"cost is {cost!r}; allowed are {', '.join(COSTS)}{near}")


def known_costs(run: Run) -> tuple[str, ...]:
    """The costs that are known of any measured network."""
    t = run.trials
    return tuple(c for c in COSTS if np.isfinite(t.costs[c][t.measured]).any())


def rows_of(run: Run, cost: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n] of measured networks of known `cost`, and those [m] of the front by rising cost.

    Raises UserError where the run does not know this cost of any.
    """
    t = run.trials
    rows = np.flatnonzero(t.measured & np.isfinite(t.costs[cost]))
    if not len(rows):
        others = known_costs(run)
        why = f"it knows {', '.join(others)}" if others else ""
        raise data.lacking(run, f"no network whose {cost} it knows", why)
    costs = t.costs[cost][rows]
    best = rows[pareto.front(run.measure.sign * t.value[rows], costs[:, None])]
    return rows, best[np.argsort(t.costs[cost][best])]


def front(runs: list[Run], cost: str) -> go.Figure:
    """Measured networks against `cost`, and a line through those that no other beats in both.

    A dashed line is the run's hard limit, a dotted one the soft target of its reward.
    """
    check_cost(cost)
    found = style.figure("latency (ms)" if cost == "latency_ms" else UNITS[cost])
    style.value_axis(found, runs[0])
    every: list[np.ndarray] = []
    for i, run in enumerate(runs):
        rows, best = rows_of(run, cost)
        every.append(run.trials.value[rows])
        colour = style.PALETTE[i % len(style.PALETTE)]
        _points(found, run, cost, rows, best, colour if len(runs) > 1 else "")
    if len(runs) == 1:
        _bounds(found, runs[0], cost)
    values = np.concatenate(every)
    style.clip(found, values, np.zeros(0), runs[0].measure.sign > 0)
    return found


def _points(
    found: go.Figure, run: Run, cost: str, rows: np.ndarray, best: np.ndarray, colour: str
) -> None:
    """The points and the line of one run; `colour` "": there is no other."""
    t, name = run.trials, html.escape(run.label) if colour else ""
    unknown = int(t.measured.sum()) - len(rows)
    shown = rows[style.thinned(len(rows), MOST)]
    if len(shown) < len(rows):
        style.remark(found, [f"{len(rows) - len(shown)} points left out, evenly"])
    kind = data.how_judged(run.config)
    label = kind + (f" ({unknown} of unknown {cost}: no point)" if unknown else "")
    mark = {"color": colour or style.GREY, "size": 6, "opacity": 0.4 if colour else 0.7}
    mark["symbol"] = style.MARKS[kind][1]
    found.add_scatter(
        x=t.costs[cost][shown],
        y=t.value[shown],
        mode="markers",
        name=label,
        showlegend=not colour,
        marker=mark,
        text=style.hovers([t.text[i] for i in shown]),
        hovertemplate="%{y} at %{x:.4g}<br>%{text}<extra>" + name + "</extra>",
    )
    found.add_scatter(
        x=t.costs[cost][best],
        y=t.value[best],
        mode="lines+markers",
        name=name or "no other is better at its cost",
        line={"color": colour or style.BLUE, "width": 2.5, "shape": "hv"},
        marker={"size": 8},
        text=style.hovers([t.text[i] for i in best]),
        hovertemplate="%{y} at %{x:.4g}<br>%{text}<extra>" + name + "</extra>",
    )


def _bounds(found: go.Figure, run: Run, cost: str) -> None:
    limit, reward = float(run.config.limits[cost]), run.config.reward
    target = float(reward.target) if reward.cost == cost else 0.0
    for x, dash, text in ((limit, "dash", "limit"), (target, "dot", "target")):
        if x:
            line = {"color": style.VERMILLION, "dash": dash, "width": 1.5}
            found.add_vline(x=x, line=line, annotation={"text": text, "font": {"size": 11}})
