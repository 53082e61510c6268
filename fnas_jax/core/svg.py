"""Small plots as SVG text: lines and heat maps, for reports that need no other file."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 260, 64, 40, 16
COLOURS = ("#1f5fa8", "#c4572c", "#3d8a4e", "#7a4fa3", "#8a8a8a")


def lines(series: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> str:
    """A plot of named series of points (x, y); points that are not finite are left out.

    A series of one point is a dot. '' where there is no point at all.
    """
    kept = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in series.items()
    }
    everything = [point for points in kept.values() for point in points]
    if not everything:
        return ""
    (x0, x1), (y0, y1) = (_span([p[i] for p in everything]) for i in (0, 1))
    right, low = WIDTH - 16, HEIGHT - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x0) / (x1 - x0) * (right - LEFT),
            low - (y - y0) / (y1 - y0) * (low - TOP),
        )

    parts = []
    for i in range(5):
        x, y = x0 + i / 4 * (x1 - x0), y0 + i / 4 * (y1 - y0)
        px, py = place(x, y)
        parts.append(f'<path d="M{LEFT} {py:.1f}H{right}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, py + 4, f"{y:.4g}", "end"))
        parts.append(_text(px, low + 16, f"{x:.4g}", "middle"))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 6, x_label, "middle"))
    for i, (name, points) in enumerate(kept.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (place(*p) for p in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(points) == 1:
            px, py = place(*points[0])
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>')
        parts.append(_text(LEFT + 8, TOP + 14 * i + 4, name, "start", colour))
    return _svg(WIDTH, HEIGHT, f"{y_label} over {x_label}", parts)


def heat_map(rows: Mapping[str, Sequence[float]]) -> str:
    """Named rows of values in [0, 1], of any lengths; a darker cell is a larger value."""
    cell, left = (54, 18), 150
    parts = []
    for i, (name, values) in enumerate(rows.items()):
        top = i * cell[1]
        parts.append(_text(left - 8, top + 13, name, "end"))
        for k, value in enumerate(values):
            shade = min(max(value, 0.0), 1.0)
            red, green, blue = (round(255 + shade * (c - 255)) for c in (31, 95, 168))
            parts.append(
                f'<rect x="{left + k * cell[0]}" y="{top}" width="{cell[0] - 1}"'
                f' height="{cell[1] - 1}" fill="rgb({red},{green},{blue})"/>'
            )
            colour = "#fff" if shade > 0.5 else "#333"
            x = left + (k + 0.5) * cell[0]
            parts.append(_text(x, top + 13, f"{value:.2f}", "middle", colour))
    widest = max((len(values) for values in rows.values()), default=0)
    size = (left + widest * cell[0], len(rows) * cell[1])
    return _svg(*size, "probability of each choice", parts)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = abs(low) * 0.01 or 1.0
    return (low, high) if high > low else (low - pad, high + pad)


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
        f' font-size="11">{html.escape(text)}</text>'
    )


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="sans-serif" role="img">'
        f"<title>{html.escape(title)}</title>{''.join(parts)}</svg>"
    )
