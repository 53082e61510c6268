"""Where the time of searches went."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go

from fnas_jax.core import jsons
from fnas_jax.plots import data, style
from fnas_jax.plots.data import Run

PARTS = {
    "children": ("children", style.BLUE),
    "method": ("method", style.ORANGE),
    "compile": ("compilation", style.PURPLE),
    "disk": ("disk", style.GREEN),
    "other": ("other", style.GREY),  # start, data, finals between parts
}


def seconds(run: Run) -> dict[str, float]:
    """Seconds of each of PARTS, by result.json, or by the last iteration of a run without one.

    Raises UserError where neither tells.
    """
    found = dict((run.result or {}).get("seconds") or {})
    if not found and run.lines:
        found = {n.removeprefix("seconds/"): x for n, x in run.lines[-1].items() if "seconds/" in n}
    known = {name: float(x) for name, x in found.items() if jsons.fits(x, jsons.NUMBER)}
    if "total" not in known:
        raise data.lacking(run, "no times in its metrics yet", "the first iteration writes them")
    parts = {name: known.get(name, 0.0) for name in PARTS if name != "other"}
    return parts | {"other": max(known["total"] - sum(parts.values()), 0.0)}


def time(runs: list[Run]) -> go.Figure:
    """A bar for each run, cut into the parts of its time."""
    spent = [seconds(run) for run in runs]
    most = max(sum(parts.values()) for parts in spent)
    found = style.figure(height=150 + 50 * len(runs))
    unit, name = style.time_axis(found, most)
    labels = [html.escape(run.label) for run in runs]
    for part, (words, colour) in PARTS.items():
        values = np.array([parts[part] for parts in spent])
        shares = [
            x / max(sum(parts.values()), 1e-9) for x, parts in zip(values, spent, strict=True)
        ]
        found.add_bar(
            y=labels,
            x=values / unit,
            name=words,
            orientation="h",
            marker={"color": colour},
            customdata=shares,
            hovertemplate=f"{words}: %{{x:.3g}} {name}, %{{customdata:.1%}}<extra></extra>",
        )
    found.update_layout(barmode="stack", legend_traceorder="normal")
    found.update_yaxes(autorange="reversed", showticklabels=len(runs) > 1)
    return found
