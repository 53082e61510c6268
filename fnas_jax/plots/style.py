"""How all figures look: colours that colour-blind people can tell apart, axes, sizes."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from fnas_jax.core.measure import Measure
from fnas_jax.plots import data

# Okabe & Ito, "Color Universal Design", 2008
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW = PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"),
)
GREY = "#8A8A8A"
SHADES = [[0.0, "#FFFFFF"], [0.35, "#9ECAE1"], [0.7, "#2F7EBC"], [1.0, "#08306B"]]  # of shares
# Colour and symbol, which differ both, of each kind of network
MARKS = {
    data.TRAINED: (GREY, "circle"),
    data.INHERITED: (GREY, "diamond"),
    data.MEASURED: (GREY, "circle"),
    data.STOPPED: (ORANGE, "triangle-down-open"),
    data.PREDICTED: (SKY, "circle-open"),
    data.FAILED: (VERMILLION, "x"),
}
HEIGHT, HANDFUL = 400, 7
OF_THE_SEARCH = "of the search"
WORDS = 120  # characters of a network's text in a hover


def figure(x: str = "", y: str = "", height: int = HEIGHT) -> go.Figure:
    """An empty figure with the names of its axes."""
    found = go.Figure()
    dress(found, height)
    found.update_xaxes(title_text=html.escape(x))
    found.update_yaxes(title_text=html.escape(y))
    return found


def dress(found: go.Figure, height: int = HEIGHT) -> None:
    """Gives a figure our fonts, colours and margins; it is as wide as what it stands in."""
    found.update_layout(
        template="plotly_white",
        height=height,
        colorway=PALETTE,
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        margin={"l": 64, "r": 16, "t": 48, "b": 56},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0, "font": {"size": 12}},
        hoverlabel={"align": "left"},
        hovermode="closest",
    )
    found.update_xaxes(automargin=True, zeroline=False)
    found.update_yaxes(automargin=True, zeroline=False)


def name_of(run: data.Run) -> str:
    """The metric of a run on an axis; tables do not say on which images theirs was measured."""
    held_out = run.measure == Measure() and run.config.task.name.startswith("images/")
    return "validation accuracy" if held_out else run.measure.name


def value_axis(found: go.Figure, run: data.Run) -> None:
    """The y axis of the metric of a run: shares as percentages."""
    found.update_yaxes(title_text=html.escape(name_of(run)))
    if run.measure.kind == "share":
        found.update_yaxes(tickformat=".4~p")


def count_axis(found: go.Figure, least: float, most: float, title: str) -> None:
    """The x axis of a number of things, whose marks are whole numbers."""
    span = most - least
    if span <= 20:  # of more, plotly puts its marks at whole numbers by itself
        found.update_xaxes(dtick=max(1, math.ceil(span / 10)), tick0=0)
    found.update_xaxes(title_text=title, tickformat=",d")


def time_axis(found: go.Figure, most: float, what: str = OF_THE_SEARCH) -> tuple[float, str]:
    """(seconds of a unit, its name) for times of up to `most` seconds, which the x axis gets.

    `what`: they are of, in the words of the axis.
    """
    unit, name = next(
        (u, n)
        for u, n in ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
        if most >= 2 * u or u == 1
    )
    found.update_xaxes(title_text=f"{name} {what}")
    return unit, name


def robust_range(
    values: np.ndarray, curve: np.ndarray, maximise: bool
) -> tuple[float, float] | None:
    """The part of an axis that is worth seeing: a few bad networks do not flatten the rest.

    Of `values` [n] all that lie within three quartile ranges of the worse quartile, and all
    that are better (of a handful, all); of the best so far, `curve` [m], its better half.
    None where there is nothing.
    """
    values, curve = (x[np.isfinite(x)] for x in (values, curve))
    if not len(values):
        return None
    up = values if maximise else -values
    low, high = np.quantile(up, (0.25, 0.75))
    kept = up[up >= low - 3 * (high - low)] if len(up) > HANDFUL else up
    least = min(kept.min(), np.median(curve if maximise else -curve) if len(curve) else np.inf)
    pad = 0.05 * (up.max() - least) or 0.01 * max(abs(least), 1e-9)
    ends = least - pad, up.max() + pad
    return ends if maximise else (-ends[1], -ends[0])


def remark(found: go.Figure, texts: Sequence[str]) -> None:
    """Lines in the lower right corner of the plot, above those that stand there."""
    for text in texts:
        found.add_annotation(
            name="remark",
            text=html.escape(text),
            xref="paper",
            yref="paper",
            x=1,
            y=0,
            yshift=16 * sum(a.name == "remark" for a in found.layout.annotations),
            xanchor="right",
            yanchor="bottom",
            showarrow=False,
            font={"size": 11, "color": "#555555"},
            bgcolor="rgba(255,255,255,0.7)",
        )


def clip(
    found: go.Figure,
    values: np.ndarray,
    curve: np.ndarray,
    maximise: bool,
    drawn: np.ndarray | None = None,
    **place: int,
) -> None:
    """Sets the y axis (of `place`, row and col) to `robust_range`; says how many lie outside.

    `drawn`: what is drawn; None: the `values`.
    """
    ends = robust_range(values, curve, maximise)
    if ends is None:
        return
    drawn = values if drawn is None else drawn
    finite = drawn[np.isfinite(drawn)]
    outside = int(((finite < ends[0]) | (finite > ends[1])).sum())
    if outside:
        found.update_yaxes(range=list(ends), **place)
        remark(found, [f"{outside} of {len(finite)} outside: a double-click shows all"])


def hovers(texts: Sequence[str]) -> list[str]:
    """Texts for hovers: escaped, in lines of at most 60 characters, the rest left out."""
    found = []
    for text in texts:
        short = text if len(text) <= WORDS else f"{text[:WORDS]}.."
        found.append("<br>".join(html.escape(short[i : i + 60]) for i in range(0, len(short), 60)))
    return found


def thinned(count: int, most: int = 1000) -> np.ndarray:
    """At most `most` of the numbers 0 to count - 1, evenly spread, with both ends.

    More points than that are no more to see in a line, and would make pages of many MB.
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def see_through(colour: str, share: float) -> str:
    """`colour` (#RRGGBB) with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share})"
