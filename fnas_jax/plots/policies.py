"""What a policy or a posterior thinks of each choice, and how undecided it still is."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from fnas_jax.core import jsons
from fnas_jax.plots import data, style
from fnas_jax.plots.data import Run

COLUMNS = 200  # of moments that a heat map shows; of more, evenly chosen ones and the last
LOOP, STAGE = ("trained", "evaluated networks"), ("step", "entries of the log")
WHO = "ppo, fnas and pgnas log it, at each line of metrics.jsonl"
POSTERIOR = "pgnas has one"


class Course(NamedTuple):
    """Probabilities of choices at M moments."""

    x: np.ndarray  # [M] evaluations, or steps of the training
    title: str  # of x
    decisions: tuple[tuple[str, tuple[str, ...]], ...]  # T times: name, choices in words
    shares: tuple[np.ndarray, ...]  # T times [M, K_t]


def course(run: Run) -> Course:
    """The policy by evaluations, or the posterior by training steps. Raises UserError without."""
    for name, lines, (x, title) in (("policy", run.lines, LOOP), ("pi", run.stages, STAGE)):
        known = [m for m in lines if _is_table(m.get(name)) and jsons.fits(m.get(x), jsons.NUMBER)]
        if known:
            # Networks that were only predicted leave `trained` as it is.
            known = list({m[x]: m for m in known}.values())
            decisions = labels(run, known[-1][name])
            return Course(data.series(known, x), title, decisions, _shares(known, name, decisions))
    raise data.lacking(run, "no probabilities of choices in its metrics", WHO)


def _is_table(value: Any) -> bool:
    rows = isinstance(value, list) and value and all(isinstance(row, list) and row for row in value)
    return bool(rows) and all(jsons.fits(p, jsons.NUMBER) for row in value for p in row)


def labels(run: Run, table: Sequence[Sequence[float]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Names of decisions and choices of a `table`; numbers where the run does not know them."""
    if len(run.names) == len(table):
        return tuple(zip(run.names, run.choices, strict=True))
    return tuple((f"decision {t}", tuple(map(str, range(len(r))))) for t, r in enumerate(table))


def _shares(
    lines: list[dict[str, Any]], name: str, decisions: tuple[tuple[str, tuple[str, ...]], ...]
) -> tuple[np.ndarray, ...]:
    """[M, K_t] each. Rows of a log are padded to the largest K; what a line lacks is NaN."""
    found = []
    for t, (_, words) in enumerate(decisions):
        table = np.full((len(lines), len(words)), np.nan)
        for m, line in enumerate(lines):
            row = line[name][t][: len(words)] if t < len(line[name]) else []
            table[m, : len(row)] = row
        found.append(table)
    return tuple(found)


def policy(run: Run) -> go.Figure:
    """A band of rows for each decision, a row a choice; darker is likelier."""
    known = course(run)
    chosen = style.thinned(len(known.x), COLUMNS)
    rows, names, gaps = [], [], []
    for (decision, words), table in zip(known.decisions, known.shares, strict=True):
        if len(words) < 2:
            continue
        names += [f"{decision} = {word}" for word in words]
        rows += list(table[chosen].T)
        gaps.append(len(rows) - 0.5)
    height = 130 + 17 * len(rows)
    found = style.figure(known.title, height=height)
    found.add_heatmap(
        x=known.x[chosen],
        y=list(range(len(rows))),
        z=np.array(rows, np.float32),
        zmin=0,
        zmax=1,
        colorscale=style.SHADES,
        hovertemplate="%{y}<br>%{z:.1%} at %{x}<extra></extra>",
        colorbar={"thickness": 10, "tickformat": ".0%", "len": min(1.0, 300 / height), "y": 0.5},
    )
    found.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[html.escape(_short(name)) for name in names],
        tickfont={"size": 10},
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
    )
    for gap in gaps[:-1]:
        found.add_hline(y=gap, line={"color": "#666666", "width": 1})
    return found


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 2]}.."


def posterior(run: Run) -> go.Figure:
    """PGNAS's pi where it stands: a row for each decision, a cell for each choice."""
    known = [m for m in run.stages if _is_table(m.get("pi"))]
    if not known:
        raise data.lacking(run, "no posterior in its metrics", POSTERIOR)
    table = known[-1]["pi"]
    decisions = labels(run, table)
    width = max(len(row) for row in table)
    z = np.full((len(table), width), np.nan)
    texts = [[""] * width for _ in table]
    for t, row in enumerate(table):
        z[t, : len(row)] = row
        words = (*decisions[t][1], *[""] * width)
        texts[t][: len(row)] = [
            f"{html.escape(_short(words[k], 14))}<br>{p:.0%}" for k, p in enumerate(row)
        ]
    found = style.figure(height=90 + 34 * len(table))
    found.add_heatmap(
        z=np.round(z, 4),
        text=texts,
        texttemplate="%{text}",
        textfont={"size": 10},
        zmin=0,
        zmax=1,
        colorscale=style.SHADES,
        showscale=False,
        hovertemplate="%{text}<extra></extra>",
        xgap=2,
        ygap=2,
    )
    found.update_xaxes(visible=False)
    found.update_yaxes(
        tickvals=list(range(len(table))),
        ticktext=[html.escape(_short(name, 20)) for name, _ in decisions],
        range=[len(table) - 0.5, -0.5],
        showgrid=False,
    )
    return found


def entropy(run: Run) -> go.Figure:
    """Entropy in nats, by evaluations or training steps; dotted: that of a uniform choice."""
    # One-shot methods have trained their posterior before the loop, in which it stays as it is.
    staged = np.isfinite(data.series(run.stages, "entropy")).any()
    lines, x, title = (run.stages, *STAGE) if staged else (run.lines, *LOOP)
    values, place = data.series(lines, "entropy"), data.series(lines, x)
    known = np.isfinite(values) & np.isfinite(place)
    if not known.any():
        raise data.lacking(run, "no entropy in its metrics", WHO)
    found = style.figure(y="entropy of the policy (nats)")
    chosen = np.flatnonzero(known)[style.thinned(int(known.sum()))]
    style.count_axis(found, place[known].min(), place[known].max(), title)
    found.add_scatter(
        x=place[chosen],
        y=values[chosen],
        mode="lines" if known.sum() > 1 else "markers",
        name="entropy",
        line={"color": style.BLUE, "width": 2},
        hovertemplate="%{y:.4g} nats at %{x}<extra></extra>",
    )
    uniform = float(sum(np.log(max(len(words), 1)) for words in run.choices))
    if uniform:
        text = {"text": "uniform", "font": {"size": 11}}
        found.add_hline(y=uniform, line={"dash": "dot", "color": style.GREY}, annotation=text)
    found.update_yaxes(rangemode="tozero")
    return found
