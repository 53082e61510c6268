"""How good the predictions of a critic are: by what came out of those that were trained."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fnas_jax.core import jsons
from fnas_jax.plots import data, style
from fnas_jax.plots.data import Run

WHO = "fnas with its critic has them, once the warm-up is over"


class Pairs(NamedTuple):
    """Predictions of n networks that were trained all the same, in the order of the search."""

    predicted: np.ndarray  # [n] rewards
    measured: np.ndarray  # [n] rewards
    std: np.ndarray  # [n] what the critic gave as its uncertainty: one standard deviation
    evaluations: np.ndarray  # [n] after how many evaluations it was known


def pairs(run: Run) -> Pairs:
    """What the metrics hold of predictions and outcomes. Raises UserError where there are none."""
    columns: list[list[float]] = [[], [], [], []]
    for line in run.lines:
        found = line.get("pairs")
        if not isinstance(found, dict) or type(line.get("trained")) is not int:
            continue
        kinds = {name: [jsons.NUMBER] for name in Pairs._fields[:3]}
        if not jsons.fits(found, kinds) or len({len(found.get(name, ())) for name in kinds}) > 1:
            continue
        rows = [found.get(name, []) for name in kinds]
        for column, row in zip(columns, (*rows, [line["trained"]] * len(rows[0])), strict=True):
            column.extend(row)
    if not columns[0]:
        raise data.lacking(run, "no predictions beside measured rewards in its metrics", WHO)
    return Pairs(*(np.array(column, float) for column in columns))


def predictions(run: Run) -> go.Figure:
    """Predicted reward (x) against the measured one (y), and the diagonal on which both agree."""
    known = pairs(run)
    rows = style.thinned(len(known.predicted), 2000)
    found = style.figure("predicted reward", "measured reward")
    both = np.concatenate([known.predicted, known.measured])
    ends = [both.min(), both.max()]
    line = {"color": style.GREY, "dash": "dot"}
    found.add_scatter(x=ends, y=ends, mode="lines", name="as predicted", line=line)
    bars = {"array": known.std[rows], "thickness": 0.7, "width": 0}
    found.add_scatter(
        x=known.predicted[rows],
        y=known.measured[rows],
        mode="markers",
        name="network",
        error_x=bars | {"color": style.see_through(style.BLUE, 0.35)},
        marker={
            "color": known.evaluations[rows],
            "colorscale": "Cividis",
            "size": 7,
            "colorbar": {"title": {"text": "after"}, "thickness": 10},
        },
        hovertemplate="predicted %{x:.4g}, measured %{y:.4g}<extra></extra>",
    )
    across = style.robust_range(known.predicted, np.zeros(0), True)
    style.clip(found, known.measured, np.zeros(0), True)
    if found.layout.yaxis.range is not None:
        found.update_xaxes(range=across)
    error = np.abs(known.predicted - known.measured)
    of = f" of {len(error)}" + (f", of which {len(rows)} shown" if len(rows) < len(error) else "")
    style.remark(found, [f"mean absolute error {error.mean():.3g}{of}", *_sampled(run)])
    return found


def _sampled(run: Run) -> list[str]:
    """A remark where not all pairs are there, because not all iterations are logged."""
    every = run.config.log.every
    return [f"of one iteration in {every}: log.every={every}"] if every > 1 else []


def shares_within(known: Pairs) -> np.ndarray:
    """[n] share of the first 1, 2, .. n predictions that were off by no more than their `std`."""
    within = np.abs(known.predicted - known.measured) <= known.std
    return np.cumsum(within) / np.arange(1, len(within) + 1)


def coverage(run: Run) -> go.Figure:
    """Above: the share of predictions within one standard deviation so far, which should be 68%.

    Below: the factors by which uncertainties are multiplied, for all and for confident predictions.
    """
    known = pairs(run)
    found = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.1, row_heights=[0.6, 0.4])
    style.dress(found, 480)
    _line(found, 1, known.evaluations, shares_within(known), "within one deviation", style.BLUE)
    place = data.series(run.lines, "trained")
    explored = data.series(run.lines, "coverage_explored")
    _line(found, 1, place, explored, "of confident ones", style.ORANGE)
    found.add_hline(y=0.683, row=1, col=1, line={"dash": "dot", "color": style.GREY})
    for name, words, colour in (
        ("calibration", "factor of all", style.BLUE),
        ("calibration_explored", "factor of confident ones", style.ORANGE),
    ):
        _line(found, 2, place, data.series(run.lines, name), words, colour, dash="dash")
    found.update_yaxes(title_text="coverage", tickformat=".0%", range=[-0.03, 1.03], row=1, col=1)
    found.update_yaxes(title_text="calibration", row=2, col=1, rangemode="tozero")
    style.count_axis(found, 0, float(np.nanmax(place)), "")
    found.update_xaxes(title_text="evaluated networks", row=2, col=1)
    style.remark(found, _sampled(run))
    return found


def errors(run: Run) -> go.Figure:
    """Mean absolute errors of predicted rewards, and rank correlations below.

    Explored ones were trained although the critic was sure of them, so that their errors are those
    of the predictions that stand for trainings.
    """
    place = data.series(run.lines, "trained")
    columns = {n: data.series(run.lines, n) for n in ("mae", "mae_explored", "tau")}
    if not any(np.isfinite(values).any() for values in columns.values()):
        raise data.lacking(run, "no errors of predictions in its metrics", WHO)
    ranked = bool(np.isfinite(columns["tau"]).any())
    found = make_subplots(1 + ranked, 1, shared_xaxes=True, vertical_spacing=0.1)
    style.dress(found, 480 if ranked else style.HEIGHT)
    _line(found, 1, place, columns["mae"], "of an iteration", style.SKY, mode="markers")
    _line(found, 1, place, columns["mae_explored"], "of explored ones so far", style.VERMILLION)
    found.update_yaxes(title_text="absolute error of rewards", rangemode="tozero", row=1, col=1)
    style.clip(found, columns["mae"], columns["mae_explored"], False, row=1, col=1)
    style.count_axis(found, 0, float(np.nanmax(place)), "")
    found.update_xaxes(title_text="evaluated networks", row=1 + ranked, col=1)
    if ranked:
        name = "Kendall's tau of an iteration"
        _line(found, 2, place, columns["tau"], name, style.BLUE, mode="markers")
        found.update_yaxes(title_text="tau", range=[-1.05, 1.05], row=2, col=1)
    return found


def _line(
    found: go.Figure,
    row: int,
    x: np.ndarray,
    y: np.ndarray,
    name: str,
    colour: str,
    mode: str = "lines",
    dash: str = "solid",
) -> None:
    known = np.isfinite(x) & np.isfinite(y)
    if known.any():
        mode = "markers" if known.sum() == 1 else mode
        rows = np.flatnonzero(known)[style.thinned(int(known.sum()))]
        trace = go.Scatter(x=x[rows], y=y[rows], name=name, mode=mode)
        trace.update(line={"color": colour, "width": 2, "dash": dash}, marker={"color": colour})
        found.add_trace(trace, row=row, col=1)
