"""Several runs in one figure: bands over the seeds of one configuration."""

from __future__ import annotations

import html
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError
from fnas_jax.plots import best_so_far, style
from fnas_jax.plots.data import Run

BAND = (0.1, 0.9)
POINTS = 400  # of a band over time
CORNERS = 1000  # of a line that is drawn of a band over evaluations
ALIKE = ("seed", "jax.", "log.", "task.cache_dir")  # keys that make no other search
STORE = "knowledge.dir"  # makes another one: what is in the store is where a search starts from


class Band(NamedTuple):
    """The best so far of S runs at n places."""

    x: np.ndarray  # [n]
    low: np.ndarray  # [n] quantiles over the runs, of BAND, and the median
    median: np.ndarray
    high: np.ndarray
    runs: int  # S: those that have found something


def groups(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs of one configuration but for the seed, by a label that tells them from the others.

    A label has the method, and keys by which groups of one method differ.
    """
    flat = [_keys(run) for run in runs]
    every = sorted({name for keys in flat for name in keys})
    differing = [n for n in every if len({repr(keys.get(n)) for keys in flat}) > 1]
    found: dict[str, list[Run]] = {}
    for run, keys in zip(runs, flat, strict=True):
        peers = [k for k in flat if k["method.name"] == keys["method.name"]]
        more = [
            _words(n, keys.get(n)) for n in differing if len({repr(k.get(n)) for k in peers}) > 1
        ]
        found.setdefault(", ".join([str(keys["method.name"]), *more]), []).append(run)
    return found


def _words(name: str, value: object) -> str:
    """A key in a label."""
    if name == STORE:
        return f"store {value}" if value else "a store of its own"
    return f"{name}={value}"


def _keys(run: Run) -> dict[str, object]:
    """The keys of a run that make it another search."""
    flat = config_lib.flatten(run.config)
    return {name: x for name, x in flat.items() if not name.startswith(ALIKE)}


def same_measure(runs: list[Run]) -> None:
    """Raises UserError where the runs are about different metrics or tasks."""
    for what, of in (("metric", lambda r: r.measure.name), ("task", lambda r: r.config.task.name)):
        known = {of(run): run for run in reversed(runs)}
        if len(known) > 1:
            said = ", ".join(
                f"{name} ({str(run.folder)!r})" for name, run in reversed(known.items())
            )
            raise UserError(f"the runs cannot be compared, each has another {what}: {said}")


def band(runs: list[Run], x: str) -> Band:
    """Quantiles of the best so far, from where all runs have one.

    What a finished search has found stands to the end of the longest; where one is not finished,
    nobody knows how it goes on, and the band ends.
    """
    curves = [(best_so_far.curve(run.trials, x), run.result is None) for run in runs]
    curves = [(c, goes_on) for c, goes_on in curves if len(c.x)]
    if not curves:
        return Band(*(np.zeros(0),) * 4, 0)
    first, last = (max(c.x[end] for c, _ in curves) for end in (0, -1))
    last = min([last, *(c.x[-1] for c, goes_on in curves if goes_on)])
    if x == "evaluations":
        places = np.arange(first, last + 1)
    else:
        places = np.linspace(first, last, POINTS) if last > first else np.zeros(0)
    steps = [c.value[np.searchsorted(c.x, places, side="right") - 1] for c, _ in curves]
    low, median, high = np.quantile(np.array(steps), (BAND[0], 0.5, BAND[1]), axis=0)
    return Band(places, low, median, high, len(curves))


def overlay(runs: list[Run], x: str) -> go.Figure:
    """The best so far of several runs: the median of each group, and its 10% to 90% over seeds."""
    same_measure(runs)
    for run in runs:
        best_so_far.check(run, x)
    found, every, known = style.figure(), [], groups(runs)
    bands = {label: band(members, x) for label, members in known.items()}
    ends = np.array([b.x[-1] for b in bands.values() if len(b.x)])
    unit = best_so_far.x_axis(found, ends, x)
    for i, (label, of) in enumerate(bands.items()):
        colour, drawn = style.PALETTE[i % len(style.PALETTE)], corners(of)
        name = html.escape(label) + (f" ({of.runs} seeds)" if of.runs > 1 else "")
        if of.runs > 1:
            _area(found, drawn.x / unit, drawn, colour, name)
        found.add_scatter(
            x=drawn.x / unit,
            y=drawn.median,
            mode="lines",
            name=name,
            legendgroup=name,
            line={"color": colour, "width": 2.5, "shape": "hv", "dash": _dash(i)},
            hovertemplate="%{y} at %{x}<extra>" + name + "</extra>",
        )
        every.append(of.low if runs[0].measure.sign > 0 else of.high)
    style.value_axis(found, runs[0])
    values = np.concatenate(every)
    style.clip(found, values, values, runs[0].measure.sign > 0)
    return found


def corners(of: Band) -> Band:
    """A band where any of its lines changes, and where it ends; of very many such places, some."""
    if not len(of.x):
        return of
    lines = np.stack([of.low, of.median, of.high])
    changes = np.flatnonzero((np.diff(lines, axis=1) != 0).any(axis=0)) + 1
    rows = np.unique([0, *changes, len(of.x) - 1])
    rows = rows[style.thinned(len(rows), CORNERS)]
    return Band(of.x[rows], of.low[rows], of.median[rows], of.high[rows], of.runs)


def _dash(i: int) -> str:
    """Lines differ by more than their colour."""
    return ("solid", "dash", "dot", "dashdot")[i % 4]


def _area(found: go.Figure, x: np.ndarray, of: Band, colour: str, name: str) -> None:
    shape = {"width": 0, "shape": "hv", "color": colour}
    for y, fill in ((of.high, "none"), (of.low, "tonexty")):
        found.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line=shape,
            fill=fill,
            fillcolor=style.see_through(colour, 0.18),
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        )
