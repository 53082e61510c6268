"""The training of one network for all architectures, before the search."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from fnas_jax.plots import data, style
from fnas_jax.plots.data import Run

WHO = "pgnas and spos train one"
TERMS = {
    "nll": ("cross-entropy", style.BLUE, "solid"),
    "kl": ("KL divergence", style.VERMILLION, "solid"),
    "kl_weights": ("of weights", style.ORANGE, "dash"),
    "kl_cost": ("of costs", style.GREEN, "dash"),
    "kl_entropy": ("of entropy", style.PURPLE, "dash"),
}


def supernet(run: Run) -> go.Figure:
    """The terms of its loss in nats an image, at each entry of the log."""
    place = data.series(run.stages, "step")
    columns = {name: data.series(run.stages, name) for name in TERMS}
    known = {n: np.flatnonzero(np.isfinite(y) & np.isfinite(place)) for n, y in columns.items()}
    if not len(known["nll"]):
        raise data.lacking(run, "no training of a network for all architectures", WHO)
    found = style.figure(y="nats per image")
    style.count_axis(found, 0, float(np.nanmax(place)), "entries of the log")
    for name, (words, colour, dash) in TERMS.items():
        rows = known[name][style.thinned(len(known[name]))]
        if len(rows):
            line = {"color": colour, "dash": dash, "width": 2}
            found.add_scatter(x=place[rows], y=columns[name][rows], name=words, line=line)
    found.update_traces(mode="lines+markers")
    return found
