"""What a knowledge pool gives to new children, and how far first readings drift."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fnas_jax.core import jsons
from fnas_jax.plots import data, style
from fnas_jax.plots.data import Run

WHO = "searches on images with akp.enabled have one"
SHARES = {
    "pool/hits": ("blocks found in the pool", style.BLUE),
    "pool/similarity": ("their similarity", style.ORANGE),
    "pool/exact": ("equal ones", style.GREEN),
}


class Drift(NamedTuple):
    """n finalists: how much better the second reading was than the one in the search."""

    evaluations: np.ndarray  # [n] when it was first read
    gain: np.ndarray  # [n] second reading minus first one, so that more is better


def drift(run: Run) -> Drift:
    """By the finalists of result.json; of no length where there are none."""
    t, rows = run.trials, []
    for entry in (run.result or {}).get("finalists", []):
        first, second = entry.get("first_accuracy"), entry.get("accuracy")
        if not jsons.fits([first, second], [jsons.NUMBER]) or not _fits(t, entry.get("arch")):
            continue
        same = np.flatnonzero((t.archs == np.asarray(entry["arch"])).all(axis=1) & t.measured)
        if len(same):
            rows.append((t.evaluations[same[0]], second - first))
    return Drift(*np.array(rows, float).reshape(-1, 2).T)


def _fits(trials: data.Trials, arch: Any) -> bool:
    """Whether it may be one of the networks, as that of a result that was changed may not."""
    return jsons.fits(arch, [int]) and 0 < len(arch) == trials.archs.shape[1]


def pool(run: Run) -> go.Figure:
    """Shares of blocks that were found, entries of the pool, and the drift of first readings.

    Children that start from a pool that has learnt more look better than earlier ones of the same
    worth; second readings of finalists, on equal terms, show by how much.
    """
    place = data.series(run.lines, "trained")
    shares = {name: data.series(run.lines, name) for name in SHARES}
    if not any(np.isfinite(values).any() for values in shares.values()):
        raise data.lacking(run, "no figures of a knowledge pool in its metrics", WHO)
    moved = drift(run)
    count = 3 if len(moved.gain) else 2
    found = make_subplots(count, 1, shared_xaxes=True, vertical_spacing=0.08)
    style.dress(found, 200 + 170 * count)
    for name, (words, colour) in SHARES.items():
        _add(found, 1, place, shares[name], words, colour)
    found.update_yaxes(title_text="share", tickformat=".0%", range=[-0.03, 1.03], row=1, col=1)
    entries = data.series(run.lines, "pool/entries")
    _add(found, 2, place, entries, "entries", style.PURPLE, showlegend=False)
    found.update_yaxes(title_text="entries", rangemode="tozero", row=2, col=1)
    if len(moved.gain):
        mark = {"color": style.VERMILLION, "size": 8}
        words = "gain of finalists, read again"
        gains = go.Scatter(
            x=moved.evaluations, y=moved.gain, mode="markers", marker=mark, name=words
        )
        found.add_trace(gains, row=3, col=1)
        found.add_hline(y=0, row=3, col=1, line={"color": style.GREY, "dash": "dot"})
        share = {"tickformat": "+.2~p"} if run.measure.kind == "share" else {}
        found.update_yaxes(title_text="drift", row=3, col=1, **share)
    style.count_axis(found, 0, float(np.nanmax(place)), "")
    found.update_xaxes(title_text="evaluated networks", row=count, col=1)
    return found


def _add(
    found: go.Figure, row: int, x: np.ndarray, y: np.ndarray, name: str, colour: str, **more: bool
) -> None:
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    rows = known[style.thinned(len(known))]
    line = go.Scatter(
        x=x[rows], y=y[rows], name=name, mode="lines", line={"color": colour, "width": 2}, **more
    )
    found.add_trace(line, row=row, col=1)
