"""The best so far, and every network that was tried."""

from __future__ import annotations

import html
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from fnas_jax import simulated
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError
from fnas_jax.plots import data, style
from fnas_jax.plots.data import Run, Trials

AXES = ("evaluations", "seconds", simulated.NAME)
# What the times of an axis are of
TIMES = {
    "seconds": style.OF_THE_SEARCH,
    simulated.NAME: "of simulated training, one network after another",
}
MOST = 1000  # points of a kind with what they say when pointed at


class Curve(NamedTuple):
    """The best so far at each of n measured networks."""

    x: np.ndarray  # [n] as its axis has them
    value: np.ndarray  # [n] the metric of the one with the highest reward so far
    holder: np.ndarray  # [n] int: its row among the trials


def curve(trials: Trials, x: str) -> Curve:
    """The best so far, by reward as in the search; of equal ones the first.

    `x` of AXES. What is known at no time is left out of one over seconds.
    """
    place = at(trials, x)
    rows = np.flatnonzero(trials.measured & np.isfinite(place))
    if not len(rows):
        return Curve(*(np.zeros(0),) * 2, np.zeros(0, int))
    rewards = trials.reward[rows]
    rises = rewards > np.concatenate([[-np.inf], np.maximum.accumulate(rewards)[:-1]])
    holder = rows[np.maximum.accumulate(np.where(rises, np.arange(len(rows)), 0))]
    return Curve(place[rows], trials.value[holder], holder)


def at(trials: Trials, x: str) -> np.ndarray:
    """[R] float: where each trial stands on the axis `x`. Raises UserError for another one."""
    if x not in AXES:
        raise UserError(f"x is {x!r}; allowed are {', '.join(AXES)}{nearest(str(x), AXES)}")
    return np.asarray(getattr(trials, x), float)


def check(run: Run, x: str) -> None:
    """Raises UserError where the run has not the times of the axis `x`, which others have."""
    if x == simulated.NAME and not np.isfinite(at(run.trials, x)).any():
        who = "task.time=COLUMN names those of a table, before the search"
        raise data.lacking(run, "no training times in its metrics", who)


def same_scale(run: Run) -> bool:
    """Whether rewards are values, so that predicted rewards can stand among these."""
    t = run.trials
    return bool(np.allclose(t.reward[t.measured], t.value[t.measured], rtol=1e-5, atol=1e-6))


def evaluations(run: Run, x: str) -> go.Figure:
    """Every network of the run, and the best so far; `x` of AXES.

    Failed ones stand at the edge of the plot. Predicted ones have rewards only: where these are no
    values, they are counted and not drawn.
    """
    check(run, x)
    trials, found = run.trials, style.figure()
    place = at(trials, x)
    unit = x_axis(found, place, x)
    best = curve(trials, x)
    shown = np.where(trials.kind == data.PREDICTED, trials.reward, trials.value)
    drawable = np.isfinite(place) & np.isfinite(shown)
    left_out = 0
    hidden = 0 if same_scale(run) else int((trials.kind == data.PREDICTED).sum())
    for kind in data.KINDS[:-1]:
        rows = np.flatnonzero((trials.kind == kind) & drawable)
        left_out += max(len(rows) - MOST, 0)
        rows = rows[style.thinned(len(rows), MOST)]
        if len(rows) and not (hidden and kind == data.PREDICTED):
            _points(found, run, kind, rows, place[rows] / unit, shown[rows])
    style.value_axis(found, run)
    style.clip(found, trials.value, best.value, run.measure.sign > 0)
    failed = np.flatnonzero((trials.kind == data.FAILED) & np.isfinite(place))
    failed = failed[style.thinned(len(failed), MOST)]
    if len(failed):
        _at_the_edge(found, run, failed, place[failed] / unit)
    if len(best.x):
        _line(found, best.x / unit, best.value, "best so far", style.BLUE)
        _star(found, run, best, unit)
    remarks = [f"{hidden} predicted: their rewards are no {run.measure.name}"] * bool(hidden)
    remarks += [f"{left_out} points left out, evenly"] * bool(left_out)
    style.remark(found, remarks)
    return found


def incumbent(run: Run, x: str) -> go.Figure:
    """The best so far of one run; `x` of AXES."""
    check(run, x)
    found, best = style.figure(), curve(run.trials, x)
    unit = x_axis(found, at(run.trials, x), x)
    style.value_axis(found, run)
    if len(best.x):
        _line(found, best.x / unit, best.value, "best so far", style.BLUE)
        style.clip(found, run.trials.value, best.value, run.measure.sign > 0, best.value)
        _star(found, run, best, unit)
    return found


def x_axis(found: go.Figure, place: np.ndarray, x: str) -> float:
    """Dresses the x axis; the number by which places are divided on it."""
    most = float(np.nanmax(place)) if np.isfinite(place).any() else 1.0
    if x in TIMES:
        return style.time_axis(found, most, TIMES[x])[0]
    style.count_axis(found, 0, most, "evaluated networks")
    return 1.0


def _points(
    found: go.Figure, run: Run, kind: str, rows: np.ndarray, x: np.ndarray, y: np.ndarray
) -> None:
    colour, symbol = style.MARKS[kind]
    costs = [
        "".join(f"<br>{n} {c[i]:.4g}" for n, c in run.trials.costs.items() if np.isfinite(c[i]))
        for i in rows
    ]
    texts = style.hovers([run.trials.text[i] for i in rows])
    rewards = [f"<br>reward {run.trials.reward[i]:.4g}" for i in rows]
    found.add_scatter(
        x=x,
        y=y,
        mode="markers",
        name=kind,
        marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.7},
        text=[f"{t}{r}{c}" for t, r, c in zip(texts, rewards, costs, strict=True)],
        hovertemplate="%{y}<br>%{text}<extra>" + kind + "</extra>",
    )


def _at_the_edge(found: go.Figure, run: Run, rows: np.ndarray, x: np.ndarray) -> None:
    """Marks of failed networks, which have no value, on the lower edge of the plot."""
    colour, symbol = style.MARKS[data.FAILED]
    found.add_scatter(
        x=x,
        y=np.zeros(len(rows)),
        yaxis="y2",
        mode="markers",
        name=data.FAILED,
        marker={"color": colour, "symbol": symbol, "size": 8},
        text=style.hovers([run.trials.text[i] for i in rows]),
        hovertemplate="%{text}<extra>failed</extra>",
        cliponaxis=False,
    )
    hidden = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    found.update_layout(yaxis2=hidden)


def _line(found: go.Figure, x: np.ndarray, y: np.ndarray, name: str, colour: str) -> None:
    # A step has two ends only.
    change = np.flatnonzero(np.diff(y, prepend=np.nan) != 0) if len(y) else np.zeros(0, int)
    rows = np.append(change, len(y) - 1)
    found.add_scatter(
        x=x[rows],
        y=y[rows],
        mode="lines",
        name=html.escape(name),
        line={"color": colour, "width": 2.5, "shape": "hv"},
        hovertemplate="%{y}<extra>" + html.escape(name) + "</extra>",
    )


def _star(found: go.Figure, run: Run, best: Curve, unit: float) -> None:
    """Marks where the best one was found."""
    first = int(np.argmax(best.holder == best.holder[-1]))
    found.add_scatter(
        x=[best.x[first] / unit],
        y=[best.value[first]],
        mode="markers",
        name="best",
        marker={"color": style.VERMILLION, "symbol": "star", "size": 13},
        text=style.hovers([run.trials.text[best.holder[-1]]]),
        hovertemplate="%{y}<br>%{text}<extra>best</extra>",
    )
